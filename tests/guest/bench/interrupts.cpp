// SPDX-License-Identifier: MIT
// The local APIC in both modes, and the TSC-deadline timer.
#include "bench/measure.hpp"

#include "runtime/apic.hpp"

extern "C" {
extern guest::u32 volatile bench_isr_low, bench_isr_high;
extern guest::u64 volatile bench_isr_count;
void bench_isr_x2apic();
void bench_isr_xapic();
}

namespace bench {
namespace {

using namespace guest;
constexpr u8 ipi_vector = 0x60, timer_vector = 0x61;
constexpr unsigned timer_samples = 200;
constexpr u64 timer_delay = 100'000; // longer than arming takes anywhere
constexpr u32 wait_limit = 10'000'000;

bool wait_for(u64 count) {
    for (u32 i = 0; i < wait_limit; i++)
        if (bench_isr_count != count) return true;
    return false;
}

// From the first instruction of sending to the ISR's time stamp.
template <typename F> void measure_delivery(std::string_view name, F send) {
    bool arrived = true;
    auto const fault = try_execute([&] {
        for (unsigned i = 0; i < warm_ups + max_samples && arrived; i++) {
            u64 const before = bench_isr_count;
            x86::sti();
            u32 const start = ticks();
            send();
            arrived = wait_for(before);
            x86::cli();
            if (i >= warm_ups) samples[i - warm_ups] = bench_isr_low - start;
        }
    });
    if (fault.happened || !arrived)
        report_absent(name);
    else
        report(name, max_samples, empty_pair);
}

// Latencies are against the deadline, so there is no pair to take off.
template <typename F> void measure_timer(std::string_view name, F wait) {
    for (unsigned i = 0; i < 8 + timer_samples; i++) {
        u64 const before = bench_isr_count;
        u64 const deadline = x86::rdtsc() + timer_delay;
        x86::wrmsr(IA32_TSC_DEADLINE, deadline);
        wait(before);
        x86::cli();
        u64 const seen = u64{bench_isr_high} << 32 | bench_isr_low;
        if (bench_isr_count == before || seen < deadline) {
            fail(name, deadline, seen);
            return;
        }
        if (i >= 8) samples[i - 8] = static_cast<u32>(seen - deadline);
    }
    report(name, timer_samples, 0);
}

} // namespace

void xapic() {
    measure("xapic_mmio_rd_version", [] { x86::load32(apic_page + 0x30); });
    measure("xapic_mmio_wr_tpr", [] { x86::store32(apic_page + 0x80, 0); });
    measure("xapic_mmio_wr_eoi", [] { x86::store32(apic_page + 0xb0, 0); });
    set_raw_gate(ipi_vector, bench_isr_xapic);
    measure_delivery("xapic_selfipi_delivery", [] { x86::store32(apic_page + 0x300, 0x40000U | ipi_vector); });
}

void x2apic() {
    measure("x2apic_rd_tpr", [] { asm volatile("rdmsr" : : "c"(0x808) : "rax", "rdx", "memory"); });
    measure("x2apic_wr_tpr", [] { x86::wrmsr(0x808, 0); });
    measure("x2apic_rd_version", [] { asm volatile("rdmsr" : : "c"(0x803) : "rax", "rdx", "memory"); });
    measure("x2apic_wr_eoi", [] { x86::wrmsr(0x80b, 0); });
    set_raw_gate(ipi_vector, bench_isr_x2apic);
    measure("x2apic_wr_icr_self_masked",
            [] { x86::wrmsr(0x830, 0x40000U | ipi_vector); }); // interrupts are off: stays pending
    interrupt_window();
    measure_delivery("x2apic_selfipi_delivery", [] { x86::wrmsr(0x83f, ipi_vector); });
    x86::sti();
    measure("x2apic_selfipi_total_with_eoi", [] { x86::wrmsr(0x83f, ipi_vector); });
    x86::cli();
    // Sleeps although an interrupt waits already: what falling asleep and waking up cost by themselves.
    measure("hlt_cycle_with_selfipi_and_eoi", [] {
        x86::wrmsr(0x83f, ipi_vector);
        x86::sti_hlt();
        x86::cli();
    });
    measure_delivery("x2apic_icr_selfipi_delivery", [] { x86::wrmsr(0x830, 0x40000U | ipi_vector); });
    apic::write(apic::LvtTimer, timer_vector);
    measure("x2apic_wr_tmict_stop", [] { x86::wrmsr(0x838, 0); });
    apic::write(apic::LvtTimer, apic::lvt_masked);
}

void timers() {
    constexpr std::array<std::string_view, 4> names = {"tscdeadline_wr_far", "tscdeadline_wr_0", "timer_hlt_latency",
                                                       "timer_spin_latency"};
    if (!apic::has_tsc_deadline()) {
        for (auto const name : names)
            report_absent(name);
        return;
    }
    set_raw_gate(timer_vector, apic::is_x2apic() ? bench_isr_x2apic : bench_isr_xapic);
    apic::write(apic::LvtTimer, apic::lvt_tsc_deadline | timer_vector);
    asm volatile("mfence" : : : "memory"); // [intel/vol3] 12.5.4.1: orders the xAPIC store before WRMSR
    measure(names[0], [] { x86::wrmsr(IA32_TSC_DEADLINE, x86::rdtsc() + (1ULL << 40)); });
    measure(names[1], [] { x86::wrmsr(IA32_TSC_DEADLINE, 0); });
    measure_timer(names[2], [](u64 before) {
        while (bench_isr_count == before) {
            x86::cli();
            if (bench_isr_count == before) x86::sti_hlt();
        }
    });
    measure_timer(names[3], [](u64 before) {
        x86::sti();
        wait_for(before);
    });
    apic::write(apic::LvtTimer, apic::lvt_masked);
}

} // namespace bench
