// SPDX-License-Identifier: MIT
// Ports and MMIO of the platform's devices.
#include "bench/measure.hpp"

#include "runtime/apic.hpp"

namespace bench {
namespace {

std::array<char, 64> buffer{};
constexpr unsigned thr_samples = 16;

template <guest::u16 port> [[gnu::always_inline]] inline void rep_outsb() {
    void const* from = buffer.data();
    u64 count = buffer.size();
    asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}

[[gnu::always_inline]] inline void rep_insb() {
    void* to = buffer.data();
    u64 count = buffer.size();
    asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(0x3ff) : "memory");
}

} // namespace

void devices() {
    measure("in_pit_40", [] { x86::in8(0x40); });
    measure("out_pit_43", [] { x86::out8(0x43, 0); }); // latch counter 0
    measure("in_pic_21", [] { x86::in8(0x21); });
    measure("out_pic_21", [] { x86::out8(0x21, 0xff); });
    measure("in_uart_3fd", [] { x86::in8(0x3fd); });
    measure("out_uart_3ff", [] { asm volatile("outb %%al, %%dx" : : "a"(0), "d"(0x3ff) : "memory"); });
    buffer.fill('.');
    measure("rep_outsb64_uart_3ff", [] { rep_outsb<0x3ff>(); });
    measure("rep_insb64_uart_3ff", [] { rep_insb(); }, 256);
    buffer.fill('.');
    buffer.back() = '\n';
    guest::print("(64 bytes at a time to the transmitter:)\n");
    auto const transmit = [] { rep_outsb<0x3f8>(); };
    take_samples(4, thr_samples, transmit);
    guest::print("\n"); // a transmitter that drops bytes may have dropped the ends of lines
    report("rep_outsb64_uart_thr_3f8", thr_samples, empty_pair);
    guest::ioapic::read(1); // selects the version register
    measure("mmio_ioapic_rd32", [] { x86::load32(guest::ioapic_page + 0x10); });
    measure("mmio_ioapic_wr32", [] { x86::store32(guest::ioapic_page, 1); });
    // What a doorbell costs before anybody is told: writes to registers that do nothing, the POST code's and the high
    // half of the HPET's capabilities.
    measure("doorbell_pio", [] { x86::out8(0x80, 0); });
    measure("doorbell_mmio", [] { x86::store32(0xfed0'0004, 1); });
}

} // namespace bench
