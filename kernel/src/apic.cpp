// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/apic.hpp>
#include <kernel/cpu.hpp>
#include <kernel/page_table.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {
namespace {

namespace x86 = lib::x86;
using lib::u32;
using lib::u64;
using lib::u8;

constinit LocalApic the_apic;

// Register offsets in the page; in x2APIC mode MSR 0x800 + offset / 16. [intel/vol3] table 12-1
constexpr u32 ID = 0x20, TPR = 0x80, EOI = 0xb0, SVR = 0xf0, ICR_LOW = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320,
              LVT_LINT0 = 0x350, LVT_LINT1 = 0x360, LVT_ERROR = 0x370, TIMER_INITIAL = 0x380, TIMER_CURRENT = 0x390,
              TIMER_DIVIDE = 0x3e0;
constexpr u32 svr_enable = 1U << 8;
constexpr u32 lvt_masked = 1U << 16;
constexpr u32 lvt_nmi = 4U << 8;
constexpr u32 timer_tsc_deadline = 2U << 17;
constexpr u32 divide_by_1 = 0xb;
constexpr u32 icr_pending = 1U << 12, icr_assert = 1U << 14, icr_init = 5U << 8, icr_startup = 6U << 8,
              icr_nmi = 4U << 8, icr_all_but_self = 3U << 18;
constexpr u64 base_enable = 1U << 11, base_x2apic = 1U << 10;

} // namespace

LocalApic& local_apic() { return the_apic; }

u32 LocalApic::read(u32 offset) const {
    if (x2apic_) return static_cast<u32>(x86::rdmsr(x86::IA32_X2APIC_BASE + offset / 16));
    return x86::load32(page_ + offset);
}

void LocalApic::write(u32 offset, u32 value) const {
    if (x2apic_)
        x86::wrmsr(x86::IA32_X2APIC_BASE + offset / 16, value);
    else
        x86::store32(page_ + offset, value);
}

bool LocalApic::is_handed_over_in_x2apic() { return (x86::rdmsr(x86::IA32_APIC_BASE) & base_x2apic) != 0; }

lib::Result<void> LocalApic::enable(bool x2apic) {
    LocalApic& apic = the_apic;
    u64 base = x86::rdmsr(x86::IA32_APIC_BASE);
    apic.x2apic_ = x2apic;
    apic.tsc_deadline_ = cpu_features().tsc_deadline;
    if (apic.x2apic_) {
        // Through xAPIC mode: disabled → x2APIC in one step is not allowed. [intel/vol3] figure 12-27
        if ((base & base_enable) == 0) x86::wrmsr(x86::IA32_APIC_BASE, base | base_enable);
        x86::wrmsr(x86::IA32_APIC_BASE, base | base_enable | base_x2apic);
    } else {
        if ((base & base_x2apic) != 0) { // back only by way of an APIC that is off
            base &= ~(base_enable | base_x2apic);
            x86::wrmsr(x86::IA32_APIC_BASE, base);
        }
        x86::wrmsr(x86::IA32_APIC_BASE, base | base_enable);
        if (apic.page_ == 0) apic.page_ = TRY(map_device(HostPhys{base & 0xf'ffff'ffff'f000}, lib::page_size)).value;
    }
    apic.write(LVT_TIMER, lvt_masked);
    apic.write(LVT_LINT0, lvt_masked);
    apic.write(LVT_ERROR, lvt_masked);
    apic.write(TPR, 0);
    apic.write(SVR, svr_enable | vectors::spurious);
    apic.write(LVT_LINT1, lvt_nmi); // behind SVR: an APIC that is off keeps its masks. [intel/vol3] 12.4.7.2
    // Forget interrupts that the firmware left in service: each EOI clears one.
    for (int i = 0; i < 256; i++) {
        bool in_service = false;
        for (u32 word = 0; word < 8; word++)
            in_service |= apic.read(0x100 + word * 0x10) != 0;
        if (!in_service) break;
        apic.write(EOI, 0);
    }
    if (apic.tsc_deadline_) {
        apic.write(LVT_TIMER, timer_tsc_deadline | vectors::timer);
        // The mode must be set before the first deadline; [intel/vol3] 12.5.4.1 asks for a fence in xAPIC mode.
        asm volatile("mfence" : : : "memory");
    } else {
        apic.write(TIMER_DIVIDE, divide_by_1);
        apic.write(LVT_TIMER, vectors::timer);
    }
    return {};
}

void LocalApic::end_of_interrupt() const { write(EOI, 0); }

u32 LocalApic::id() const { return x2apic_ ? read(ID) : read(ID) >> 24; }

void LocalApic::arm_timer(u64 deadline_tsc) const {
    if (tsc_deadline_) {
        // 0 would disarm. [intel/vol3] 12.5.4.1
        x86::wrmsr(x86::IA32_TSC_DEADLINE, deadline_tsc == TimerQueue::never ? 0 : std::max<u64>(deadline_tsc, 1));
        return;
    }
    u32 count = 0;
    if (deadline_tsc != TimerQueue::never) {
        u64 const now_tsc = x86::rdtsc();
        u64 const ahead = deadline_tsc > now_tsc ? deadline_tsc - now_tsc : 0;
        auto const ticks = static_cast<u64>((lib::u128{ahead} * timer_ticks_per_tsc_) >> 32);
        // Too far for the counter: it fires early, and the queue arms it again.
        count = static_cast<u32>(std::min<u64>(std::max<u64>(ticks, 1), ~u32{0}));
    }
    write(TIMER_INITIAL, count);
}

void LocalApic::calibrate_timer(u64 tsc_hz) {
    if (tsc_deadline_) return;
    u64 const window = tsc_hz / 1000; // 1 ms
    write(LVT_TIMER, lvt_masked | vectors::timer);
    write(TIMER_INITIAL, ~u32{0});
    u64 const begin = x86::rdtsc();
    u32 const first = read(TIMER_CURRENT);
    u64 elapsed = 0;
    while ((elapsed = x86::rdtsc() - begin) < window)
        x86::pause();
    u32 const counted = first - read(TIMER_CURRENT);
    write(TIMER_INITIAL, 0);
    write(LVT_TIMER, vectors::timer);
    timer_ticks_per_tsc_ = (u64{counted} << 32) / elapsed;
    if (timer_ticks_per_tsc_ == 0) timer_ticks_per_tsc_ = 1;
}

void LocalApic::write_icr(u32 apic_id, u32 low) const {
    if (x2apic_) {
        x86::fence_before_apic(); // what the IPI tells of must be seen by its receiver
        x86::wrmsr(x86::IA32_X2APIC_BASE + ICR_LOW / 16, u64{apic_id} << 32 | low);
        return;
    }
    for (u32 i = 0; i < 1'000'000 && (read(ICR_LOW) & icr_pending) != 0; i++)
        x86::pause();
    write(ICR_HIGH, apic_id << 24);
    write(ICR_LOW, low);
}

void LocalApic::send_ipi(u32 apic_id, u8 vector) const { write_icr(apic_id, icr_assert | vector); }
void LocalApic::send_init(u32 apic_id) const { write_icr(apic_id, icr_assert | icr_init); }
void LocalApic::send_startup(u32 apic_id, u8 page) const { write_icr(apic_id, icr_assert | icr_startup | page); }
void LocalApic::send_nmi_to_others() const { write_icr(0, icr_all_but_self | icr_assert | icr_nmi); }
void LocalApic::send_to_others(u8 vector) const { write_icr(0, icr_all_but_self | icr_assert | vector); }

} // namespace kernel
