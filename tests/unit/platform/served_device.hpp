// SPDX-License-Identifier: MIT
#pragma once
// A virtio device whose queues are served outside of the platform, reached as a guest reaches it: by way of the whole
// platform.
#include <platform/platform.hpp>

#include <array>
#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <vector>

namespace served {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::Space;
using What = fakes::FakeHost::ServedCall::What;

inline constexpr u8 ACKNOWLEDGE = 1, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64, set_up = 3; // with DRIVER
inline constexpr u8 running = set_up | FEATURES_OK | DRIVER_OK;
inline constexpr u64 VERSION_1 = u64{1} << 32, INDIRECT_DESC = 1 << 28, EVENT_IDX = 1 << 29;
inline constexpr u32 status = 20, interrupts = 0x1000, configuration = 0x3000;
inline constexpr u64 ram_size = 0x1'0000;
// Of each queue its own.
constexpr u64 descriptors_of(u32 queue) { return 0x1000 + queue * 0x1000; }
constexpr u64 available_of(u32 queue) { return 0x8000 + queue * 0x1000; }
constexpr u64 used_of(u32 queue) { return 0xc000 + queue * 0x1000; }

struct ServedDevice : testing::Test {
    u32 const number, slot; // as in calls of the Host, and on the bus
    static constexpr u64 bar = 0xc000'0000;
    static constexpr u16 ports = 0x2000;
    fakes::FakeHost host;
    std::vector<u64> ram = std::vector<u64>(ram_size / 8);
    lib::RamPiece piece{{0}, ram_size, reinterpret_cast<u8*>(ram.data())};
    std::unique_ptr<platform::Platform> platform;

    ServedDevice(u32 its_number, u32 its_slot) : number(its_number), slot(its_slot) {}
    // With what host.facts say.
    void build() {
        host.memory = lib::GuestMemory({&piece, 1});
        platform = std::make_unique<platform::Platform>(host, host.memory, host.facts);
        set_up_bars();
        host.served_calls.clear();
        host.messages.clear();
    }
    void set_up_bars() {
        set_function(0x10, bar);
        set_function(0x14, 0);
        set_function(0x20, ports);
        set_function(0x04, 7); // ports, memory, bus master
        // The I/O APIC's input of the slot: level-triggered, vector 0x61.
        platform->io(Space::Mmio, 0xfec0'0000, 4, Op::Write, 0x10 + 2 * (16 + slot % 4));
        platform->io(Space::Mmio, 0xfec0'0010, 4, Op::Write, 0x8061);
    }
    u32 function(u32 offset) { return function(offset, slot); }
    u32 function(u32 offset, u32 in_slot) {
        return static_cast<u32>(
            platform->io(Space::Mmio, 0xe000'0000 + (u64{in_slot} << 15) + offset, 4, Op::Read, 0).data);
    }
    void set_function(u32 offset, u64 value) {
        platform->io(Space::Mmio, 0xe000'0000 + (u64{slot} << 15) + offset, 4, Op::Write, value);
    }
    u64 in(u64 offset, u8 size) {
        u64 const data = platform->io(Space::Mmio, bar + offset, size, Op::Read, 0).data;
        return size == 8 ? data : data & ((u64{1} << size * 8) - 1);
    }
    void out(u64 offset, u64 value, u8 size) { platform->io(Space::Mmio, bar + offset, size, Op::Write, value); }
    u8 get_status() { return static_cast<u8>(in(status, 1)); }
    void set_status(u8 value) { out(status, value, 1); }
    u64 offered() {
        u64 features = 0;
        for (u32 half = 0; half < 2; half++) {
            out(0, half, 4);
            features |= in(4, 4) << (half * 32);
        }
        return features;
    }
    void negotiate(u64 features) {
        set_status(set_up);
        for (u32 half = 0; half < 2; half++) {
            out(8, half, 4);
            out(12, features >> (half * 32) & 0xffff'ffff, 4);
        }
        set_status(set_up | FEATURES_OK);
    }
    void enable(u32 queue, u16 size = 64) {
        out(22, queue, 2);
        out(24, size, 2);
        out(32, descriptors_of(queue), 8);
        out(40, available_of(queue), 8);
        out(48, used_of(queue), 8);
        out(28, 1, 2);
    }
    void start(u32 queues = 2) {
        negotiate(VERSION_1 | EVENT_IDX);
        for (u32 queue = 0; queue < queues; queue++)
            enable(queue);
        set_status(running);
        ASSERT_EQ(get_status(), running);
    }
    void ring(u32 queue) { platform->io(Space::Pio, ports + queue * 4, 2, Op::Write, queue); }
    // What the host was told since the last call: "S0" start of a queue, "D0" a doorbell, "X" stop.
    std::string told() {
        std::string text;
        for (auto const& call : host.served_calls) {
            EXPECT_EQ(call.device, number);
            text += call.what == What::Start ? "S" : call.what == What::Doorbell ? "D" : "X";
            if (call.what != What::Stop) text += std::to_string(call.queue);
        }
        host.served_calls.clear();
        return text;
    }
    u8 take_interrupts() {
        u8 const causes = static_cast<u8>(in(interrupts, 1));
        platform->end_of_interrupt(0x61);
        return causes;
    }
};

} // namespace served
