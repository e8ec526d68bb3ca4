// SPDX-License-Identifier: MIT
// The HPET: its rate, one-shot and periodic interrupts in place of the PIT's and the RTC's. [intel/hpet] 2.3
#include "behave/behave.hpp"

namespace behave {
namespace {

constexpr u64 page = 0xfed0'0000, PERIOD = page + 4, CONFIG = page + 0x10, COUNTER = page + 0xf0;
constexpr u64 config_of(u32 timer) { return page + 0x100 + u64{timer} * 0x20; }
constexpr u64 comparator_of(u32 timer) { return config_of(timer) + 8; }
constexpr u32 ENABLE = 1, LEGACY_REPLACEMENT = 2;
constexpr u32 INTERRUPT = 1 << 2, PERIODIC = 1 << 3, VALUE_SET = 1 << 6, MODE_32 = 1 << 8;
constexpr u8 pit_pin = 2, rtc_pin = 8;

// Interrupts on until `done` or about 100 ms of guest time.
template <typename F> bool wait_until(F done) {
    u64 const limit = x86::rdtsc() + clock::tsc_hz() / 10;
    while (!done() && x86::rdtsc() < limit)
        asm volatile("sti; nop; nop; nop; cli" : : : "memory");
    return done();
}

void rate(u64 hz) {
    u64 const tsc_hz = clock::tsc_hz();
    u64 const start = x86::rdtsc();
    u32 const first = x86::load32(COUNTER);
    while (x86::rdtsc() - start < tsc_hz / 20)
        x86::pause();
    u64 const ticks = x86::load32(COUNTER) - first;
    u64 const expected = (x86::rdtsc() - start) * (hz / 1000) / (tsc_hz / 1000);
    u64 const difference = expected > ticks ? expected - ticks : ticks - expected;
    if (difference > expected / 200) fail("HPET ticks in 50 ms", expected, ticks);
}

} // namespace

void hpet() {
    u64 const period = x86::load32(PERIOD);
    expect_true("a tick of 0.1 to 100 ns", period >= 100'000 && period <= 100'000'000); // [intel/hpet] 2.3.4
    if (period < 100'000 || period > 100'000'000) return;
    u64 const hz = 1'000'000'000'000'000 / period;
    x86::store32(CONFIG, 0);
    u64 const stopped = x86::load64(COUNTER);
    expect("it stands while it is off", stopped, x86::load64(COUNTER));
    x86::store64(COUNTER, 0);
    x86::store32(CONFIG, ENABLE);
    rate(hz);

    record_vector(vector_low);
    record_vector(vector_middle);
    for (u32 const timer : {0U, 1U})
        x86::store32(config_of(timer), INTERRUPT | MODE_32);
    x86::store32(CONFIG, ENABLE | LEGACY_REPLACEMENT);
    ioapic::redirect(pit_pin, vector_low); // now, for the PIT may tick
    ioapic::redirect(rtc_pin, vector_middle);
    drain();
    record_start();
    u32 const millisecond = static_cast<u32>(hz / 1000);
    u32 const at = x86::load32(COUNTER) + 2 * millisecond;
    x86::store32(comparator_of(0), at);
    x86::store32(comparator_of(1), at + millisecond);
    wait_until([] { return recorded() >= 2; });
    expect("one-shots in place of PIT and RTC", 2, recorded());
    expect_true("not early", x86::load32(COUNTER) - at < 1U << 31);
    expect("the PIT's first", vector_low, record(0));
    expect("then the RTC's", vector_middle, record(1));

    record_start();
    x86::store32(config_of(0), INTERRUPT | MODE_32 | PERIODIC | VALUE_SET);
    u32 const first = x86::load32(COUNTER) + millisecond;
    x86::store32(comparator_of(0), first);
    x86::store32(comparator_of(0), millisecond);
    expect_true("ten periods", wait_until([] { return recorded() >= 10; }));
    u32 const passed = x86::load32(COUNTER) - first;
    expect_true("of 1 ms each", passed >= 9 * millisecond);
    x86::store32(config_of(0), MODE_32);
    drain();
    record_start();
    wait_until([] { return recorded() != 0; });
    expect("none when it is off", 0, recorded());
    ioapic::redirect(pit_pin, ioapic::masked);
    ioapic::redirect(rtc_pin, ioapic::masked);
    x86::store32(CONFIG, 0);
    drain();
}

} // namespace behave
