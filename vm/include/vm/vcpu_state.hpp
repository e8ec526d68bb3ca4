// SPDX-License-Identifier: MIT
#pragma once
// All that one vCPU is while it does not run, in one layout for both vendors: what Vcpu::save() writes and
// Vcpu::restore() checks and takes. Plain bytes without padding. A change of the layout is a new version.
//
// Times are in ticks of the guest's TSC. Not kept: what the vCPU was measured to do (exits, CPU time), and the
// page-directory pointers of PAE paging, which a restored vCPU loads from the guest's memory again.
#include <lib/result.hpp>
#include <vm/local_apic.hpp>
#include <vm/msr_policy.hpp>

namespace vm {

struct SavedSegment {
    u16 selector, attributes; // as vm::Segment has them
    u32 limit;
    u64 base;
};
struct SavedTable {
    u64 base;
    u32 limit, reserved;
};

// An event that was to arrive with the next entry, or what keeps one away. What an instruction causes (INT n, INT3) is
// not kept: the instruction is carried out again.
struct SavedEvents {
    enum Shadow : u8 { NoShadow, AfterSti, AfterMovSs };
    static constexpr u16 nothing_put_off = 0xffff;
    u8 is_on_its_way, type, vector, has_error_code; // types as event_type says
    u32 error_code;
    u64 pending_debug; // bits of DR6 of a #DB that comes before the next instruction
    u16 put_off_interrupt;
    u8 has_put_off_debug_trap;
    u8 shadow;
    u8 is_nmi_blocked, has_nmi; // the second: one waits
    u8 has_init, has_startup;   // signals that the vCPU has not looked at yet
    u8 startup_vector;
    u8 activity; // vm::Activity
    u8 privilege_level;
    u8 reserved[5];
};

struct VcpuState {
    static constexpr u32 magic_number = 0x5543'564d; // "MVCU"
    static constexpr u16 current_version = 1;
    static constexpr u32 most_xsave = 3072; // bytes; AVX-512 and protection keys take 2696

    u32 magic;
    u16 version, reserved_6;
    u32 size; // of all this
    u32 id;
    u64 checksum; // lib::Checksum of what follows

    u64 features;                  // CpuidPolicy::digest(): a vCPU with another CPUID does not take this
    u64 tsc;                       // the guest's, at the moment that save() was told
    std::array<u64, 16> registers; // by vm::Gpr
    u64 rip, rflags, cr0, cr2, cr3, cr4, efer, xcr0;
    std::array<SavedSegment, 8> segments; // by vm::SegmentName
    SavedTable gdt, idt;
    std::array<u64, 4> breakpoints; // DR0 to DR3
    u64 dr6, dr7;
    SavedEvents events;
    LocalApic::State apic;
    u32 clock_version; // of the KVM clock's structures in the guest's memory
    u32 msr_count;
    std::array<SavedMsr, SavedMsr::most> msrs;
    u32 xsave_size, reserved_end;
    std::array<u8, most_xsave> xsave; // standard format, or what FXSAVE writes

    // Computes the checksum.
    u64 sum() const;
    // A state in these bytes, whose header, size and checksum are right. BadFormat: there is none. The rest is for
    // Vcpu::restore() to check.
    static lib::Result<void> read(std::span<u8 const> from, VcpuState& state);
    std::span<u8 const> bytes() const { return {reinterpret_cast<u8 const*>(this), sizeof(*this)}; }
};
static_assert(std::is_trivially_copyable_v<VcpuState> && std::has_unique_object_representations_v<VcpuState>);

} // namespace vm
