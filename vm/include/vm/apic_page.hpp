// SPDX-License-Identifier: MIT
#pragma once
// The register file of a local APIC in its architectural layout: one page that VT-x APIC-register virtualization and
// AMD AVIC can work on directly. Every register is 32 bits at a 16-byte stride. [intel/vol3] 12.4.1
#include <atomic>
#include <lib/bits.hpp>
#include <lib/platform_layout.hpp>

namespace vm {

using lib::bit;
using lib::i64;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

namespace apic_reg {
inline constexpr u32 ID = 0x20, VERSION = 0x30, TPR = 0x80, APR = 0x90, PPR = 0xa0, EOI = 0xb0, RRD = 0xc0, LDR = 0xd0,
                     DFR = 0xe0, SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR_LOW = 0x300,
                     ICR_HIGH = 0x310, LVT_TIMER = 0x320, LVT_THERMAL = 0x330, LVT_PERFORMANCE = 0x340,
                     LVT_LINT0 = 0x350, LVT_LINT1 = 0x360, LVT_ERROR = 0x370, INITIAL_COUNT = 0x380,
                     CURRENT_COUNT = 0x390, DIVIDE = 0x3e0, SELF_IPI = 0x3f0;
} // namespace apic_reg

// IA32_APIC_BASE [intel/vol3] 12.4.4
namespace apic_base {
inline constexpr u64 BSP = bit(8), EXTD = bit(10), EN = bit(11);
inline constexpr u64 default_address = lib::layout::local_apic_base;
} // namespace apic_base

struct alignas(4096) ApicPage {
    // A plain array: offsets are constants or vector words, masked where a guest has a say, and the paths through here
    // are the hottest there are.
    u32 words[1024]{};

    u32& operator[](u32 offset) { return words[offset / 4]; }
    u32 const& operator[](u32 offset) const { return words[offset / 4]; }

    // ISR, TMR and IRR: 256 bits, 32 to a register.
    static constexpr u32 vector_word(u32 base, u8 vector) { return base + (vector / 32U) * 16; }
    static constexpr u32 vector_bit(u8 vector) { return u32{1} << (vector % 32); }
    bool test(u32 base, u8 vector) const { return ((*this)[vector_word(base, vector)] & vector_bit(vector)) != 0; }
    void set(u32 base, u8 vector) { (*this)[vector_word(base, vector)] |= vector_bit(vector); }
    void clear(u32 base, u8 vector) { (*this)[vector_word(base, vector)] &= ~vector_bit(vector); }
    // IRR has other writers than the CPU that runs the vCPU: AVIC of CPUs that send it interrupts, and
    // post_to_hardware(). A bit of theirs must not be lost by a change of ours, so all changes are atomic.
    std::atomic_ref<u32> shared(u32 offset) { return std::atomic_ref<u32>(words[offset / 4]); }
    int highest(u32 base) const {
        for (u32 i = 8; i-- > 0;) {
            u32 const word = (*this)[base + i * 16];
            if (word != 0) return static_cast<int>(i * 32 + 31) - __builtin_clz(word);
        }
        return -1;
    }
};
static_assert(sizeof(ApicPage) == 4096);

} // namespace vm
