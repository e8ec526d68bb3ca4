// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/calendar.hpp>
#include <platform/rtc.hpp>

namespace platform {
namespace {

// Register numbers and bits as in [motorola/mc146818].
constexpr u8 SECONDS = 0x00, SECONDS_ALARM = 0x01, MINUTES = 0x02, MINUTES_ALARM = 0x03, HOURS = 0x04,
             HOURS_ALARM = 0x05, DAY_OF_WEEK = 0x06, DATE_OF_MONTH = 0x07, MONTH = 0x08, YEAR = 0x09, REGISTER_A = 0x0a,
             REGISTER_B = 0x0b, REGISTER_C = 0x0c, REGISTER_D = 0x0d;
constexpr u8 CENTURY = 0x32; // where the FADT says that it is
constexpr u8 UIP = 0x80, divider_reset = 0x60, rate_select = 0x0f;
constexpr u8 SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, SQWE = 0x08, DM_binary = 0x04, hours_24 = 0x02;
constexpr u8 IRQF = 0x80, PF = 0x40, AF = 0x20, UF = 0x10;
constexpr u8 VRT = 0x80;
constexpr u8 pm = 0x80;
constexpr u8 alarm_any = 0xc0;
constexpr u64 second_ns = lib::nanos_per_second;
constexpr u64 uip_lead_ns = 244'000; // t_BUC
constexpr u64 never = ~u64{0};
constexpr u32 invalid = ~0U;

constexpr u8 encode_bcd(u32 value) { return static_cast<u8>(value / 10 % 10 << 4 | value % 10); }

} // namespace

Rtc::Rtc(Plug const& plug)
    : host_(plug.host), wires_(plug.wires), update_timer_(plug.host, plug.device, Update),
      periodic_timer_(plug.host, plug.device, Periodic) {
    fill_cmos(plug.facts);
    cmos(REGISTER_A) = 0x26; // 32.768 kHz, 1024 Hz periodic rate, as PC firmware leaves it
    cmos(REGISTER_B) = hours_24;
    state_.base_second = state_.seen_second = plug.facts.wall_clock_at_start_seconds;
    state_.base_moment = host_.now().value;
    state_.is_running = 1;
    state_.seen_period = period_now();
}

// What a PC BIOS leaves for operating systems that still look here.
void Rtc::fill_cmos(MachineFacts const& facts) {
    auto const set16 = [this](u8 index, u64 value) {
        u64 const limited = std::min<u64>(value, 0xffff);
        cmos(index) = static_cast<u8>(limited);
        cmos(static_cast<u8>(index + 1)) = static_cast<u8>(limited >> 8);
    };
    auto const above = [&facts](u64 start) { return facts.ram_below_4g > start ? facts.ram_below_4g - start : 0; };
    cmos(0x14) = 0x02; // equipment: a maths coprocessor
    set16(0x15, 640);
    set16(0x17, above(lib::MiB) / lib::KiB);
    set16(0x30, above(lib::MiB) / lib::KiB);
    set16(0x34, above(16 * lib::MiB) / (64 * lib::KiB));
    u64 const high = facts.ram_above_4g / (64 * lib::KiB);
    set16(0x5b, high & 0xffff);
    cmos(0x5d) = static_cast<u8>(high >> 16);
    cmos(0x5f) = static_cast<u8>(std::clamp(facts.vcpu_count, 1U, 256U) - 1);
    u32 sum = 0;
    for (u8 i = 0x10; i < 0x2e; i++)
        sum += cmos(i);
    cmos(0x2e) = static_cast<u8>(sum >> 8);
    cmos(0x2f) = static_cast<u8>(sum);
}

// The RESET pin clears enables and flags; clock and memory go on.
void Rtc::reset() {
    collect_flags();
    cmos(REGISTER_B) &= static_cast<u8>(~(PIE | AIE | UIE | SQWE));
    cmos(REGISTER_C) = 0;
    update_interrupt();
    arm();
}

IoReply Rtc::io(IoRequest const& request) {
    u8 const value = static_cast<u8>(request.data);
    bool const is_data = (request.offset & 1) != 0;
    bool const is_upper = (request.offset & 2) != 0;
    u8 const index = is_upper ? state_.upper_index | 0x80 : state_.index;
    if (request.op == Op::Read) {
        if (!is_data) return floating_bus; // the index ports are write-only
        return {read(index)};
    }
    if (is_data)
        write(index, value);
    else // bit 7 of port 0x70 masks NMIs, which nothing here raises
        (is_upper ? state_.upper_index : state_.index) = value & 0x7f;
    return {};
}

u8 Rtc::read(u8 index) {
    switch (index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case DAY_OF_WEEK:
    case DATE_OF_MONTH:
    case MONTH:
    case YEAR:
    case CENTURY: return read_time(index);
    case REGISTER_A: return static_cast<u8>(cmos(REGISTER_A) | (is_update_in_progress() ? UIP : 0));
    case REGISTER_C: return read_c();
    case REGISTER_D: return VRT;
    default: return cmos(index);
    }
}

void Rtc::write(u8 index, u8 value) {
    switch (index) {
    case SECONDS:
    case MINUTES:
    case HOURS:
    case DAY_OF_WEEK:
    case DATE_OF_MONTH:
    case MONTH:
    case YEAR:
    case CENTURY: return write_time(index, value);
    case SECONDS_ALARM:
    case MINUTES_ALARM:
    case HOURS_ALARM:
        collect_flags(); // the old alarm up to now
        cmos(index) = value;
        return arm();
    case REGISTER_A: return write_a(value);
    case REGISTER_B: return write_b(value);
    case REGISTER_C:
    case REGISTER_D: return;
    default: cmos(index) = value; return;
    }
}

u64 Rtc::second() const { return state_.base_second + (host_.now().value - state_.base_moment) / second_ns; }

bool Rtc::is_update_in_progress() const {
    u64 const phase = (host_.now().value - state_.base_moment) % second_ns;
    return state_.is_running != 0 && phase >= second_ns - uip_lead_ns;
}

u8 Rtc::encode(u32 value) const {
    return (cmos(REGISTER_B) & DM_binary) != 0 ? static_cast<u8>(value) : encode_bcd(value);
}

u32 Rtc::decode(u8 value) const {
    if ((cmos(REGISTER_B) & DM_binary) != 0) return value;
    u32 const low = value & 0xf, high = value >> 4;
    return low > 9 || high > 9 ? invalid : high * 10 + low;
}

u8 Rtc::encode_hour(u32 hour) const {
    if ((cmos(REGISTER_B) & hours_24) != 0) return encode(hour);
    u32 const twelve = hour % 12 == 0 ? 12 : hour % 12;
    return static_cast<u8>(encode(twelve) | (hour >= 12 ? pm : 0));
}

u32 Rtc::decode_hour(u8 value) const {
    if ((cmos(REGISTER_B) & hours_24) != 0) return decode(value);
    u32 const twelve = decode(value & 0x7f);
    if (twelve < 1 || twelve > 12) return invalid;
    return twelve % 12 + ((value & pm) != 0 ? 12 : 0);
}

u8 Rtc::read_time(u8 index) const {
    if (state_.is_running == 0) return cmos(index);
    CivilTime const time = civil_from_seconds(second());
    switch (index) {
    case SECONDS: return encode(time.second);
    case MINUTES: return encode(time.minute);
    case HOURS: return encode_hour(time.hour);
    case DAY_OF_WEEK: return encode((time.weekday + state_.weekday_shift) % 7 + 1);
    case DATE_OF_MONTH: return encode(time.day);
    case MONTH: return encode(time.month);
    case YEAR: return encode(time.year % 100);
    default: return encode(time.year / 100);
    }
}

// From the running clock into the registers.
void Rtc::store_time() {
    for (u8 const index : {SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DATE_OF_MONTH, MONTH, YEAR, CENTURY})
        cmos(index) = read_time(index);
}

// From the registers into the clock; the phase of the seconds stays.
void Rtc::load_time() {
    CivilTime const time{decode(cmos(CENTURY)) % 100 * 100 + decode(cmos(YEAR)) % 100,
                         decode(cmos(MONTH)),
                         decode(cmos(DATE_OF_MONTH)),
                         decode_hour(cmos(HOURS)),
                         decode(cmos(MINUTES)),
                         decode(cmos(SECONDS)),
                         0};
    u64 const now = host_.now().value;
    state_.base_moment = now - (now - state_.base_moment) % second_ns;
    state_.base_second = state_.seen_second = seconds_from_civil(time);
    u32 const calendar_day = civil_from_seconds(state_.base_second).weekday;
    state_.weekday_shift = static_cast<u8>((decode(cmos(DAY_OF_WEEK)) % 7 + 6 + 7 - calendar_day) % 7);
}

void Rtc::write_time(u8 index, u8 value) {
    if (state_.is_running == 0) {
        cmos(index) = value;
        return;
    }
    collect_flags();
    store_time();
    cmos(index) = value;
    load_time();
    arm();
}

void Rtc::run_or_stop() {
    bool const run = (cmos(REGISTER_B) & SET) == 0 && (cmos(REGISTER_A) & divider_reset) != divider_reset;
    if (run == (state_.is_running != 0)) return;
    if (run)
        load_time();
    else
        store_time();
    state_.is_running = run;
}

void Rtc::write_a(u8 value) {
    collect_flags();
    bool const was_reset = (cmos(REGISTER_A) & divider_reset) == divider_reset;
    cmos(REGISTER_A) = value & 0x7f;
    // The first update comes half a second after the divider is released.
    if (was_reset && (value & divider_reset) != divider_reset) state_.base_moment = host_.now().value - second_ns / 2;
    run_or_stop();
    state_.seen_period = period_now();
    arm();
}

void Rtc::write_b(u8 value) {
    collect_flags();
    if ((value & SET) != 0) value &= static_cast<u8>(~UIE);
    // Stored times are read in the mode that holds when the clock starts.
    bool const stops = (value & SET) != 0 && (cmos(REGISTER_B) & SET) == 0;
    if (stops) {
        cmos(REGISTER_B) |= SET;
        run_or_stop();
    }
    cmos(REGISTER_B) = value;
    run_or_stop();
    update_interrupt();
    arm();
}

u8 Rtc::read_c() {
    collect_flags();
    update_interrupt();
    u8 const value = cmos(REGISTER_C);
    cmos(REGISTER_C) = 0;
    update_interrupt();
    arm();
    return value;
}

// Periods of the selected rate since the machine's start; 0 when none is selected.
u64 Rtc::period_now() const {
    u32 const rate = cmos(REGISTER_A) & rate_select;
    if (rate == 0) return 0;
    return RtcClock::ticks(host_.now()) >> (rate <= 2 ? rate + 6 : rate - 1);
}

// The first second after `after` that the alarm registers match. Each step jumps to the next match of one register, and
// a register falls back at most once for each register above it: eight steps are plenty.
u64 Rtc::next_alarm(u64 after) const {
    u8 const raw_hour = cmos(HOURS_ALARM), raw_minute = cmos(MINUTES_ALARM), raw_second = cmos(SECONDS_ALARM);
    bool const any_hour = raw_hour >= alarm_any, any_minute = raw_minute >= alarm_any,
               any_second = raw_second >= alarm_any;
    u32 const hour = any_hour ? 0 : decode_hour(raw_hour);
    u32 const minute = any_minute ? 0 : decode(raw_minute);
    u32 const second_wanted = any_second ? 0 : decode(raw_second);
    if (hour > 23 || minute > 59 || second_wanted > 59) return never;
    u64 at = after + 1;
    for (u32 step = 0; step < 8; step++) {
        if (u64 const now = at / 3600 % 24; !any_hour && now != hour)
            at = (at / 3600 + (hour + 24 - now) % 24) * 3600;
        else if (u64 const in_hour = at / 60 % 60; !any_minute && in_hour != minute)
            at = (at / 60 + (minute + 60 - in_hour) % 60) * 60;
        else if (u64 const in_minute = at % 60; !any_second && in_minute != second_wanted)
            at += (second_wanted + 60 - in_minute) % 60;
        else
            return at;
    }
    return never;
}

void Rtc::collect_flags() {
    u8& flags = cmos(REGISTER_C);
    if (state_.is_running != 0) {
        u64 const now = second();
        if (now > state_.seen_second) {
            flags |= UF;
            if ((flags & AF) == 0 && next_alarm(state_.seen_second) <= now) flags |= AF;
            state_.seen_second = now;
        }
    }
    u64 const period = period_now();
    if (period > state_.seen_period) flags |= PF;
    state_.seen_period = period;
}

void Rtc::update_interrupt() {
    u8& flags = cmos(REGISTER_C);
    bool const asserted = (flags & cmos(REGISTER_B) & (PF | AF | UF)) != 0;
    flags = static_cast<u8>((flags & ~IRQF) | (asserted ? IRQF : 0));
    bool const is_alarm = (flags & cmos(REGISTER_B) & AF) != 0;
    bool const is_new_alarm = is_alarm && state_.alarm_line == 0;
    state_.alarm_line = is_alarm;
    if (is_new_alarm && alarm_) alarm_();
    if (asserted == (state_.line != 0)) return;
    state_.line = asserted;
    wires_.set_irq_line(irq, asserted);
}

// While the line is up nothing new can be seen before register C is read, and no timer runs; except for the alarm,
// which is also an event of ACPI.
void Rtc::arm() {
    u8 const enables = cmos(REGISTER_B);
    bool const can_rise = state_.line == 0;
    u64 next = never;
    if (state_.is_running != 0) {
        if (can_rise && (enables & UIE) != 0)
            next = second() + 1;
        else if ((enables & AIE) != 0 && (cmos(REGISTER_C) & AF) == 0)
            next = next_alarm(second());
    }
    if (next == never)
        update_timer_.cancel();
    else
        update_timer_.arm(Nanos{state_.base_moment + (next - state_.base_second) * second_ns});

    u32 const rate = cmos(REGISTER_A) & rate_select;
    if (!can_rise || (enables & PIE) == 0 || rate == 0)
        periodic_timer_.cancel();
    else
        periodic_timer_.arm(RtcClock::moment((period_now() + 1) << (rate <= 2 ? rate + 6 : rate - 1)));
}

void Rtc::on(Event const& event) {
    if (!update_timer_.accepts(event) && !periodic_timer_.accepts(event)) return;
    collect_flags();
    update_interrupt();
    arm();
}

lib::Result<void> Rtc::restore(State const& state) {
    if (state.is_running > 1 || state.line > 1 || state.alarm_line > 1 || state.index > 0x7f ||
        state.upper_index > 0x7f || state.weekday_shift > 6 || state.base_second >> 40 != 0 ||
        state.seen_second >> 40 != 0)
        return lib::fail(lib::Errc::BadFormat);
    state_ = state;
    arm();
    return {};
}

} // namespace platform
