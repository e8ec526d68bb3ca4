// SPDX-License-Identifier: MIT
#pragma once
// The registers of what runs in ring 3, and the way there and back (kernel/src/user_entry.S).
#include <cstddef>
#include <kernel/traps.hpp>

namespace kernel {

struct Cpu;

// While it is loaded, TSS.RSP0 points behind `frame`: whatever interrupts ring 3 pushes the registers right here, and
// enter_user() returns to its caller, as a VM exit does. So every handler runs on the stack of the run loop.
// It has a page of its own, which the service's tables map, closed to ring 3 (kernel/entry_pages.hpp).
struct alignas(lib::page_size) UserContext {
    TrapFrame frame{};
    u64 kernel_stack = 0; // of enter_user()
    Cpu* cpu = nullptr;   // the one that it runs on: ring 3 may have changed GS
    u64 root = 0;         // for CR3 in ring 3; 0: CR3 is left alone
    u64 kernel_root = 0;  // for CR3 in ring 0, if `root` is not 0

    u64 stack_for_traps() const { return reinterpret_cast<u64>(this) + offsetof(UserContext, kernel_stack); }
    // From TSS.RSP0: of what runs, or ran last, on that CPU.
    static UserContext& with_stack(u64 stack_for_traps) {
        return *reinterpret_cast<UserContext*>(stack_for_traps - offsetof(UserContext, kernel_stack));
    }
};
static_assert(offsetof(UserContext, kernel_stack) == 176 && offsetof(UserContext, cpu) == 184);
static_assert(offsetof(UserContext, root) == 192 && offsetof(UserContext, kernel_root) == 200);
static_assert(offsetof(UserContext, kernel_stack) % 16 == 0, "the CPU aligns RSP down before it pushes");

} // namespace kernel
