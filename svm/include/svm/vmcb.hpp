// SPDX-License-Identifier: MIT
#pragma once
// The VMCB: 1 KiB of controls, then the state save area. [amd/vol2] appendix B
#include <cstddef>
#include <lib/bits.hpp>
#include <svm/exit_code.hpp>

namespace svm {

using lib::Bits;
using lib::Reg;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// Three words of intercepts; the bit of each is its exit code less INTR.
struct Intercepts {
    u16 cr_reads;
    u16 cr_writes;
    u16 dr_reads;
    u16 dr_writes;
    u32 exceptions;
    u32 words[3];

    constexpr void set(u32 code, bool on = true) {
        u32 const number = code - exit_code::INTR;
        u32 const mask = u32{1} << number % 32;
        words[number / 32] = on ? words[number / 32] | mask : words[number / 32] & ~mask;
    }
    constexpr bool has(u32 code) const {
        u32 const number = code - exit_code::INTR;
        return (words[number / 32] >> number % 32 & 1) != 0;
    }
};

// Offset 60h
struct InterruptControl : Reg<InterruptControl, u64> {
    using VirtualTpr = Bits<u64, 7, 0, u8>;
    using VirtualIrq = Bits<u64, 8>;
    using Priority = Bits<u64, 19, 16, u8>;
    using IgnoreTpr = Bits<u64, 20>;
    using InterruptMasking = Bits<u64, 24>;
    using X2AvicEnable = Bits<u64, 30>; // [amd/vol2] 15.29.4.1; needs AvicEnable
    using AvicEnable = Bits<u64, 31>;   // the fields of virtual interrupts mean nothing then
    using Vector = Bits<u64, 39, 32, u8>;
};
// Offset 68h
struct InterruptState : Reg<InterruptState, u64> {
    using Shadow = Bits<u64, 0>;
};
// EVENTINJ and EXITINTINFO, [amd/vol2] 15.20 and 15.7.2
struct EventInfo : Reg<EventInfo, u64> {
    using Vector = Bits<u64, 7, 0, u8>;
    using Type = Bits<u64, 10, 8, u8>;
    using HasErrorCode = Bits<u64, 11>;
    using Valid = Bits<u64, 31>;
    using ErrorCode = Bits<u64, 63, 32, u32>;
    static constexpr u8 external = 0, nmi = 2, exception = 3, software_interrupt = 4;
};

// Offset 5Ch, [amd/vol2] 15.16.2
enum class TlbControl : u8 { Nothing = 0, FlushAll = 1, FlushAsid = 3 };

// Groups of fields that the CPU may keep cached between two runs of a VMCB on one CPU. A set bit says: unchanged since.
// [amd/vol2] 15.15
namespace clean {
inline constexpr u32 intercepts = 1U << 0; // also TSC_OFFSET
inline constexpr u32 permission_maps = 1U << 1;
inline constexpr u32 asid = 1U << 2;
inline constexpr u32 interrupt_control = 1U << 3;
inline constexpr u32 nested_paging = 1U << 4;     // also G_PAT
inline constexpr u32 control_registers = 1U << 5; // CR0, CR3, CR4, EFER
inline constexpr u32 debug_registers = 1U << 6;
inline constexpr u32 descriptor_tables = 1U << 7;
inline constexpr u32 segments = 1U << 8; // CS, DS, SS, ES, CPL
inline constexpr u32 cr2 = 1U << 9;
inline constexpr u32 all = (1U << 10) - 1; // of every CPU, that we know; the rest stays 0: never cached
inline constexpr u32 avic = 1U << 11;      // APIC_BAR, backing page and tables
} // namespace clean

struct ControlArea {
    Intercepts intercepts;
    u8 reserved_018[0x24];
    u16 pause_filter_threshold;
    u16 pause_filter_count;
    u64 iopm_base;
    u64 msrpm_base;
    u64 tsc_offset;
    u32 asid;
    TlbControl tlb_control;
    u8 reserved_05d[3];
    InterruptControl interrupt_control;
    InterruptState interrupt_state;
    u64 exit_code;
    u64 exit_info_1;
    u64 exit_info_2;
    EventInfo exit_int_info;
    u64 nested_control; // bit 0: NP_ENABLE
    u64 avic_apic_bar;
    u64 reserved_0a0;
    EventInfo event_injection;
    u64 nested_cr3;
    u64 lbr_control;
    u32 clean_bits;
    u32 reserved_0c4;
    u64 next_rip;
    u8 bytes_fetched;
    u8 instruction_bytes[15];
    u64 avic_backing_page;
    u64 reserved_0e8;
    u64 avic_logical_table;
    u64 avic_physical_table; // bits 11:0: the last index
    u8 reserved_100[0x300];
};
static_assert(offsetof(ControlArea, pause_filter_threshold) == 0x3c && offsetof(ControlArea, iopm_base) == 0x40 &&
              offsetof(ControlArea, tsc_offset) == 0x50 && offsetof(ControlArea, asid) == 0x58 &&
              offsetof(ControlArea, tlb_control) == 0x5c && offsetof(ControlArea, interrupt_control) == 0x60 &&
              offsetof(ControlArea, exit_code) == 0x70 && offsetof(ControlArea, exit_int_info) == 0x88 &&
              offsetof(ControlArea, nested_control) == 0x90 && offsetof(ControlArea, event_injection) == 0xa8 &&
              offsetof(ControlArea, nested_cr3) == 0xb0 && offsetof(ControlArea, clean_bits) == 0xc0 &&
              offsetof(ControlArea, next_rip) == 0xc8 && offsetof(ControlArea, avic_apic_bar) == 0x98 &&
              offsetof(ControlArea, avic_backing_page) == 0xe0 && offsetof(ControlArea, avic_logical_table) == 0xf0 &&
              offsetof(ControlArea, avic_physical_table) == 0xf8 && offsetof(ControlArea, bytes_fetched) == 0xd0 &&
              sizeof(ControlArea) == 0x400);

struct VmcbSegment {
    u16 selector;
    u16 attributes; // type, S, DPL, P in bits 7:0, AVL, L, D/B, G in bits 11:8
    u32 limit;
    u64 base;
};
static_assert(sizeof(VmcbSegment) == 16);

struct SaveArea {
    VmcbSegment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
    u8 reserved_0a0[0x2b];
    u8 cpl;
    u32 reserved_0cc;
    u64 efer;
    u8 reserved_0d8[0x70];
    u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
    u8 reserved_180[0x58];
    u64 rsp;
    u64 reserved_1e0[3];
    u64 rax, star, lstar, cstar, fmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip, cr2;
    u8 reserved_248[0x20];
    u64 pat, debug_control, last_branch_from, last_branch_to, last_exception_from, last_exception_to;
    u8 reserved_298[0x968];
};
static_assert(offsetof(SaveArea, tr) == 0x90 && offsetof(SaveArea, cpl) == 0xcb && offsetof(SaveArea, efer) == 0xd0 &&
              offsetof(SaveArea, cr4) == 0x148 && offsetof(SaveArea, rip) == 0x178 &&
              offsetof(SaveArea, rsp) == 0x1d8 && offsetof(SaveArea, rax) == 0x1f8 &&
              offsetof(SaveArea, cr2) == 0x240 && offsetof(SaveArea, pat) == 0x268 && sizeof(SaveArea) == 0xc00);

struct alignas(4096) Vmcb {
    ControlArea control;
    SaveArea save;
};
static_assert(sizeof(Vmcb) == 4096);

} // namespace svm
