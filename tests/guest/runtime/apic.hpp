// SPDX-License-Identifier: MIT
#pragma once
// The local APIC in both of its modes, registers by their x2APIC number (xAPIC offset / 16).
// [intel/vol3] 12.4.1, 12.12.1.2
#include "runtime/runtime.hpp"

namespace guest {

inline constexpr u32 IA32_APIC_BASE = 0x1b, IA32_TSC_DEADLINE = 0x6e0;
inline constexpr u64 apic_page = 0xfee00000, ioapic_page = 0xfec00000;
inline constexpr u64 apic_base_enable = 0x800, apic_base_x2apic = 0x400;

namespace apic {
enum Register : u32 {
    Id = 2,
    Version = 3,
    Tpr = 8,
    Ppr = 0xa,
    Eoi = 0xb,
    Ldr = 0xd,
    Svr = 0xf,
    Isr = 0x10,
    Tmr = 0x18,
    Irr = 0x20,
    Esr = 0x28,
    Icr = 0x30,
    IcrHigh = 0x31,
    LvtTimer = 0x32,
    LvtLint0 = 0x35,
    LvtLint1 = 0x36,
    LvtError = 0x37,
    Tmict = 0x38,
    Tmcct = 0x39,
    Tdcr = 0x3e,
    SelfIpi = 0x3f
};
inline constexpr u32 lvt_masked = 0x10000, lvt_periodic = 0x20000, lvt_tsc_deadline = 0x40000, lvt_extint = 0x700;

bool is_x2apic();
bool has_x2apic();
bool has_tsc_deadline();
bool enter_x2apic(); // false when the CPU has none
void leave_x2apic(); // back to xAPIC mode by way of disabled: resets the APIC
u32 read(Register r);
void write(Register r, u32 value);
void eoi();
extern u32 lint0_at_start; // as the loader handed it over
void enable();             // software enable, spurious vector 0xff, LVTs masked, TPR 0
void self_ipi(u8 vector);
bool bit(Register bank, u8 vector); // of ISR, TMR or IRR
} // namespace apic

namespace ioapic {
u32 read(u8 index);
void write(u8 index, u32 value);
void redirect(u8 pin, u64 entry);
u64 entry(u8 pin);
inline constexpr u64 masked = 0x10000, level = 0x8000, remote_irr = 0x4000;
} // namespace ioapic

// Interrupts on for as long as a few instructions: lets what is pending in.
inline void interrupt_window() { asm volatile("sti; nop; nop; cli" : : : "memory"); }

} // namespace guest
