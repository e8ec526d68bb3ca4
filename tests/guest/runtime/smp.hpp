// SPDX-License-Identifier: MIT
#pragma once
// Other CPUs: started one at a time by INIT and SIPI, each then runs one function for ever. Not here: TSS, stacks for
// exceptions, try_execute() and the console on any CPU but the first.
#include "runtime/apic.hpp"

namespace guest::smp {

inline constexpr unsigned max_cpus = 16;
inline constexpr u64 trampoline = 0x8000;

// ICR, low half. [intel/vol3] 12.6.1
inline constexpr u32 icr_assert = 0x4000, icr_logical = 0x800, icr_pending = 0x1000, to_self = 1U << 18,
                     to_all = 2U << 18, to_others = 3U << 18, lowest_priority = 0x100, nmi = 0x400, init = 0x500,
                     startup = 0x600;

void send(u32 destination, u32 low); // in xAPIC mode 8 bits, waits until it is on its way

void prepare(); // once: interrupt stubs that need no TSS, and this_cpu() of the first CPU
u32 this_cpu(); // the number given to start()
// Starts the CPU with this APIC id as number `cpu`, running `body`. False: no sign of life.
bool start(u32 apic_id, u32 cpu, void (*body)());
// Copies the code that a SIPI with vector trampoline >> 12 starts, and where it goes on.
void arm(u32 cpu, void (*body)());
u32 starts(u32 cpu); // how often it has come out of the trampoline

// Until the condition holds; false after a time that is long everywhere.
template <typename F> bool wait_until(F condition) {
    for (u32 i = 0; i < 200'000'000; i++) {
        if (condition()) return true;
        x86::pause();
    }
    return false;
}

} // namespace guest::smp
