// SPDX-License-Identifier: MIT
// Clocks against each other, the UART, and how instructions meet the IOAPIC's registers.
#include "behave/behave.hpp"

namespace behave {
namespace {

// Within half a percent; prints both numbers otherwise.
void expect_close(std::string_view what, u64 expected, u64 found) {
    u64 const difference = expected > found ? expected - found : found - expected;
    if (difference > expected / 200) fail(what, expected, found);
}

u64 tsc_hz_by_pit() {
    clock::pit_start(2, 0xffff);
    u16 const first = clock::pit_count();
    u64 const start = x86::rdtsc();
    u32 passed = 0;
    u16 last = first;
    while (passed < clock::pit_hz / 20) { // 50 ms: just short of one turn
        u16 const now = clock::pit_count();
        passed += last >= now ? last - now : last + 0xffffU - now;
        last = now;
    }
    u64 const ticks = x86::rdtsc() - start;
    clock::pit_start(0, 0);
    return ticks * clock::pit_hz / passed;
}

u64 tsc_hz_by_rtc() {
    u8 const first = clock::rtc(0);
    while (clock::rtc(0) == first)
        x86::pause();
    u64 const start = x86::rdtsc();
    u8 const second = clock::rtc(0);
    while (clock::rtc(0) == second)
        x86::pause();
    return x86::rdtsc() - start;
}

void uart_put(u8 value) { x86::out8(0x3f8, value); }

constexpr u64 data = ioapic_page + 0x10;
void select(u32 index) { x86::store32(ioapic_page, index); }

void mmio_arithmetic() {
    select(0x13); // high half of pin 1: only bits 31:24 hold
    x86::store32(data, 0xab000000);
    u32 value = 0;
    asm volatile("movl (%1), %0" : "=r"(value) : "r"(data) : "memory");
    expect("MOV load", 0xab000000, value);
    asm volatile("orl %0, (%1)" : : "r"(0x11000000U), "r"(data) : "memory");
    expect("OR to memory", 0xbb000000, x86::load32(data));
    asm volatile("andl %0, (%1)" : : "r"(0x0f000000U), "r"(data) : "memory");
    expect("AND to memory", 0x0b000000, x86::load32(data));
    asm volatile("xorl $0x01000000, (%0)" : : "r"(data) : "memory");
    expect("XOR with an immediate", 0x0a000000, x86::load32(data));
    asm volatile("addl %0, (%1)" : : "r"(0x01000000U), "r"(data) : "memory");
    expect("ADD to memory", 0x0b000000, x86::load32(data));
    value = 0x22000000;
    asm volatile("xchgl %0, (%1)" : "+r"(value) : "r"(data) : "memory");
    expect("XCHG gives the old value", 0x0b000000, value);
    expect("XCHG stores the new one", 0x22000000, x86::load32(data));
    asm volatile("movl $0x33000000, (%0)" : : "r"(data) : "memory");
    expect("MOV of an immediate", 0x33000000, x86::load32(data));
}

void mmio_compare() {
    u32 old = 0x33000000;
    bool equal = false;
    asm volatile("lock cmpxchgl %3, (%2)" : "+a"(old), "=@ccz"(equal) : "r"(data), "r"(0x44000000U) : "memory");
    expect_true("CMPXCHG finds it equal", equal);
    expect("CMPXCHG stores", 0x44000000, x86::load32(data));
    u64 flags = 0;
    asm volatile("testl %1, (%2); pushfq; popq %0" : "=r"(flags) : "r"(0x04000000U), "r"(data) : "memory");
    expect("TEST sets ZF", 0, flags >> 6 & 1);
    asm volatile("cmpl %1, (%2); pushfq; popq %0" : "=r"(flags) : "r"(0x44000000U), "r"(data) : "memory");
    expect("CMP sets ZF", 1, flags >> 6 & 1);
}

// CMPS, SCAS, XADD, a bit string and a move to and from an XMM register.
void mmio_others() {
    x86::store32(data, 0x44000000);
    u32 const same = 0x44000000;
    bool equal = false;
    void const* source = &same;
    void const* target = reinterpret_cast<void const*>(data);
    asm volatile("cmpsl" : "+S"(source), "+D"(target), "=@ccz"(equal) : : "memory");
    expect_true("CMPS with MMIO finds it equal", equal);
    target = reinterpret_cast<void const*>(data);
    asm volatile("scasl" : "+D"(target), "=@ccz"(equal) : "a"(0x45000000U) : "memory");
    expect_true("SCAS on MMIO finds it different", !equal);
    expect("and steps", data + 4, reinterpret_cast<u64>(target));
    u32 value = 0x01000000;
    asm volatile("lock xaddl %0, (%1)" : "+r"(value) : "r"(data) : "memory");
    expect("XADD gives the old value", 0x44000000, value);
    expect("XADD stores the sum", 0x45000000, x86::load32(data));
    bool was_set = true;
    asm volatile("btsl %2, (%1)" : "=@ccc"(was_set) : "r"(data - 16), "r"(16 * 8 + 31) : "memory");
    expect_true("BTS beyond its operand finds a clear bit", !was_set);
    expect("BTS beyond its operand sets it", 0xc5000000, x86::load32(data));
    u64 const cr4 = x86::read_cr4();
    constexpr u64 osfxsr = 0x200;
    x86::write_cr4(cr4 | osfxsr);
    asm volatile("movd (%1), %%xmm3; movd %%xmm3, %0" : "=r"(value) : "r"(data) : "memory");
    expect("MOVD from MMIO", 0xc5000000, value);
    asm volatile("movd %0, %%xmm3; movd %%xmm3, (%1)" : : "r"(0x44000000U), "r"(data) : "memory");
    expect("MOVD to MMIO", 0x44000000, x86::load32(data));
    x86::write_cr4(cr4);
}

} // namespace

void guest_time() {
    if (!clock::has_pm_timer()) {
        fail("PM timer runs", 1, 0);
        return;
    }
    u64 const by_pm = clock::tsc_hz_by_pm(50);
    print("guest: tsc {} Hz by the PM timer\n", by_pm);
    expect_close("TSC by the PIT", by_pm, tsc_hz_by_pit());
    expect_close("TSC by the RTC", by_pm, tsc_hz_by_rtc());
    if (u64 const told = clock::tsc_hz_by_cpuid(); told != 0)
        expect_close("TSC as CPUID tells", told, by_pm);
    else
        print("guest: CPUID tells no TSC frequency\n");
    u32 last = clock::pm_timer();
    u64 backwards = 0;
    for (unsigned i = 0; i < 2000; i++) {
        u32 const now = clock::pm_timer();
        if (((now - last) & 0xffffff) > 0x7fffff) backwards++;
        last = now;
    }
    expect("PM timer never runs backwards", 0, backwards);
    u64 tsc = x86::rdtsc();
    for (unsigned i = 0; i < 2000; i++) {
        u64 const now = x86::rdtsc();
        if (now < tsc) backwards++;
        tsc = now;
        if ((i & 63) == 0) x86::cpuid(0);
    }
    expect("TSC never runs backwards", 0, backwards);
}

void uart() {
    for (u32 i = 0; i < 1'000'000 && (x86::in8(0x3fd) & 0x40) == 0; i++)
        x86::pause();       // nothing of ours may be in loopback
    x86::out8(0x3fc, 0x13); // MCR: loop, RTS, DTR [ns/pc16550d] 8.6
    expect("modem status in loopback shows RTS and DTR as CTS and DSR", 0x30, x86::in8(0x3fe) & 0xf0);
    x86::out8(0x3fa, 0x07);
    for (u8 i = 0; i < 8; i++) {
        uart_put(static_cast<u8>(0xa0 + i));
        for (u32 n = 0; n < 1'000'000 && (x86::in8(0x3fd) & 0x40) == 0; n++)
            x86::pause();
    }
    u64 wrong = 0;
    for (u8 i = 0; i < 8; i++) {
        for (u32 n = 0; n < 1'000'000 && (x86::in8(0x3fd) & 1) == 0; n++)
            x86::pause();
        wrong += x86::in8(0x3f8) != 0xa0 + i;
    }
    u8 const empty = x86::in8(0x3fd);
    x86::out8(0x3ff, 0x5a);
    u8 const scratch = x86::in8(0x3ff), identification = x86::in8(0x3fa);
    x86::out8(0x3fb, 0x83);
    x86::out8(0x3f8, 0x34);
    u8 const divisor = x86::in8(0x3f8);
    x86::out8(0x3f8, 1);
    x86::out8(0x3f9, 0);
    x86::out8(0x3fb, 0x03);
    x86::out8(0x3fa, 0x07);
    x86::out8(0x3fc, 0x03);
    expect("eight bytes through the looped FIFO", 0, wrong);
    expect("no data left", 0, empty & 1);
    expect("scratch register", 0x5a, scratch);
    expect("FIFO bits of IIR", 0xc0, identification & 0xc0);
    expect("divisor latch", 0x34, divisor);
}

void mmio_forms() {
    mmio_arithmetic();
    mmio_compare();
    mmio_others();
    u64 wide = ~0ULL;
    asm volatile("movl (%1), %k0" : "+r"(wide) : "r"(data) : "memory");
    expect("a 32-bit load clears the upper half", 0x44000000, wide);
    asm volatile("movslq (%1), %0" : "=r"(wide) : "r"(data) : "memory");
    expect("MOVSXD", 0x44000000, wide);
    select(0x13);
    u32 copy = 0;
    void* to = &copy;
    void const* from = reinterpret_cast<void const*>(data);
    asm volatile("movsl" : "+D"(to), "+S"(from) : : "memory");
    expect("MOVS from MMIO", 0x44000000, copy);
    to = reinterpret_cast<void*>(data);
    asm volatile("stosl" : "+D"(to) : "a"(0x55000000U) : "memory");
    expect("STOS to MMIO", 0x55000000, x86::load32(data));
    select(0x10);
    u8 byte = 0;
    asm volatile("movzbl (%1), %k0" : "=r"(wide) : "r"(ioapic_page) : "memory");
    expect("MOVZX of the index", 0x10, wide & 0xff);
    asm volatile("movb (%1), %0" : "=r"(byte) : "r"(ioapic_page) : "memory");
    expect("byte load of the index", 0x10, byte);
    select(0x13);
    x86::store32(data, 0);
}

} // namespace behave
