// SPDX-License-Identifier: MIT
#include <platform/acpi_pm.hpp>

namespace platform {
namespace {

// [acpi] tables 4.13 to 4.15
constexpr u16 TMR_STS = 0x0001, PWRBTN_STS = 0x0100, RTC_STS = 0x0400;
constexpr u16 TMR_EN = 0x0001, GBL_EN = 0x0020, PWRBTN_EN = 0x0100, RTC_EN = 0x0400,
              enables = TMR_EN | GBL_EN | PWRBTN_EN | RTC_EN;
constexpr u16 SCI_EN = 0x0001, BM_RLD = 0x0002, SLP_TYP = 0x1c00, SLP_EN = 0x2000;
constexpr u32 slp_typ_shift = 10;
constexpr u32 timer_carry_shift = 31; // TMR_STS follows every change of the 32-bit timer's top bit

// `old` with the `size` bytes at `offset` replaced.
constexpr u32 merge(u32 old, u32 offset, u8 size, u32 value) {
    u32 const mask = (size >= 4 ? ~0U : (1U << (size * 8)) - 1) << (offset * 8);
    return (old & ~mask) | (value << (offset * 8) & mask);
}

} // namespace

void AcpiPm::reset() {
    state_.pm1_sts = state_.pm1_en = 0;
    state_.pm1_cnt = SCI_EN;
    state_.seen_carries = tick() >> timer_carry_shift;
    update();
}

IoReply AcpiPm::io(IoRequest const& request) {
    u32 const offset = static_cast<u32>(request.offset & 3);
    u32 const value = static_cast<u32>(request.data);
    if (request.region == PmTimer) [[likely]] {
        if (request.op == Op::Write) return {};
        return {static_cast<u32>(tick()) >> (offset * 8)};
    }
    if (request.region == Pm1Event) {
        if (request.op == Op::Read) return {read_event() >> (offset * 8)};
        write_event(offset, request.size, value);
        return {};
    }
    if (request.op == Op::Read) return {u32{state_.pm1_cnt} >> (offset * 8)};
    write_control(offset, request.size, value);
    return {};
}

void AcpiPm::collect_carry() {
    u64 const carries = tick() >> timer_carry_shift;
    if (carries != state_.seen_carries) state_.pm1_sts |= TMR_STS;
    state_.seen_carries = carries;
}

u32 AcpiPm::read_event() {
    collect_carry();
    return state_.pm1_sts | u32{state_.pm1_en} << 16;
}

void AcpiPm::write_event(u32 offset, u8 size, u32 value) {
    collect_carry();
    u32 const cleared = merge(0, offset, size, value) & 0xffff; // status bits are cleared by writing 1
    u32 const enabled = merge(u32{state_.pm1_en} << 16, offset, size, value) >> 16;
    state_.pm1_sts &= static_cast<u16>(~cleared);
    state_.pm1_en = static_cast<u16>(enabled & enables);
    update();
}

void AcpiPm::write_control(u32 offset, u8 size, u32 value) {
    u32 const merged = merge(state_.pm1_cnt, offset, size, value);
    state_.pm1_cnt = static_cast<u16>((merged & (BM_RLD | SLP_TYP)) | SCI_EN);
    bool const is_s5 = (merged & SLP_TYP) >> slp_typ_shift == s5_sleep_type;
    if ((merged & SLP_EN) != 0 && is_s5) host_.request(VmRequest::PowerOff);
}

void AcpiPm::update() {
    bool const asserted = (state_.pm1_sts & state_.pm1_en & (TMR_STS | PWRBTN_STS | RTC_STS)) != 0;
    if (asserted != (state_.line != 0)) {
        state_.line = asserted;
        wires_.set_irq_line(sci_gsi, asserted);
    }
    if ((state_.pm1_en & TMR_EN) != 0 && (state_.pm1_sts & TMR_STS) == 0)
        timer_.arm(PmClock::moment((state_.seen_carries + 1) << timer_carry_shift));
    else
        timer_.cancel();
}

void AcpiPm::on(Event const& event) {
    if (!timer_.accepts(event)) return;
    collect_carry();
    update();
}

void AcpiPm::power_button() {
    state_.pm1_sts |= PWRBTN_STS;
    update();
}

void AcpiPm::rtc_alarm() {
    state_.pm1_sts |= RTC_STS;
    update();
}

lib::Result<void> AcpiPm::restore(State const& state) {
    if (state.line > 1 || state.seen_carries > tick() >> timer_carry_shift) return lib::fail(lib::Errc::BadFormat);
    state_ = state;
    if (timer_.is_armed()) timer_.cancel();
    update();
    return {};
}

} // namespace platform
