// SPDX-License-Identifier: MIT
#include "runtime/apic.hpp"

namespace guest::apic {

bool has_x2apic() { return cpuid_bit(1, 0, 'c', 21); }
bool has_tsc_deadline() { return cpuid_bit(1, 0, 'c', 24); }
bool is_x2apic() { return (x86::rdmsr(IA32_APIC_BASE) & apic_base_x2apic) != 0; }

bool enter_x2apic() {
    if (!has_x2apic()) return false;
    u64 const base = x86::rdmsr(IA32_APIC_BASE) | apic_base_enable;
    x86::wrmsr(IA32_APIC_BASE, base);
    x86::wrmsr(IA32_APIC_BASE, base | apic_base_x2apic);
    enable();
    return true;
}

void leave_x2apic() {
    u64 const base = x86::rdmsr(IA32_APIC_BASE) & ~(apic_base_enable | apic_base_x2apic);
    x86::wrmsr(IA32_APIC_BASE, base);
    x86::wrmsr(IA32_APIC_BASE, base | apic_base_enable);
    enable();
}

u32 read(Register r) {
    if (is_x2apic()) return static_cast<u32>(x86::rdmsr(0x800U + r));
    return x86::load32(apic_page + r * 16U);
}

void write(Register r, u32 value) {
    if (is_x2apic())
        x86::wrmsr(0x800U + r, value);
    else
        x86::store32(apic_page + r * 16U, value);
}

void eoi() { write(Eoi, 0); }

u32 lint0_at_start;

void enable() {
    write(Svr, 0x1ff);
    write(Tpr, 0);
    write(LvtTimer, lvt_masked);
    write(LvtLint0, lvt_masked);
    write(LvtError, lvt_masked);
    write(Tdcr, 0xb); // divide by 1
}

void self_ipi(u8 vector) {
    if (is_x2apic()) {
        x86::wrmsr(0x83f, vector);
        return;
    }
    write(Icr, 0x40000U | vector); // destination shorthand: self
    for (u32 i = 0; i < 100'000 && (read(Icr) & 0x1000) != 0; i++)
        x86::pause();
}

bool bit(Register bank, u8 vector) {
    return (read(static_cast<Register>(bank + vector / 32U)) >> (vector % 32U) & 1) != 0;
}

} // namespace guest::apic

namespace guest::ioapic {

u32 read(u8 index) {
    x86::store32(ioapic_page, index);
    return x86::load32(ioapic_page + 0x10);
}
void write(u8 index, u32 value) {
    x86::store32(ioapic_page, index);
    x86::store32(ioapic_page + 0x10, value);
}
void redirect(u8 pin, u64 entry) {
    write(static_cast<u8>(0x10 + pin * 2), static_cast<u32>(masked)); // never half an entry unmasked
    write(static_cast<u8>(0x11 + pin * 2), static_cast<u32>(entry >> 32));
    write(static_cast<u8>(0x10 + pin * 2), static_cast<u32>(entry));
}
u64 entry(u8 pin) {
    u64 const low = read(static_cast<u8>(0x10 + pin * 2));
    return u64{read(static_cast<u8>(0x11 + pin * 2))} << 32 | low;
}

} // namespace guest::ioapic
