// SPDX-License-Identifier: MIT
// Interrupts from the PIT, by the 8259 pair and by the IOAPIC, and the local APIC's timer.
#include "behave/behave.hpp"

namespace behave {
namespace {

constexpr u8 pic_vector = 0x20, pin_vector = 0x64, timer_vector = 0x65;
constexpr u8 pit_pin = 2; // ISA IRQ 0 by the usual override

unsigned pic_count;
unsigned level_count;
bool on_pic_counted(Frame&) {
    pic_count++;
    x86::out8(0x20, 0x20); // non-specific EOI
    return true;
}

// Interrupts on until `done` or about 100 ms of guest time.
template <typename F> bool wait_until(F done) {
    u64 const limit = x86::rdtsc() + clock::tsc_hz() / 10;
    while (!done() && x86::rdtsc() < limit)
        asm volatile("sti; nop; nop; nop; cli" : : : "memory");
    return done();
}

} // namespace

void pic() {
    expect("the PIT's interrupt is handed over open", 0, pic_mask_at_start & 1);
    pic_count = 0;
    set_handler(pic_vector, on_pic_counted);
    apic::write(apic::LvtLint0, apic::lvt_extint);
    x86::out8(0x21, 0xfe);
    clock::pit_start(0, 1000);
    expect_true("PIT by PIC and ExtINT", wait_until([] { return pic_count == 1; }));
    clock::pit_start(2, 1193); // 1 kHz
    wait_until([] { return pic_count >= 11; });
    expect_true("periodic PIT by PIC", pic_count >= 11);
    x86::out8(0x21, 0xff);
    unsigned const masked_at = pic_count;
    clock::pit_start(0, 1000);
    wait_until([=] { return pic_count > masked_at + 1; });
    expect_true("masked PIC delivers at most what was on its way", pic_count <= masked_at + 1);
    x86::out8(0x20, 0x0a); // OCW3: read IRR next
    expect_true("the masked request is in the PIC's IRR", (x86::in8(0x20) & 1) != 0);
    apic::write(apic::LvtLint0, apic::lvt_masked);
    set_handler(pic_vector, nullptr);
}

void io_apic() {
    expect_true("IOAPIC version in 0x11..0x20", (ioapic::read(1) & 0xff) >= 0x11 && (ioapic::read(1) & 0xff) <= 0x20);
    u32 const pins = (ioapic::read(1) >> 16 & 0xff) + 1;
    expect("IOAPIC has 24 pins", 24, pins);
    record_vector(pin_vector);
    record_start();
    ioapic::redirect(pit_pin, pin_vector);
    clock::pit_start(0, 1000);
    expect_true("edge by the IOAPIC", wait_until([] { return recorded() == 1; }));
    clock::pit_start(2, 1193);
    expect_true("ten edges", wait_until([] { return recorded() >= 11; }));
    ioapic::redirect(pit_pin, ioapic::masked | pin_vector);
    clock::pit_start(0, 0xffff);
    drain();
    // Level: the PIT's mode 0 output stays high once its count is over. The handler lowers it the second time: as long
    // as it is high, the interrupt comes again before the interrupted code gets a turn.
    level_count = 0;
    set_handler(pin_vector, [](Frame&) {
        expect_true("remote IRR while in service", (ioapic::entry(pit_pin) & ioapic::remote_irr) != 0);
        expect_true("TMR bit of a level interrupt", apic::bit(apic::Tmr, pin_vector));
        if (++level_count == 2) clock::pit_start(0, 0xffff); // output low
        apic::eoi();
        return true;
    });
    clock::pit_start(0, 1000);
    ioapic::redirect(pit_pin, ioapic::level | pin_vector);
    wait_until([] { return level_count >= 2; });
    expect("a level held up comes again after EOI, and ends when it goes down", 2, level_count);
    ioapic::redirect(pit_pin, ioapic::masked);
    drain();
    expect_true("remote IRR clear at last", (ioapic::entry(pit_pin) & ioapic::remote_irr) == 0);
}

void apic_timer() {
    record_vector(timer_vector);
    apic::write(apic::Tdcr, 0xb);
    apic::write(apic::LvtTimer, timer_vector);
    record_start();
    apic::write(apic::Tmict, 0xffffffff);
    u32 const first = apic::read(apic::Tmcct);
    make_exits(10);
    expect_true("the count goes down", apic::read(apic::Tmcct) < first);
    apic::write(apic::Tmict, 100'000);
    expect_true("one-shot", wait_until([] { return recorded() == 1; }));
    expect("one-shot ends at 0", 0, apic::read(apic::Tmcct));
    apic::write(apic::LvtTimer, apic::lvt_periodic | timer_vector);
    apic::write(apic::Tmict, 100'000);
    expect_true("periodic", wait_until([] { return recorded() >= 6; }));
    apic::write(apic::Tmict, 0);
    apic::write(apic::LvtTimer, apic::lvt_masked);
    drain();
    if (!apic::has_tsc_deadline()) {
        expect_true("no deadline MSR without the feature", try_execute([] { x86::rdmsr(IA32_TSC_DEADLINE); }).is(GP));
        return;
    }
    record_start();
    apic::write(apic::LvtTimer, apic::lvt_tsc_deadline | timer_vector);
    asm volatile("mfence" : : : "memory");
    u64 const deadline = x86::rdtsc() + clock::tsc_hz() / 200;
    x86::wrmsr(IA32_TSC_DEADLINE, deadline);
    expect("deadline reads back", deadline, x86::rdmsr(IA32_TSC_DEADLINE));
    expect("count register reads 0 in deadline mode", 0, apic::read(apic::Tmcct));
    expect_true("deadline fires", wait_until([] { return recorded() == 1; }));
    u64 const late = x86::rdtsc() - deadline;
    expect_true("not early", late < 1ULL << 63);
    expect_true("not 2 ms late", late < clock::tsc_hz() / 500);
    expect("deadline reads 0 after firing", 0, x86::rdmsr(IA32_TSC_DEADLINE));
    x86::wrmsr(IA32_TSC_DEADLINE, 1); // long past
    expect_true("a past deadline fires at once", wait_until([] { return recorded() == 2; }));
    apic::write(apic::LvtTimer, apic::lvt_masked);
    drain();
}

} // namespace behave
