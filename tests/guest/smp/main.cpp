// SPDX-License-Identifier: MIT
// Several CPUs, asserted: start, interrupts between them, NMI, INIT, TSCs. cpus=N says how many there are; the APIC ids
// are 0 to N-1, as Mullion and the emulators give them.
#include "runtime/smp.hpp"

#include <algorithm>
#include <array>
#include <atomic>

namespace {

using namespace guest;
using smp::max_cpus;
using smp::wait_until;

constexpr u8 vector_first = 0x40; // and one more for each sender
constexpr u8 timer_vector = 0x60;
constexpr u8 work_vector = 0x31; // of a lower class than all others: it is delivered when they have been

u32 cpu_count = 1;
std::array<std::array<std::atomic<u32>, 256>, max_cpus> received{};
std::array<std::atomic<u32>, max_cpus> heartbeats{};
std::array<std::atomic<u32>, max_cpus> ids{};
std::array<std::atomic<u64>, max_cpus> bases{};

// What all others do, one thing at a time.
enum class Work : u32 { Spin, Halt, Tsc, Storm, Timer, SetLogicalId, EnterX2apic };
std::atomic<Work> work{Work::Spin};
std::atomic<u32> arrived{0}, turn{0};
std::atomic_flag tsc_lock;
u64 last_tsc = 0;
std::atomic<u64> warps{0};

bool on_vector(Frame& frame) {
    received[smp::this_cpu()][frame.vector].fetch_add(1);
    if (frame.vector != NMI) apic::eoi();
    return true;
}

void compare_tscs() {
    for (u32 i = 0; i < 2'000; i++) {
        while (tsc_lock.test_and_set(std::memory_order_acquire))
            x86::pause();
        asm volatile("lfence" : : : "memory");
        u64 const now = x86::rdtsc();
        if (now < last_tsc) warps.fetch_add(1);
        last_tsc = now;
        tsc_lock.clear(std::memory_order_release);
    }
}

// Sends to every other CPU in turn; the next to the same one only when the last has been taken.
void storm() {
    u32 const me = smp::this_cpu();
    for (u32 i = 0; i < 300; i++) {
        u32 const to = (me + 1 + i % (cpu_count - 1)) % cpu_count;
        u32 const before = received[to][vector_first + me].load();
        smp::send(to, smp::icr_assert | (vector_first + me));
        x86::sti();
        if (!wait_until([&] { return received[to][vector_first + me].load() != before; })) return;
        x86::cli();
    }
}

void use_timer() {
    u32 const me = smp::this_cpu();
    apic::write(apic::LvtTimer, timer_vector);
    apic::write(apic::Tmict, 200'000);
    x86::sti();
    wait_until([&] { return received[me][timer_vector].load() != 0; });
    x86::cli();
    apic::write(apic::LvtTimer, apic::lvt_masked);
}

void do_work(Work what) {
    switch (what) {
    case Work::Spin: break;
    case Work::Halt: x86::sti_hlt(); break;
    case Work::Tsc: compare_tscs(); break;
    case Work::Storm: storm(); break;
    case Work::Timer: use_timer(); break;
    case Work::SetLogicalId: // more than eight share: as they do on a real bus
        apic::write(apic::Ldr, 1U << (24 + smp::this_cpu() % 8));
        break;
    case Work::EnterX2apic: apic::enter_x2apic(); break;
    }
}

void ap_main() {
    u32 const me = smp::this_cpu();
    ids[me] = x86::cpuid(1).ebx >> 24;
    bases[me] = x86::rdmsr(IA32_APIC_BASE);
    heartbeats[me].fetch_add(1);
    u32 done = turn.load();
    for (;;) {
        heartbeats[me].fetch_add(1);
        interrupt_window();
        if (work.load() == Work::Halt) {
            do_work(Work::Halt);
        } else if (u32 const now = turn.load(); now != done) { // first: what to do is there before the turn
            done = now;
            do_work(work.load());
            arrived.fetch_add(1);
        }
        x86::pause();
    }
}

// Every CPU does it once, the first one too.
bool everybody(Work what) {
    arrived = 0;
    work = what;
    turn.fetch_add(1);
    do_work(what);
    x86::sti();
    bool const all = wait_until([] { return arrived.load() == cpu_count - 1; });
    x86::cli();
    work = Work::Spin;
    return expect_true("all CPUs do their work", all);
}

void clear() {
    for (auto& counts : received)
        for (auto& count : counts)
            count = 0;
}

// One more interrupt, less urgent than those that were sent, has arrived everywhere, so they have too.
bool settle() {
    for (u32 cpu = 0; cpu < cpu_count; cpu++) {
        u32 const before = received[cpu][work_vector].load();
        smp::send(cpu, smp::icr_assert | work_vector);
        x86::sti();
        bool const seen = wait_until([&] { return received[cpu][work_vector].load() != before; });
        x86::cli();
        if (!expect_true("an interrupt arrives", seen)) return false;
    }
    return true;
}

// Sends once and checks that exactly the CPUs of `mask` got it, once each, or exactly one of them.
void check_ipi(std::string_view name, u32 destination, u32 low, u32 mask, bool only_one = false) {
    constexpr u8 vector = 0x55;
    clear();
    bool const is_nmi = (low & 0x700) == smp::nmi;
    u32 const where = is_nmi ? u32{NMI} : u32{vector};
    smp::send(destination, low | smp::icr_assert | (is_nmi ? 0U : vector));
    if (!settle()) return;
    u32 got = 0, sum = 0;
    for (u32 cpu = 0; cpu < cpu_count; cpu++) {
        u32 const count = received[cpu][where].load();
        sum += count;
        if (count != 0) got |= 1U << cpu;
        if (count > 1) fail(name, 1, count);
    }
    if (only_one) {
        expect(name, 1, sum);
        expect(name, 0, got & ~mask);
    } else {
        expect(name, mask, got);
    }
}

u32 all_cpus() { return (1U << cpu_count) - 1; }

void start_all() {
    for (u32 cpu = 1; cpu < cpu_count; cpu++) {
        if (!expect_true("a CPU starts", smp::start(cpu, cpu, ap_main))) return;
        expect_true("it runs", wait_until([&] { return heartbeats[cpu].load() > 2; }));
        expect("its APIC id in CPUID", cpu, ids[cpu]);
        expect("its APIC base: no BSP, enabled", apic_base_enable, bases[cpu] & 0x900);
    }
    expect("the first CPU is the BSP", 0x900, x86::rdmsr(IA32_APIC_BASE) & 0x900);
}

void shorthands() {
    u32 const all = all_cpus();
    check_ipi("to self", 0, smp::to_self, 1);
    check_ipi("to all", 0, smp::to_all, all);
    check_ipi("to all but self", 0, smp::to_others, all & ~1U);
    for (u32 cpu = 0; cpu < cpu_count; cpu++)
        check_ipi("physical", cpu, 0, 1U << cpu);
    if (cpu_count > 1) {
        check_ipi("NMI", cpu_count - 1, smp::nmi, 1U << (cpu_count - 1));
        check_ipi("NMI to all but self", 0, smp::nmi | smp::to_others, all & ~1U);
    }
}

void xapic_ipis() {
    shorthands();
    check_ipi("physical broadcast", 0xff, 0, all_cpus());
    if (!everybody(Work::SetLogicalId)) return;
    for (u32 cpu = 0; cpu_count <= 8 && cpu < cpu_count; cpu++)
        check_ipi("logical, flat", 1U << cpu, smp::icr_logical, 1U << cpu);
    if (cpu_count >= 3 && cpu_count <= 8) check_ipi("logical, flat, two", 5, smp::icr_logical, 5);
    check_ipi("logical broadcast", 0xff, smp::icr_logical, all_cpus());
    check_ipi("lowest priority among all", 0xff, smp::icr_logical | smp::lowest_priority, all_cpus(), true);
    check_ipi("nobody has this id", 0x77, 0, 0);
}

void x2apic_ipis() {
    if (!apic::has_x2apic()) {
        print("guest: no x2APIC here\n");
        return;
    }
    if (!everybody(Work::EnterX2apic)) return;
    shorthands();
    check_ipi("physical broadcast, x2APIC", ~u32{0}, 0, all_cpus());
    u32 const cluster = all_cpus() & 0xffff;
    check_ipi("logical, the cluster", cluster, smp::icr_logical, all_cpus());
    if (cpu_count > 1) check_ipi("logical, two of it", 3, smp::icr_logical, 3);
    check_ipi("lowest priority in the cluster", cluster, smp::icr_logical | smp::lowest_priority, all_cpus(), true);
    check_ipi("another cluster", 0x10001, smp::icr_logical, 0);
}

// INIT stops a CPU that runs; a second SIPI is for nobody.
void init_and_startup() {
    if (cpu_count < 2) return;
    u32 const cpu = cpu_count - 1;
    smp::send(cpu, smp::init | smp::icr_assert);
    u32 beats = 0;
    bool const stands = wait_until([&] {
        u32 const now = heartbeats[cpu].load();
        for (u32 i = 0; i < 10'000; i++)
            x86::pause();
        beats = heartbeats[cpu].load();
        return now == beats;
    });
    expect_true("INIT stops it", stands);
    smp::send(cpu, smp::icr_assert | work_vector); // not taken: it waits for SIPI
    u32 const before = smp::starts(cpu);
    expect_true("it starts again", smp::start(cpu, cpu, ap_main));
    expect_true("and runs", wait_until([&] { return heartbeats[cpu].load() > beats + 2; }));
    smp::send(cpu, smp::startup | smp::icr_assert | static_cast<u32>(smp::trampoline >> 12));
    settle();
    expect("starts", before + 1, smp::starts(cpu));
}

void tscs() {
    last_tsc = 0;
    warps = 0;
    if (everybody(Work::Tsc)) expect("TSC steps backwards", 0, warps.load());
}

void wake_from_halt() {
    if (cpu_count < 2) return;
    clear();
    work = Work::Halt;
    for (u32 round = 0; round < 200; round++) {
        u32 const cpu = 1 + round % (cpu_count - 1);
        u32 const before = received[cpu][work_vector].load();
        if (round % 3 == 0) // most often it has come to HLT by then
            for (u32 i = 0; i < 2'000; i++)
                x86::pause();
        smp::send(cpu, smp::icr_assert | work_vector);
        if (!wait_until([&] { return received[cpu][work_vector].load() == before + 1; })) {
            fail("an IPI wakes a halted CPU", round, cpu);
            break;
        }
    }
    work = Work::Spin;
    smp::send(0, smp::icr_assert | smp::to_others | work_vector);
}

void timers() {
    clear();
    everybody(Work::Timer);
    for (u32 cpu = 0; cpu < cpu_count; cpu++)
        expect("one timer interrupt on each", 1, received[cpu][timer_vector].load());
}

void storms() {
    if (cpu_count < 2) return;
    clear();
    if (!everybody(Work::Storm)) return;
    for (u32 from = 0; from < cpu_count; from++) {
        u32 sum = 0;
        for (u32 to = 0; to < cpu_count; to++)
            sum += received[to][vector_first + from].load();
        expect("all that it sent has arrived", 300, sum);
    }
}

constexpr std::array<Test, 8> tests = {{{"start", start_all},
                                        {"xapic", xapic_ipis},
                                        {"init", init_and_startup},
                                        {"tsc", tscs},
                                        {"halt", wake_from_halt},
                                        {"timer", timers},
                                        {"storm", storms},
                                        {"x2apic", x2apic_ipis}}};

} // namespace

void guest_main() {
    cpu_count = static_cast<u32>(std::min<u64>(option_number("cpus", 1), max_cpus));
    smp::prepare();
    set_handler(NMI, on_vector);
    for (u32 vector = work_vector; vector < 0x70; vector++)
        set_handler(static_cast<u8>(vector), on_vector);
    for (auto const& test : tests) {
        u64 const before = failures();
        test.run();
        if (failures() == before) print("guest: ok {}\n", test.name);
        if (test.run == start_all && failures() != 0) return; // the rest waits for CPUs
    }
}
