// SPDX-License-Identifier: MIT
#pragma once
// What a CPU and its platform do, asserted. Every test prints guest: FAIL lines for what differs and is to pass
// natively too.
#include "runtime/apic.hpp"
#include "runtime/clock.hpp"
#include "runtime/runtime.hpp"

namespace behave {

using namespace guest;

void local_apic();     // IRR, ISR, TPR, PPR, order, self IPI, NMI
void shadows();        // STI, MOV SS, priorities
void interrupt_flag(); // nothing comes while IF is clear, for as long as it is
void pic();            // ExtINT by LINT0
void io_apic();        // edge, level, remote IRR
void hpet();           // rate, one-shot, periodic, legacy replacement
void apic_timer();     // one-shot, periodic, TSC deadline
void real_mode();      // 16-bit code, unreal, protected, PAE, back to long mode
void tasks();          // hardware task switches: JMP, CALL, IRET, task gates, faults
void debug();          // breakpoints over exits
void single_step();    // TF over emulated instructions
void resume_flags();   // RFLAGS.RF in the handlers of faults, and after emulated instructions
void trap_steps();     // single steps over MOV SS, INT1 and HLT
void sysenter();       // by a 32-bit program
void fpu();            // x87, SSE and AVX state over exits
void msrs();           // SYSCALL, PAT, EFER, TSC_ADJUST, TSC_AUX
void paging();
void protection_keys(); // NX, WP, A/D, PCD/PWT
void cpuid();           // consistency
void guest_time();      // PIT, PM timer, TSC, RTC against each other
void uart();            // loopback, FIFO, scratch
void mmio_forms();      // instruction forms on the IOAPIC

// Counts and orders what arrives.
inline constexpr u8 vector_low = 0x41, vector_middle = 0x52, vector_high = 0x83;
void record_start();
unsigned recorded();
u8 record(unsigned index);
void record_vector(u8 vector); // handler that records and sends EOI
void drain();                  // lets everything pending in and gives EOIs

void make_exits(unsigned count); // a mix of CPUID, port, MSR and MMIO

} // namespace behave
