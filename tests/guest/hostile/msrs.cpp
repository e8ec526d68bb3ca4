// SPDX-License-Identifier: MIT
// Reads and writes of MSRs nobody asked for. Counts only: which ones exist is the policy's business, not this test's.
#include "hostile/hostile.hpp"

#include <array>

namespace hostile {
namespace {

struct Range {
    u32 first, last;
};
constexpr std::array<Range, 4> ranges = {
    {{0, 0x1fff}, {0x40000000, 0x400000ff}, {0xc0000000, 0xc0001fff}, {0xc0010000, 0xc0011fff}}};

struct Counts {
    u64 reads_ok, reads_fault, writes_ok, writes_fault, other_vectors;
};

constexpr u64 preserved_bits(u32 index) {
    switch (index) {
    case 0xc0000080: return 0xd00; // EFER: LME, LMA, NXE
    case 0x2ff: return 0;          // MTRR default type
    default: return 0;
    }
}

// INIT or NMI to oneself is no survivable write; the timer and error LVTs may keep what they get, interrupts are off.
bool skip_write(u32 index) { return index == 0x830; }

void repair_apic_base(u64 old) {
    try_execute([old] {
        x86::wrmsr(IA32_APIC_BASE,
                   old & ~(apic_base_enable | apic_base_x2apic)); // x2APIC to xAPIC goes only by disabled
        x86::wrmsr(IA32_APIC_BASE, old & ~apic_base_x2apic);
        x86::wrmsr(IA32_APIC_BASE, old);
    });
}

void attack(u32 index, Random& random, Counts& counts) {
    u64 old = 0;
    auto const read = try_execute([&] { old = x86::rdmsr(index); });
    (read.happened ? counts.reads_fault : counts.reads_ok)++;
    if (read.happened && !read.is(GP)) counts.other_vectors++;
    if (skip_write(index)) return;
    u64 const keep = preserved_bits(index);
    for (unsigned form = 0; form < 3; form++) {
        u64 const noise = random.next();
        u64 value = form == 0 ? noise : form == 1 ? old ^ (1ULL << (noise & 63)) : noise & 0xff;
        value = (value & ~keep) | (old & keep);
        auto const write = try_execute([=] { x86::wrmsr(index, value); });
        (write.happened ? counts.writes_fault : counts.writes_ok)++;
        if (write.happened && !write.is(GP)) counts.other_vectors++;
        if (write.happened || read.happened) continue;
        if (index == IA32_APIC_BASE)
            repair_apic_base(old);
        else
            try_execute([=] { x86::wrmsr(index, old); });
    }
}

} // namespace

void msrs() {
    u64 const seed = option_number("seed", 1);
    Random random{seed * 0x9e3779b97f4a7c15};
    Counts counts{};
    for (auto const range : ranges)
        for (u64 index = range.first; index <= range.last; index++)
            attack(static_cast<u32>(index), random, counts);
    for (unsigned i = 0; i < 2000; i++)
        attack(static_cast<u32>(random.next()), random, counts);
    repair_state();
    apic::enable();
    expect("MSR faults other than #GP", 0, counts.other_vectors);
    print("guest: ok msrs seed {} reads ok {} #GP {} writes ok {} #GP {}\n", seed, counts.reads_ok, counts.reads_fault,
          counts.writes_ok, counts.writes_fault);
}

} // namespace hostile
