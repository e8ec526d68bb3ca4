// SPDX-License-Identifier: MIT
// Two CPUs: what an IPI costs on either side when each has a core of its own, what a switch costs when they share one.
#include "bench/measure.hpp"

#include "runtime/smp.hpp"

#include <atomic>

extern "C" {
extern guest::u32 volatile bench_isr_low;
extern guest::u64 volatile bench_isr_count;
void bench_isr_x2apic();
void bench_isr_xapic();
}

namespace bench {
namespace {

using namespace guest;
constexpr u8 ipi_vector = 0x60;
constexpr unsigned ipi_samples = 400, switch_samples = 60;
constexpr u32 never = 10'000'000;

enum class Role : u32 { Ready, Busy, Halt, PingPong, Switch };
std::atomic<Role> role{Role::Ready};
std::atomic<u32> longest_gap{0}; // between two time stamps of the busy one
std::array<std::atomic<u64>, 2> stamps{};
std::atomic<u64> pings{0};

bool uses_x2apic = false;

// Without PAUSE, which an emulator may take as "run the others for a while".
void spin(u32 length) {
    for (u32 const start = ticks(); ticks() - start < length;) {
    }
}

// smp::send() asks for the APIC's mode first, which exits.
[[gnu::always_inline]] inline void send_to(u32 cpu) {
    if (uses_x2apic)
        x86::wrmsr(0x830, u64{cpu} << 32 | smp::icr_assert | ipi_vector);
    else
        smp::send(cpu, smp::icr_assert | ipi_vector);
}

void be_busy() {
    u32 last = ticks();
    while (role == Role::Busy) {
        u32 const now = ticks();
        if (now - last > longest_gap.load(std::memory_order_relaxed))
            longest_gap.store(now - last, std::memory_order_relaxed);
        last = now;
    }
}

// Both spin on one core. Whoever sees that the other has run since his own last stamp has just been switched to.
void switch_turns(u32 me, unsigned count) {
    unsigned seen = 0;
    u64 mine = x86::rdtsc();
    while (role == Role::Switch && seen < count) {
        u64 const now = x86::rdtsc();
        u64 const other = stamps[1 - me].load(std::memory_order_relaxed);
        if (other > mine && me == 0) samples[seen++] = static_cast<u32>(now - other);
        mine = now;
        stamps[me].store(now, std::memory_order_relaxed);
    }
}

void answer_pings() {
    while (role == Role::PingPong) {
        u64 const before = bench_isr_count;
        x86::cli();
        if (bench_isr_count == before && pings % 2 == 0) x86::sti_hlt();
        x86::sti();
        if (pings % 2 == 1) {
            pings++;
            send_to(0);
        }
    }
}

void second_cpu() {
    if (uses_x2apic) apic::enter_x2apic();
    x86::sti();
    for (;;) {
        switch (role.load()) {
        case Role::Ready: spin(100); break;
        case Role::Busy: be_busy(); break;
        case Role::Halt: x86::sti_hlt(); break;
        case Role::PingPong: answer_pings(); break;
        case Role::Switch: switch_turns(1, ~0U); break;
        }
    }
}

bool wait_for(u64 count) {
    for (u32 i = 0; i < never; i++)
        if (bench_isr_count != count) return true;
    return false;
}

// From before sending until the ISR's time stamp on the other CPU; what the sender does itself; what the receiver
// loses.
void ipis() {
    std::array<u32, ipi_samples> sent{}, lost{};
    role = Role::Busy;
    spin(10'000);
    for (unsigned i = 0; i < ipi_samples; i++) {
        spin(3'000);
        longest_gap = 0;
        u64 const before = bench_isr_count;
        u32 const start = ticks();
        send_to(1);
        sent[i] = ticks() - start;
        if (!wait_for(before)) return report_absent("ipi_latency_busy");
        samples[i] = bench_isr_low - start;
        spin(3'000);
        lost[i] = longest_gap;
    }
    report("ipi_latency_busy", ipi_samples, empty_pair);
    std::copy(sent.begin(), sent.end(), samples.begin());
    report("ipi_send", ipi_samples, empty_pair);
    std::copy(lost.begin(), lost.end(), samples.begin());
    report("ipi_receive", ipi_samples, empty_pair);
    role = Role::Halt;
    for (unsigned i = 0; i < ipi_samples; i++) {
        spin(10'000);
        u64 const before = bench_isr_count;
        u32 const start = ticks();
        send_to(1);
        if (!wait_for(before)) return report_absent("ipi_latency_halted");
        samples[i] = bench_isr_low - start;
    }
    report("ipi_latency_halted", ipi_samples, empty_pair);
}

void switches() {
    role = Role::Switch;
    switch_turns(0, switch_samples);
    report("switch_by_slice", switch_samples, empty_pair);
    // There and back: two IPIs, two HLTs, two switches.
    role = Role::PingPong;
    pings = 0;
    for (unsigned i = 0; i < 8 + ipi_samples; i++) {
        u32 const start = ticks();
        pings++;
        send_to(1);
        while (pings % 2 == 1) {
            x86::cli();
            if (pings % 2 == 1) x86::sti_hlt();
            x86::sti();
        }
        if (i >= 8) samples[i - 8] = (ticks() - start) / 2;
    }
    report("switch_by_halt_and_ipi", ipi_samples, empty_pair);
}

} // namespace

void two_cpus() {
    smp::prepare();
    // Bochs 2.7 lets no interrupt of the machine end a guest's run that began with IF clear behind a HLT of ours.
    x86::sti();
    uses_x2apic = apic::enter_x2apic();
    set_raw_gate(ipi_vector, uses_x2apic ? bench_isr_x2apic : bench_isr_xapic);
    if (!smp::start(1, 1, second_cpu)) {
        fail("the second CPU starts", 1, 0);
        return;
    }
    if (option("shared") == "1")
        switches();
    else
        ipis();
}

} // namespace bench
