// SPDX-License-Identifier: MIT
#include "runtime/clock.hpp"

namespace guest::clock {
namespace {
// Mullion and QEMU q35 have the PM block at 0x600, Bochs at 0xb000. [acpi] 4.8.3.3
u16 pm_port() {
    static u16 port = 0xffff;
    if (port != 0xffff) return port;
    for (u16 const candidate : {u16{0x608}, u16{0xb008}}) {
        u32 const first = x86::in32(candidate);
        for (u32 i = 0; i < 100'000; i++)
            if (u32 const now = x86::in32(candidate); now != first && now != ~0U) return port = candidate;
    }
    return port = 0;
}
} // namespace

bool has_pm_timer() { return pm_port() != 0; }
u32 pm_timer() { return x86::in32(pm_port()) & 0xffffff; }

void pit_start(u8 mode, u16 count) {
    x86::out8(0x43, static_cast<u8>(0x30 | mode << 1)); // [intel/8254] control word
    x86::out8(0x40, static_cast<u8>(count));
    x86::out8(0x40, static_cast<u8>(count >> 8));
}

u16 pit_count() {
    x86::out8(0x43, 0);
    u32 const low = x86::in8(0x40);
    return static_cast<u16>(u32{x86::in8(0x40)} << 8 | low);
}

u64 tsc_hz_by_pm(u32 milliseconds) {
    if (!has_pm_timer()) return 0;
    u64 const want = pm_hz * milliseconds / 1000;
    u32 const start = pm_timer();
    u64 const tsc = x86::rdtsc();
    u32 passed = 0;
    while ((passed = (pm_timer() - start) & 0xffffff) < want) {
    }
    return (x86::rdtsc() - tsc) * pm_hz / passed;
}

u64 tsc_hz_by_cpuid() {
    if (cpuid_bit(1, 0, 'c', 31) && x86::cpuid(0x40000000).eax >= 0x40000010)
        if (u64 const khz = x86::cpuid(0x40000010).eax; khz != 0)
            return khz * 1000; // timing leaf of several hypervisors
    if (x86::cpuid(0).eax >= 0x15) {
        auto const r = x86::cpuid(0x15);
        if (r.eax != 0 && r.ebx != 0 && r.ecx != 0) return u64{r.ecx} * r.ebx / r.eax; // [intel/vol3] 20.7.3
    }
    return 0;
}

u64 tsc_hz() {
    static u64 hz = 0;
    if (hz == 0) hz = tsc_hz_by_pm(20);
    if (hz == 0) hz = tsc_hz_by_cpuid();
    return hz;
}

u8 rtc(u8 index) {
    x86::out8(0x70, index);
    return x86::in8(0x71);
}

} // namespace guest::clock
