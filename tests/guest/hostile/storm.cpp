// SPDX-License-Identifier: MIT
// Floods of everything that makes an exit, bounded by count=N.
#include "hostile/hostile.hpp"

#include "runtime/clock.hpp"

namespace hostile {
namespace {

constexpr u8 ipi_vector = 0x71, pit_vector = 0x72;

// A period shorter than its own handler leaves the CPU no instruction besides: after so many interrupts in a row the
// handler stops its source, and the next round of the flood starts it again.
constexpr unsigned patience = 16;
unsigned in_a_row = 0;
u64 timer_interrupts = 0, pit_interrupts = 0;

bool on_timer(Frame&) {
    timer_interrupts++;
    if (++in_a_row > patience) apic::write(apic::Tmict, 0);
    apic::eoi();
    return true;
}
bool on_pit(Frame&) {
    pit_interrupts++;
    if (++in_a_row > patience) clock::pit_start(0, 0);
    apic::eoi();
    return true;
}

template <typename F> void flood(std::string_view name, u64 count, F operation) {
    u64 const start = x86::rdtsc();
    u64 faults = 0;
    for (u64 i = 0; i < count; i++)
        faults += try_execute([&] { operation(i); }).happened;
    print("guest: storm {} {} times, {} faults, {} ticks each\n", name, count, faults,
          (x86::rdtsc() - start) / (count == 0 ? 1 : count));
}

void interrupt_floods(u64 count) {
    u64 before = interrupt_count(ipi_vector);
    x86::sti();
    flood("self_ipi", count, [](u64) {
        x86::sti();
        apic::self_ipi(ipi_vector);
    });
    interrupt_window();
    u64 const arrived = interrupt_count(ipi_vector) - before;
    if (!expect_true("self IPIs arrive", arrived > 0 && arrived <= count))
        print("guest: {} of {} arrived\n", arrived, count);
    set_handler(timer_vector, on_timer);
    set_handler(pit_vector, on_pit);
    apic::write(apic::LvtTimer, timer_vector);
    flood("timer_count_1", count, [](u64) {
        x86::sti();
        apic::write(apic::Tmict, 1);
    });
    apic::write(apic::LvtTimer, apic::lvt_periodic | timer_vector);
    flood("timer_periodic_1", count / 16, [](u64) {
        x86::sti();
        apic::write(apic::Tmict, 1);
    });
    apic::write(apic::Tmict, 0);
    if (apic::has_tsc_deadline()) {
        apic::write(apic::LvtTimer, apic::lvt_tsc_deadline | timer_vector);
        flood("tsc_deadline_past", count, [](u64 i) {
            x86::sti();
            x86::wrmsr(IA32_TSC_DEADLINE, i & 1);
        });
    }
    apic::write(apic::LvtTimer, apic::lvt_masked);
    ioapic::redirect(2, pit_vector);
    flood("pit_mode2_reload", count / 4, [](u64 i) {
        x86::sti();
        clock::pit_start(2, static_cast<u16>(2 + (i & 7)));
    });
    clock::pit_start(0, 0);
    flood("ioapic_redirection", count / 4,
          [](u64 i) { ioapic::redirect(2, (i & 0xff) | (i & 1 ? ioapic::level : 0) | ioapic::masked); });
    x86::cli();
    ioapic::redirect(2, ioapic::masked);
    set_handler(timer_vector, nullptr);
    set_handler(pit_vector, nullptr);
}

} // namespace

void storm() {
    u64 const count = option_number("count", 20'000);
    apic::enable();
    flood("cpuid", count, [](u64 i) { x86::cpuid(static_cast<u32>(i), 0); });
    flood("in_40", count, [](u64) { x86::in8(0x40); });
    flood("out_80", count, [](u64 i) { x86::out8(0x80, static_cast<u8>(i)); });
    if (is_amd())
        flood("hypercall", count, [](u64 i) { asm volatile("vmmcall" : "+a"(i) : : "memory"); });
    else
        flood("hypercall", count, [](u64 i) { asm volatile("vmcall" : "+a"(i) : : "memory"); });
    flood("rdmsr_unknown", count, [](u64 i) { x86::rdmsr(static_cast<u32>(0x5000 + i)); });
    flood("ioapic_read", count, [](u64) { x86::load32(ioapic_page + 0x10); });
    flood("cr_toggles", count, [](u64) {
        u64 const cr0 = x86::read_cr0(), cr4 = x86::read_cr4();
        x86::write_cr0(cr0 ^ 0x10000);
        x86::write_cr4(cr4 ^ 0x80);
        x86::write_cr0(cr0);
        x86::write_cr4(cr4);
    });
    flood("wbinvd", count / 16, [](u64) { x86::wbinvd(); });
    flood("ud2", count, [](u64) { asm volatile("ud2"); });
    flood("pause", count, [](u64) { x86::pause(); });
    interrupt_floods(count);
    repair_state();
    print("guest: ok storm count {} self-IPIs {} timer {} pit {}\n", count, interrupt_count(ipi_vector),
          timer_interrupts, pit_interrupts);
}

} // namespace hostile
