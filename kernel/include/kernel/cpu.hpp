// SPDX-License-Identifier: MIT
#pragma once
// Per-CPU data, reached through GS.
#include <array>
#include <atomic>
#include <kernel/calls.hpp>
#include <kernel/descriptors.hpp>
#include <kernel/interrupts.hpp>
#include <kernel/time.hpp>
#include <lib/cpu_set.hpp>
#include <lib/types.hpp>

namespace kernel {

using lib::CpuSet;
using lib::max_cpus;

// What this CPU (and so every CPU of the machine) can do, read once at boot.
struct CpuFeatures {
    bool is_intel, is_amd;
    bool no_execute, pages_1g, smep, smap, umip, fsgsbase, pcid, x2apic, tsc_deadline, tsc_adjust, xsave, invariant_tsc,
        arat;
    bool c1e_stops_timer;    // AMD: firmware may have turned on a sleep state that stops the APIC timer
    bool serialising_lfence; // AMD: an LFENCE waits for all instructions before it, as Intel's does
    bool open_to_meltdown;   // ring 3 may find out what pages hold that are mapped, but closed to it
    bool leaks_x87_pointers; // AMD: FXRSTOR and XRSTOR leave the pointers of the last x87 instruction as they are
    lib::u8 physical_address_bits;
    lib::u8 linear_address_bits;
};
CpuFeatures const& cpu_features();
void detect_cpu_features();

class Runnable;

struct Cpu {
    Cpu* self = nullptr; // first: %gs:0
    lib::u32 index = 0;
    lib::u32 apic_id = 0;
    lib::u32 held_lock_ranks = 0;
    std::atomic<bool> work_pending{false}; // something for the main loop to do before (re)entering a guest
    TimerQueue timers;
    lib::u64 stack_top = 0;
    lib::u64 tsc_aux = 0; // what IA32_TSC_AUX holds; 0 where there is none
    CallQueue calls;
    DeviceVectors device_vectors;
    std::atomic<Runnable*> loaded{nullptr}; // whose state this CPU's registers hold; the run loop's
    std::atomic<lib::u64> idle_nanos{0};    // in HLT, without what began at `idle_since`
    std::atomic<lib::u64> idle_since{0};    // 0: not in HLT
    DescriptorTables tables;                // last, as it has pages of its own
};

inline Cpu& this_cpu() {
    Cpu* cpu;
#if __STDC_HOSTED__
    extern Cpu hosted_cpu;
    extern thread_local Cpu* hosted_thread_cpu; // of tests with threads
    cpu = hosted_thread_cpu != nullptr ? hosted_thread_cpu : &hosted_cpu;
#else
    asm("movq %%gs:0, %0" : "=r"(cpu));
#endif
    return *cpu;
}

// this_cpu().work_pending in two instructions, for the way into a guest.
inline bool is_work_pending() {
#if __STDC_HOSTED__
    return this_cpu().work_pending.load(std::memory_order_relaxed);
#else
    bool result;
    asm volatile("cmpb $0, %%gs:%c1" : "=@ccne"(result) : "i"(__builtin_offsetof(Cpu, work_pending)) : "memory");
    return result;
#endif
}

// Writes IA32_TSC_AUX of the calling CPU, if it holds another value.
void set_tsc_aux(lib::u64 value);
// The same with 0 whatever it holds, for a CPU that has it.
void clear_tsc_aux();

// Loads GS, descriptor tables and control registers of the calling CPU.
void initialise_cpu(Cpu& cpu, lib::u32 index);
// Makes LFENCE of the calling CPU serialising where AMD leaves the choice. On the boot CPU, sets
// cpu_features().serialising_lfence. Needs the IDT.
void make_lfence_serialising();
// Takes back what firmware may have set on the calling CPU: the limit of CPUID leaves (Intel) and C1E, which stops the
// APIC timer (AMD families 0Fh and 10h). CPUID may say more afterwards. Needs the IDT.
void lift_firmware_limits();
// C1E again: SMM turns it on when ACPI is. Before each HLT, where c1e_stops_timer.
void turn_c1e_off();
// What runs on the boot CPU, for guests that look for it; set once at boot.
lib::u32 microcode_revision();
void set_microcode_revision(lib::u32 revision);
// Turns on what protects the hypervisor from itself: NX, WP, SMEP, SMAP, UMIP, where the CPU has them.
void enable_cpu_protections();

} // namespace kernel
