// SPDX-License-Identifier: MIT
#include "bench/measure.hpp"

#include "runtime/apic.hpp"

namespace bench {

std::array<u32, max_samples> samples{};
u32 empty_pair = 0;

void report(std::string_view name, unsigned count, u32 overhead) {
    // std::sort of these types lives in the library, which is not here.
    std::make_heap(samples.begin(), samples.begin() + count);
    std::sort_heap(samples.begin(), samples.begin() + count);
    auto const net = [overhead](u32 value) { return value > overhead ? value - overhead : 0; };
    guest::print("bench: {} {} {} {}\n", name, net(samples[count / 2]), net(samples[0]), net(samples[count - 1]));
}

void report_absent(std::string_view name) { guest::print("bench: {} n/a\n", name); }

} // namespace bench

void guest_main() {
    using namespace bench;
    // Work of so many instructions, for tests that see who gets how much of a CPU.
    if (guest::u64 count = guest::option_number("spin", 0); count != 0) {
        x86::sti();
        asm volatile("1: dec %0; jnz 1b" : "+r"(count));
        return;
    }
    // Sleeps for ever, a timer interrupt of its own every so many ticks of its APIC timer apart.
    if (guest::u64 const period = guest::option_number("idle", 0); period != 0) {
        guest::apic::write(guest::apic::LvtTimer, guest::apic::lvt_periodic | 0x40);
        guest::apic::write(guest::apic::Tmict, static_cast<u32>(period));
        for (;;)
            x86::sti_hlt();
    }
    auto const nothing = [] {};
    take_samples(warm_ups, max_samples, nothing);
    report("empty_pair", max_samples, 0);
    empty_pair = samples[max_samples / 2];
    if (guest::option_number("cpus", 1) > 1) return two_cpus();
    if (guest::option("disk") == "requests") return disk_requests();
    if (guest::option("disk") == "restarts") return disk_restarts();
    instructions();
    devices();
    xapic();
    if (guest::apic::enter_x2apic())
        x2apic();
    else
        guest::print("bench: x2apic_* n/a\n");
    timers();
    memory();
}
