#pragma once
// The guest's own page tables, walked as its CPU would, without paging, with 32-bit, PAE and 4-level paging.
// [intel/vol3] 4.3, 4.4, 4.5. Not supported: protection keys, 5-level paging (neither is offered).
#include <expected>
#include <lib/types.hpp>
#include <vm/vcpu.hpp>

namespace vm {

inline constexpr u32 longest_instruction = 15; // [intel/vol2] 2.3.11

struct WalkAccess {
    bool is_write;
    bool is_user;
    bool is_checked; // false: rights are ignored, for what the CPU has executed already
};

// Of a vCPU that is not in IA-32e mode.
Paging paging_of(u64 cr0_value, u64 cr4_value);

// The guest-physical address, or the #PF that the access deserves; #GP for an address that is not canonical.
std::expected<GuestPhys, Exception> translate(Vcpu& vcpu, u64 linear, WalkAccess access);

// The code at CS:RIP where it lies, with at least `bytes` (at most 16) of it in one piece; nullptr when it is not to be
// had that way: outside of 64-bit mode, across a page boundary, or not in RAM. `cr3` and `rip` are the vCPU's.
u8 const* code_in_place(Vcpu& vcpu, u64 cr3, u64 rip, u32 bytes);

// Up to 15 bytes of code at CS:RIP; how many could be had. The bytes behind those are undefined.
u32 fetch_code(Vcpu& vcpu, CodeState const& state, std::array<u8, 16>& bytes);
inline u32 fetch_code(Vcpu& vcpu, std::array<u8, 16>& bytes) { return fetch_code(vcpu, vcpu.code_state(), bytes); }

} // namespace vm
