// SPDX-License-Identifier: MIT
#pragma once
// A hostile driver of a disk or a NIC, and a hostile server of its queues, against each other. The one that serves
// hears of starts, doorbells and stops in an order that makes sense, of usable queues only, and of each access a
// bounded number; it interrupts only for a queue that is started; and the device works after a reset whose stops have
// ended.
#include "input.hpp"
#include "require.hpp"

#include <cstring>
#include <fakes/fake_host.hpp>
#include <memory>
#include <platform/served_virtio.hpp>
#include <vector>

namespace fuzz {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using Call = fakes::FakeHost::ServedCall;

inline constexpr u64 ram_size = 0x4000;
inline constexpr u32 status_at = 20, configuration_at = 0x3000;
inline constexpr u16 registers = 0, msix = 2, doorbells = 4; // BARs
inline constexpr u8 running = 15;

// Subject: the Device, its facts by put_facts(), its queue_count, and the features that a driver may accept.
template <typename Subject> struct World {
    using Device = typename Subject::Device;
    static constexpr u32 queue_count = Subject::queue_count;
    fakes::FakeHost host;
    std::vector<u64> ram = std::vector<u64>(ram_size / 8);
    lib::RamPiece piece{{0}, ram_size, reinterpret_cast<u8*>(ram.data())};
    std::unique_ptr<Device> device;
    // What the server knows.
    u32 started = 0, stops = 0;
    std::size_t heard = 0;

    World() {
        host.memory = lib::GuestMemory({&piece, 1});
        Subject::put_facts(host.facts);
        device = std::make_unique<Device>(host.plug());
        device->function().write(1, 6, ~0U);
    }
    u64 io(Op op, u16 bar, u64 offset, u8 size, u64 value) {
        return device->io({offset, value, bar, size, op, 0}).data;
    }
    void out(u64 offset, u64 value, u8 size) { io(Op::Write, registers, offset, size, value); }
    u8 status() { return static_cast<u8>(io(Op::Read, registers, status_at, 1, 0)); }

    // The server follows the calls. Each must fit what it was told before.
    void hear() {
        for (; heard < host.served_calls.size(); heard++) {
            Call const& call = host.served_calls[heard];
            require(call.device == Device::number && call.queue < queue_count);
            u32 const bit = 1U << call.queue;
            switch (call.what) {
            case Call::What::Start:
                require((started & bit) == 0);
                require(call.setup.size <= Device::queue_size && lib::SplitQueue::is_usable(host.memory, call.setup));
                started |= bit;
                break;
            case Call::What::Doorbell: require((started & bit) != 0 && device->function().is_bus_master()); break;
            case Call::What::Stop:
                require(started != 0);
                started = 0;
                stops++;
                break;
            }
        }
    }
    void start(u32 queues, u32 features) {
        out(status_at, 3, 1);
        for (u32 half = 0; half < 2; half++) {
            out(8, half, 4);
            out(12, half == 0 ? features & Subject::features : 1, 4);
        }
        out(status_at, 11, 1);
        for (u32 queue = 0; queue < queue_count; queue++) {
            if ((queues >> queue & 1) == 0) continue;
            out(22, queue, 2);
            out(24, 64, 2);
            out(32, 0x400 * queue, 8);
            out(40, 0x1000 + 0x100 * queue, 8);
            out(48, 0x2000 + 0x400 * queue, 8);
            out(28, 1, 2);
        }
        out(status_at, running, 1);
    }
    void stopped() {
        device->serving_stopped();
        if (stops != 0) stops--;
    }
    void works_after_reset() {
        out(status_at, 0, 1);
        hear();
        require((status() == 0) == (stops == 0));
        while (stops != 0)
            stopped();
        require(status() == 0 && started == 0);
        device->function().write(1, 6, ~0U);
        device->function().write(1, 0, 0x400); // INTx
        (void)io(Op::Read, registers, 0x1000, 1, 0);
        std::size_t const before = host.served_calls.size();
        start(2, 0);
        require(status() == running && host.served_calls.size() == before + 2);
        require(host.served_calls[before].what == Call::What::Start && host.served_calls[before].queue == 1);
        require(host.served_calls[before + 1].what == Call::What::Doorbell);
        device->serving_interrupts(0);
        require(io(Op::Read, registers, 0x1000, 1, 0) == 0);
        std::size_t const messages = host.messages.size();
        device->serving_interrupts(1);
        require(io(Op::Read, registers, 0x1000, 1, 0) == 1 || host.messages.size() <= messages + 1);
    }
};

template <typename Subject> void act(World<Subject>& world, Input& input) {
    u8 const what = input.take<u8>();
    u8 const size = static_cast<u8>(1U << (what >> 4 & 3));
    Op const op = (what & 0x40) != 0 ? Op::Read : Op::Write;
    switch (what & 15) {
    case 0:
    case 1: world.io(op, registers, input.take<u8>() % 72, size, input.take<u64>()); return;
    case 2: world.io(op, registers, input.take<u16>() % 0x3ff8, size, input.take<u32>()); return;
    case 3: world.io(op, msix, input.take<u16>() % 0xff8, size, input.take<u32>()); return;
    case 4: world.device->function().write(input.take<u8>() % 64, input.take<u32>(), ~0U); return;
    case 5: world.device->function().write(1, (what & 0x40) != 0 ? 6 : 2, ~0U); return;
    case 6:
    case 7: return world.start(what >> 4 & 7, input.take<u32>());
    case 8: return world.out(status_at, 0, 1);
    case 9: {
        u64 const at = configuration_at + input.take<u8>();
        u64 const before = world.io(Op::Read, registers, at, size, 0);
        world.out(at, input.take<u64>(), size);
        require(world.io(Op::Read, registers, at, size, 0) == before);
        return;
    }
    case 10: return world.stopped();
    case 11: {
        u32 const queue = (what & 0x80) != 0 ? input.take<u32>() : what >> 4 & 3;
        bool const may_interrupt =
            world.stops == 0 && queue < Subject::queue_count && (world.started >> queue & 1) != 0;
        std::size_t const messages = world.host.messages.size();
        bool const line = world.device->function().intx();
        world.device->serving_interrupts(queue);
        bool const has_interrupted = world.host.messages.size() != messages || world.device->function().intx() != line;
        require(may_interrupt || !has_interrupted);
        return;
    }
    case 12: {
        u8 const before = world.status();
        world.device->serving_found_misuse();
        require(world.status() == before ||
                (world.stops == 0 && world.started != 0 && world.status() == (before | 64)));
        return;
    }
    case 13: {
        auto const state = world.device->save();
        if (world.device->restore(state)) {
            auto const again = world.device->save();
            require(std::memcmp(&state, &again, sizeof(state)) == 0);
        }
        return;
    }
    case 14: { // damaged in one place
        auto state = world.device->save();
        reinterpret_cast<u8*>(&state)[input.take<u16>() % sizeof(state)] ^= what | 1;
        (void)world.device->restore(state);
        return;
    }
    default: world.io(op, doorbells, what >> 4 & 15, size > 4 ? 1 : size, 0); return;
    }
}

template <typename Subject> int run(u8 const* data, std::size_t size) {
    World<Subject> world;
    Input input({data, size});
    while (!input.is_empty()) {
        std::size_t const calls = world.host.served_calls.size(), messages = world.host.messages.size();
        act(world, input);
        world.hear();
        // A start of all queues and their doorbells, and a stop.
        require(world.host.served_calls.size() - calls <= 2 * Subject::queue_count + 1);
        require(world.host.messages.size() - messages <= platform::MsixTable::max_vectors);
    }
    world.works_after_reset();
    return 0;
}

} // namespace fuzz
