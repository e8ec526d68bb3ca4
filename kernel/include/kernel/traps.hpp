// SPDX-License-Identifier: MIT
#pragma once
// Exceptions and interrupts of the hypervisor itself.
#include <lib/delegate.hpp>
#include <lib/types.hpp>
#include <string_view>

namespace kernel {

using lib::u64;
using lib::u8;

// As kernel/src/trap_entry.S pushes it.
struct TrapFrame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error_code;
    u64 rip, cs, rflags, rsp, ss;
};

std::string_view name_of_exception(u8 vector); // below 32

using InterruptHandler = lib::Delegate<void()>;

// Vectors of ours. Higher number, higher priority.
namespace vectors {
inline constexpr u8 drain = 0x2f;        // below every device: when it is handled, no interrupt of a device waits
inline constexpr u8 first_device = 0x30; // to last_device: kernel/interrupts.hpp
inline constexpr u8 last_device = 0xdf;
inline constexpr u8 timer = 0xe0;
inline constexpr u8 kick = 0xe1;   // leave the guest and look at the requests
inline constexpr u8 notify = 0xe2; // posted-interrupt notification
inline constexpr u8 spurious = 0xff;
} // namespace vectors

constexpr bool is_device_vector(u8 vector) { return vector >= vectors::first_device && vector <= vectors::last_device; }

// For the fixed vectors, which are the same on every CPU.
void set_interrupt_handler(u8 vector, InterruptHandler handler);
// Runs the handler of an interrupt that a VM exit acknowledged, and sends the EOI. Interrupts are off.
void dispatch_interrupt(u8 vector);

} // namespace kernel
