// SPDX-License-Identifier: MIT
#include <drivers/pit.hpp>

#include <lib/x86/instructions.hpp>

namespace drivers {
namespace {

constexpr u16 counter_2 = 0x42;
constexpr u16 control_word = 0x43;
constexpr u16 port_b = 0x61;
constexpr u8 port_b_gate_2 = 1 << 0;
constexpr u8 port_b_speaker = 1 << 1;
constexpr u8 port_b_writable = 0x0f;
constexpr u8 select_2_word_mode_2 = 0xb4;
constexpr u8 latch_2 = 0x80;

} // namespace

void Pit::start() {
    saved_port_b_ = lib::x86::in8(port_b) & port_b_writable;
    lib::x86::out8(port_b, static_cast<u8>((saved_port_b_ & ~port_b_speaker) | port_b_gate_2));
    lib::x86::out8(control_word, select_2_word_mode_2);
    lib::x86::out8(counter_2, 0); // 0 counts as 65536
    lib::x86::out8(counter_2, 0);
}

void Pit::stop() { lib::x86::out8(port_b, saved_port_b_); }

void Pit::latch() const { lib::x86::out8(control_word, latch_2); }

u16 Pit::read_latched() const {
    u8 const low = lib::x86::in8(counter_2);
    u8 const high = lib::x86::in8(counter_2);
    return static_cast<u16>(-(low | high << 8)); // it counts down
}

} // namespace drivers
