// SPDX-License-Identifier: MIT
#pragma once
// "Guest rdtsc to rdtsc": warm-up, then one sample per operation, less the empty pair; the median is what counts.
#include "runtime/runtime.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <string_view>

namespace bench {

using guest::u32;
using guest::u64;
using guest::u8;
namespace x86 = lib::x86;

inline constexpr unsigned warm_ups = 64, max_samples = 1000;
extern std::array<u32, max_samples> samples;
extern u32 empty_pair;

// The low half is enough: nothing measured here takes 2^32 ticks, and joining the halves would cost instructions.
[[gnu::always_inline]] inline u32 ticks() {
    u32 low;
    asm volatile("rdtsc" : "=a"(low) : : "rdx", "memory");
    return low;
}

void report(std::string_view name, unsigned count, u32 overhead);
void report_absent(std::string_view name);

template <typename F> [[gnu::always_inline]] inline void take_samples(unsigned warm, unsigned count, F& operation) {
    for (unsigned i = 0; i < warm; i++)
        operation();
    for (unsigned i = 0; i < count; i++) {
        u32 const start = ticks();
        operation();
        samples[i] = ticks() - start;
    }
}

// n/a if the operation faults.
template <typename F> void measure(std::string_view name, F operation, unsigned count = max_samples) {
    auto const fault = guest::try_execute([&] {
        auto local = operation; // its address goes nowhere, so what it captured stays in registers
        take_samples(std::min(warm_ups, count), count, local);
    });
    if (fault.happened)
        report_absent(name);
    else
        report(name, count, empty_pair);
}

template <typename F> void measure_if(bool present, std::string_view name, F operation, unsigned count = max_samples) {
    if (present)
        measure(name, operation, count);
    else
        report_absent(name);
}

void instructions();
void devices();
void xapic();
void x2apic();
void timers();
void memory();
void two_cpus(); // alone, when there are two
// Each alone, on a VM with a disk in memory of at least 64 MiB.
void disk_requests();
void disk_restarts();

} // namespace bench
