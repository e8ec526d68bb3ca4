// SPDX-License-Identifier: MIT
// A small guest that is no Linux, for machines with several VMs: says every `interval` ms how long it has run and how
// much it got done, obeys the power button, and does what the other options say in between.
//   does=idle    sleeps (usual)
//   does=work    counts rounds of arithmetic: how much of a CPU it gets
//   does=flood   makes exits, port I/O, device accesses and self-IPIs as fast as it can, and writes all over a cache
//   does=x87     loads the x87 environment as fast as it can
//   does=storm   sleeps with interrupts off while the PIT runs at its highest rate: work for its hypervisor alone
//   crash=N      after N lines, a triple fault; 0: at once        quit=N  after N lines, power-off
#include "runtime/apic.hpp"
#include "runtime/clock.hpp"
#include "runtime/runtime.hpp"

#include <algorithm>
#include <array>

namespace {

using namespace guest;

constexpr u8 timer_vector = 0x70, flood_vector = 0x71;
constexpr u8 pit_pin = 2;      // where the PIT arrives at the IOAPIC
constexpr u16 PM1_STS = 0x600; // [acpi] 4.8.3.1
constexpr u16 PWRBTN_STS = 1 << 8;
constexpr u64 rounds_at_once = 1'000; // between two looks at the clock
constexpr u64 never = ~u64{0};
constexpr u64 cache_line = 64;
std::array<u8, 4 << 20> cache_fill; // more than a core's own caches hold

enum class Habit : u8 { Idle, Work, Flood, X87, Storm };

Habit habit() {
    auto const text = option("does");
    if (text == "work") return Habit::Work;
    if (text == "storm") return Habit::Storm;
    if (text == "x87") return Habit::X87;
    return text == "flood" ? Habit::Flood : Habit::Idle;
}

bool on_timer(Frame&) {
    apic::eoi();
    return true;
}

void start_timer() {
    set_handler(timer_vector, on_timer);
    ioapic::redirect(pit_pin, timer_vector);
    clock::pit_start(2, 0); // 18.2 times a second
}

[[noreturn]] void storm() {
    ioapic::redirect(pit_pin, timer_vector);
    clock::pit_start(2, 2); // 596,591 times a second
    print("ticker: sleeps in a storm\n");
    for (;;)
        asm volatile("cli; hlt" : : : "memory");
}

[[noreturn]] void triple_fault() {
    x86::lidt({0, 0});
    asm volatile("ud2");
    __builtin_unreachable();
}

void work() {
    for (u64 i = 0; i < rounds_at_once; i++)
        asm volatile("" : : "r"(i * i));
}

void flood() {
    static u64 next = 0;
    for (u32 i = 0; i < 256; i++) {
        cache_fill[next] = static_cast<u8>(i);
        next = (next + cache_line) % cache_fill.size();
    }
    for (u32 i = 0; i < 16; i++) {
        x86::cpuid(i, 0);
        x86::in8(0x40);
        x86::out8(0x80, static_cast<u8>(i));
        x86::load32(ioapic_page + 0x10);
        apic::self_ipi(flood_vector);
    }
}

void load_environments() {
    alignas(4) std::array<u8, 28> environment;
    asm volatile("fnstenv %0" : "=m"(environment));
    for (u64 i = 0; i < rounds_at_once; i++)
        asm volatile("fldenv %0" : : "m"(environment));
}

// Until the TSC is `end`: how many rounds it made.
u64 pass_time(Habit what, u64 end) {
    u64 rounds = 0;
    while (x86::rdtsc() < end) {
        switch (what) {
        case Habit::Idle: x86::hlt(); break; // a tick between the look at the clock and this only makes it late
        case Habit::Work: work(); break;
        case Habit::Flood: flood(); break;
        case Habit::X87: load_environments(); break;
        case Habit::Storm: storm();
        }
        rounds++;
    }
    return rounds;
}

bool is_button_pressed() { return (x86::in16(PM1_STS) & PWRBTN_STS) != 0; }

} // namespace

void guest_main() {
    u64 const hz = std::max<u64>(clock::tsc_hz_by_cpuid() != 0 ? clock::tsc_hz_by_cpuid() : clock::tsc_hz(), 1'000);
    u64 const interval = option_number("interval", 1'000);
    u64 const crash_after = option_number("crash", never), quit_after = option_number("quit", never);
    Habit const what = habit();
    if (what == Habit::Idle) start_timer();
    u64 const start = x86::rdtsc();
    // Bochs 2.7 takes no external interrupt out of a guest that never had interrupts on since its entry, so this one
    // would keep its CPU from all others there.
    x86::sti();
    for (u64 line = 0;; line++) {
        if (line == crash_after) triple_fault();
        if (line == quit_after || is_button_pressed()) return;
        // Intervals, not points in time: who was starved for a while shall not print a burst.
        u64 const begin = x86::rdtsc();
        u64 const rounds = pass_time(what, begin + hz / 1'000 * interval);
        print("ticker: {} ms, {} rounds in {} ms\n", (x86::rdtsc() - start) / (hz / 1'000), rounds,
              (x86::rdtsc() - begin) / (hz / 1'000));
    }
}
