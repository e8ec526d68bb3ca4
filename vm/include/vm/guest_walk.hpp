// SPDX-License-Identifier: MIT
#pragma once
// The guest's own page tables, walked as its CPU would, without paging, with 32-bit, PAE and 4-level paging.
// [intel/vol3] 4.3, 4.4, 4.5. Not supported: 5-level paging, protection keys for supervisor pages (neither is offered).
#include <expected>
#include <lib/types.hpp>
#include <vm/vcpu.hpp>

namespace vm {

inline constexpr u32 longest_instruction = 15; // [intel/vol2] 2.3.11

// An access to a linear address, of data unless it is a fetch.
struct WalkAccess {
    bool is_write = false;
    bool is_user = false;
    bool is_fetch = false;
    bool is_implicit = false; // the CPU's own, to a descriptor table or TSS: RFLAGS.AC does not lift SMAP
};

// Of a vCPU that is not in IA-32e mode.
Paging paging_of(u64 cr0_value, u64 cr4_value);

// The guest-physical address, or the #PF that the access deserves; #GP for an address that is not canonical. Sets the
// accessed bits on the way, and the dirty bit for a write. What the guest's CPU has in its TLB does not count.
std::expected<GuestPhys, Exception> translate(Vcpu& vcpu, u64 linear, WalkAccess access);

// The code at RIP of a vCPU in 64-bit mode (elsewhere CS has a base) where it lies, with at least `bytes` (at most 16)
// of it in one piece; nullptr when it is not to be had that way: across a page boundary, or not in RAM. `cr3` and `rip`
// are the vCPU's.
u8 const* code_in_place(Vcpu& vcpu, u64 cr3, u64 rip, u32 bytes);

// Up to 15 bytes of code at CS:RIP; how many could be had. The bytes after those are undefined. No rights are checked:
// the CPU has executed this code already.
u32 fetch_code(Vcpu& vcpu, CodeState const& state, std::array<u8, 16>& bytes);
inline u32 fetch_code(Vcpu& vcpu, std::array<u8, 16>& bytes) { return fetch_code(vcpu, vcpu.code_state(), bytes); }

} // namespace vm
