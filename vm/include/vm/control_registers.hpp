// SPDX-License-Identifier: MIT
#pragma once
// Architectural validity of control-register, EFER, XCR0, PAT and base-address writes: what both backends must refuse
// with #GP(0) before the value reaches hardware. Not modelled: 5-level paging, CET, protection keys for supervisor
// pages, LAM.
#include <lib/bits.hpp>

namespace vm {

using lib::bit;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

namespace cr0 { // [intel/vol3] 2.5
inline constexpr u64 PE = bit(0), MP = bit(1), EM = bit(2), TS = bit(3), ET = bit(4), NE = bit(5), WP = bit(16),
                     AM = bit(18), NW = bit(29), CD = bit(30), PG = bit(31);
inline constexpr u64 defined = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
inline constexpr u64 reset = ET | NW | CD;
} // namespace cr0

namespace cr4 { // [intel/vol3] 2.5
inline constexpr u64 VME = bit(0), PVI = bit(1), TSD = bit(2), DE = bit(3), PSE = bit(4), PAE = bit(5), MCE = bit(6),
                     PGE = bit(7), PCE = bit(8), OSFXSR = bit(9), OSXMMEXCPT = bit(10), UMIP = bit(11), LA57 = bit(12),
                     VMXE = bit(13), SMXE = bit(14), FSGSBASE = bit(16), PCIDE = bit(17), OSXSAVE = bit(18),
                     SMEP = bit(20), SMAP = bit(21), PKE = bit(22), CET = bit(23), PKS = bit(24);
} // namespace cr4

namespace efer { // [intel/vol3] 2.2.1, [amd/vol2] 3.1.7
inline constexpr u64 SCE = bit(0), LME = bit(8), LMA = bit(10), NXE = bit(11), SVME = bit(12);
} // namespace efer

namespace xcr0 { // [intel/vol1] 13.3
inline constexpr u64 X87 = bit(0), SSE = bit(1), AVX = bit(2), OPMASK = bit(5), ZMM_HI256 = bit(6), HI16_ZMM = bit(7),
                     PKRU = bit(9);
inline constexpr u64 AVX512 = OPMASK | ZMM_HI256 | HI16_ZMM;
} // namespace xcr0

// What the CPUID of one VM allows in these registers; CpuidPolicy::rules() computes it once.
struct ControlRegisterRules {
    u64 cr4 = 0;  // bits that may be 1
    u64 efer = 0; // bits that may be written as 1 (LMA included: it is ignored, not refused)
    u64 xcr0 = 0;
    u64 xss = 0;
    u8 physical_bits = 36;
};

// 48-bit linear addresses: 5-level paging is never offered.
constexpr bool is_canonical(u64 address) { return address + (u64{1} << 47) < (u64{1} << 48); }

// Bits of a physical address that do not exist.
constexpr u64 reserved_physical_bits(u8 physical_bits) { return physical_bits >= 64 ? 0 : ~u64{0} << physical_bits; }

// The value CR0 holds after a valid write: reserved bits of the low half are ignored, ET is always 1.
constexpr u64 effective_cr0(u64 value) { return (value & cr0::defined) | cr0::ET; }

// What a switch of paging looks at besides registers.
struct PagingSwitch {
    bool has_long_code = false; // CS.L of the code that executes the write, whatever the mode
    bool has_16_bit_task = false;
};

// [intel/vol3] 2.5, 4.1.2, 10.8.5
constexpr bool is_valid_cr0_write(u64 old_value, u64 value, u64 cr4_value, u64 efer_value, PagingSwitch at = {}) {
    if ((value >> 32) != 0) return false;
    if ((value & cr0::PG) != 0 && (value & cr0::PE) == 0) return false;
    if ((value & cr0::NW) != 0 && (value & cr0::CD) == 0) return false;
    bool const was_paging = (old_value & cr0::PG) != 0;
    bool const paging = (value & cr0::PG) != 0;
    if (!was_paging && paging && (efer_value & efer::LME) != 0)
        return (cr4_value & cr4::PAE) != 0 && !at.has_long_code && !at.has_16_bit_task;
    if (was_paging && !paging) {
        if ((cr4_value & cr4::PCIDE) != 0) return false;
        if ((efer_value & efer::LMA) != 0 && at.has_long_code) return false;
    }
    return true;
}

// CR3 bits below 12 are PCID or cache control; bit 63 (keep the TLB) is only an operand of MOV to CR3 with PCIDE.
constexpr bool is_valid_cr3_write(u64 value, u64 cr4_value, u64 efer_value, u8 physical_bits) {
    if ((efer_value & efer::LMA) == 0) return true; // 32-bit and PAE paging ignore what they do not use
    if ((cr4_value & cr4::PCIDE) != 0) value &= ~bit(63);
    return (value & reserved_physical_bits(physical_bits)) == 0;
}

// Whether the CPU takes this entry of a page-directory-pointer table when PAE paging loads it. [intel/vol3] 4.4.1
constexpr bool is_valid_page_directory_pointer(u64 entry, u8 physical_bits) {
    constexpr u64 reserved = 0x1e6;
    return (entry & 1) == 0 || (entry & (reserved | reserved_physical_bits(physical_bits))) == 0;
}

constexpr bool is_valid_cr4_write(u64 old_value, u64 value, u64 cr3_value, u64 efer_value,
                                  ControlRegisterRules const& rules) {
    if ((value & ~rules.cr4) != 0) return false;
    bool const long_mode = (efer_value & efer::LMA) != 0;
    if (long_mode && (value & cr4::PAE) == 0) return false;
    if ((value & ~old_value & cr4::PCIDE) != 0) return long_mode && (cr3_value & 0xfff) == 0;
    return true;
}

constexpr bool is_valid_cr8_write(u64 value) { return value <= 15; }
constexpr bool is_valid_debug_control_write(u64 value) { return (value >> 32) == 0; } // DR6, DR7 in 64-bit mode

// LMA belongs to the processor: a write cannot change it.
constexpr u64 effective_efer(u64 old_value, u64 value) { return (value & ~efer::LMA) | (old_value & efer::LMA); }

constexpr bool is_valid_efer_write(u64 old_value, u64 value, u64 cr0_value, ControlRegisterRules const& rules) {
    if ((value & ~rules.efer) != 0) return false;
    return ((old_value ^ value) & efer::LME) == 0 || (cr0_value & cr0::PG) == 0;
}

// XSETBV with ECX = 0; every other register number is #GP. [intel/vol1] 13.3
constexpr bool is_valid_xcr0(u64 value, u64 allowed) {
    if ((value & ~allowed) != 0 || (value & xcr0::X87) == 0) return false;
    if ((value & xcr0::AVX) != 0 && (value & xcr0::SSE) == 0) return false;
    u64 const avx512 = value & xcr0::AVX512;
    return avx512 == 0 || (avx512 == xcr0::AVX512 && (value & xcr0::AVX) != 0);
}

// A memory type as PAT knows it: UC, WC, WT, WP, WB, UC-. [intel/vol3] 13.12.2
constexpr bool is_valid_pat(u64 value) {
    // Eight bytes at once: nothing above bit 2, and bit 1 (types 2, 3) only together with bit 2.
    constexpr u64 each_byte = 0x0101'0101'0101'0101;
    return (value & ~(each_byte * 7)) == 0 && ((value >> 1) & ~(value >> 2) & each_byte) == 0;
}
inline constexpr u64 pat_reset = 0x0007'0406'0007'0406;

// A memory type as MTRRs know it: PAT's without UC-. [intel/vol3] 13.11.2.1
constexpr bool is_valid_mtrr_type(u64 type) { return type <= 6 && type != 2 && type != 3; }
constexpr bool are_valid_mtrr_types(u64 eight) {
    for (unsigned i = 0; i < 8; ++i)
        if (!is_valid_mtrr_type((eight >> (8 * i)) & 0xff)) return false;
    return true;
}

} // namespace vm
