// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <platform/hpet.hpp>

namespace platform {
namespace {

// Registers and bits. [intel/hpet] 2.3
constexpr u64 CAPABILITIES = 0x00, CONFIGURATION = 0x10, INTERRUPT_STATUS = 0x20, MAIN_COUNTER = 0xf0, TIMERS = 0x100;
constexpr u64 timer_stride = 0x20, TIMER_CONFIGURATION = 0x00, TIMER_COMPARATOR = 0x08;
constexpr u32 ENABLE = 1 << 0, LEGACY_REPLACEMENT = 1 << 1;
constexpr u32 LEVEL_TRIGGERED = 1 << 1, INTERRUPT_ENABLE = 1 << 2, PERIODIC = 1 << 3, PERIODIC_CAPABLE = 1 << 4,
              IS_64_BITS = 1 << 5, VALUE_SET = 1 << 6, MODE_32 = 1 << 8, ROUTE = 0x1f << 9;
constexpr u32 route_shift = 9;
constexpr u32 writable = LEVEL_TRIGGERED | INTERRUPT_ENABLE | PERIODIC | VALUE_SET | MODE_32 | ROUTE;
constexpr u64 capabilities = u64{lib::layout::hpet_period_fs} << 32 | lib::layout::hpet_id;
constexpr u64 never = ~u64{0};

// Inputs 20 to 23 of the I/O APIC, which nothing else drives; the third comparator also reaches ISA IRQ 11, for those
// who know the 8259 pair only.
constexpr u32 routes_of(u32 number) { return 0x00f0'0000 | (number == 2 ? 1U << 11 : 0); }

constexpr u32 route_of(u32 config) { return (config & ROUTE) >> route_shift; }

} // namespace

Hpet::Hpet(Plug const& plug)
    : host_(plug.host), wires_(plug.wires),
      timers_{{{plug.host, plug.device, 0}, {plug.host, plug.device, 1}, {plug.host, plug.device, 2}}} {
    reset();
}

void Hpet::reset() {
    bool const replaced = replaces_legacy();
    u32 const lines = state_.lines;
    state_ = {};
    state_.lines = lines;
    for (TimerState& timer : state_.timers)
        timer.comparator = ~u64{0};
    drive();
    arm();
    if (replaced && legacy_changed_) legacy_changed_();
}

bool Hpet::replaces_legacy() const { return (state_.config & LEGACY_REPLACEMENT) != 0; }
bool Hpet::is_running() const { return (state_.config & ENABLE) != 0; }

u64 Hpet::count_at(u64 tick) const { return state_.base_count + (is_running() ? tick - state_.base_tick : 0); }

bool Hpet::is_level(TimerState const& timer) const { return (timer.config & LEVEL_TRIGGERED) != 0; }

u64 Hpet::mask_of(TimerState const& timer) const { return (timer.config & MODE_32) != 0 ? 0xffff'ffff : ~u64{0}; }

// The first tick not yet accounted for at which the counter shows what the comparator holds.
u64 Hpet::next_match(TimerState const& timer) const {
    u64 const distance = (timer.comparator - count_at(timer.met_until)) & mask_of(timer);
    return distance > never - timer.met_until ? never : timer.met_until + distance;
}

u32 Hpet::line_of(u32 number) const {
    return replaces_legacy() && number < 2 ? legacy_lines + number : route_of(state_.timers[number].config);
}

// Takes note of the matches up to `now`, and moves a periodic comparator on to the next, in one step however late.
void Hpet::meet(u32 number, u64 now) {
    TimerState& timer = state_.timers[number];
    u64 const first = next_match(timer);
    if (first > now) return;
    if (u64 const period = timer.period & mask_of(timer); (timer.config & PERIODIC) != 0 && period != 0)
        timer.comparator = (timer.comparator + ((now - first) / period + 1) * period) & mask_of(timer);
    timer.met_until = now + 1;
    if (is_level(timer)) {
        state_.status |= 1U << number;
        return;
    }
    if ((timer.config & INTERRUPT_ENABLE) == 0) return;
    for (u32 other = 0; other < timer_count; other++) // a new edge needs a line that is down
        if (line_of(other) == line_of(number)) state_.timers[other].has_edge = 0;
    drive();
    timer.has_edge = 1;
}

void Hpet::collect(u64 now) {
    if (!is_running()) return;
    for (u32 number = 0; number < timer_count; number++)
        meet(number, now);
    drive();
}

// Brings the host's lines in agreement with the state.
void Hpet::drive() {
    u32 wanted = 0;
    for (u32 number = 0; number < timer_count; number++) {
        TimerState const& timer = state_.timers[number];
        bool const is_up = is_level(timer) ? (state_.status >> number & 1) != 0 : timer.has_edge != 0;
        u32 const line = line_of(number);
        if (is_up && is_running() && (timer.config & INTERRUPT_ENABLE) != 0 && line != 0) wanted |= 1U << line;
    }
    u32 changed = wanted ^ state_.lines;
    state_.lines = wanted;
    for (; changed != 0; changed &= changed - 1) {
        u32 const line = static_cast<u32>(std::countr_zero(changed));
        wires_.set_irq_line(line, (wanted >> line & 1) != 0);
    }
}

// A comparator that interrupts nobody is computed when somebody looks; so is one whose level-triggered interrupt is up.
void Hpet::arm() {
    for (u32 number = 0; number < timer_count; number++) {
        TimerState const& timer = state_.timers[number];
        bool const waits = is_running() && (timer.config & INTERRUPT_ENABLE) != 0 && line_of(number) != 0 &&
                           (!is_level(timer) || (state_.status >> number & 1) == 0);
        u64 const match = waits ? next_match(timer) : never;
        if (match >= HpetClock::ticks(Nanos{~u64{0}}))
            timers_[number].cancel();
        else
            timers_[number].arm(HpetClock::moment(match));
    }
}

void Hpet::on(Event const& event) {
    bool mine = false;
    for (Timer& timer : timers_)
        mine |= timer.accepts(event);
    if (!mine) return;
    collect(tick());
    arm();
}

// The counter shows `count` at `tick`: no comparator knows what came before.
void Hpet::set_base(u64 count, u64 tick) {
    state_.base_count = count;
    state_.base_tick = tick;
    for (TimerState& timer : state_.timers)
        timer.met_until = tick;
}

IoReply Hpet::io(IoRequest const& request) {
    u64 const reg = request.offset & ~u64{7};
    u32 const shift = static_cast<u32>(request.offset & 7) * 8;
    if (request.op == Op::Read) {
        u64 value = read(reg) >> shift;
        if (request.size * 8 + shift > 64) value |= read(reg + 8) << (64 - shift); // 8 bytes across two registers
        return {value};
    }
    if (request.size < 4 || request.offset % 4 != 0) return {};
    u64 const now = tick();
    collect(now);
    if (request.size == 4) {
        write(now, reg, request.data << shift, u64{0xffff'ffff} << shift);
    } else if (shift == 0) {
        write(now, reg, request.data, ~u64{0});
    } else {
        write(now, reg, request.data << 32, ~u64{0} << 32);
        write(now, reg + 8, request.data >> 32, 0xffff'ffff);
    }
    collect(now); // a comparator that was set to what the counter shows
    drive();
    arm();
    return {};
}

u64 Hpet::read(u64 reg) {
    u64 const now = tick();
    if (reg == MAIN_COUNTER) return count_at(now);
    collect(now);
    arm();
    if (reg == CAPABILITIES) return capabilities;
    if (reg == CONFIGURATION) return state_.config;
    if (reg == INTERRUPT_STATUS) return state_.status;
    u64 const number = (reg - TIMERS) / timer_stride;
    if (reg < TIMERS || number >= timer_count) return 0;
    TimerState const& timer = state_.timers[number];
    switch ((reg - TIMERS) % timer_stride) {
    case TIMER_CONFIGURATION:
        return u64{routes_of(static_cast<u32>(number))} << 32 | PERIODIC_CAPABLE | IS_64_BITS |
               (timer.config & ~VALUE_SET);
    case TIMER_COMPARATOR: return timer.comparator & mask_of(timer);
    default: return 0;
    }
}

// `mask`: the bits that are written.
void Hpet::write(u64 now, u64 reg, u64 value, u64 mask) {
    auto const merged = [&](u64 old) { return (old & ~mask) | (value & mask); };
    if (reg == CONFIGURATION) return write_config(now, merged(state_.config));
    if (reg == INTERRUPT_STATUS) {
        state_.status &= static_cast<u32>(~(value & mask));
        return;
    }
    if (reg == MAIN_COUNTER) return set_base(merged(count_at(now)), now);
    u64 const number = (reg - TIMERS) / timer_stride;
    if (reg < TIMERS || number >= timer_count) return;
    TimerState& timer = state_.timers[number];
    u64 const which = (reg - TIMERS) % timer_stride;
    if (which == TIMER_CONFIGURATION) write_timer_config(timer, static_cast<u32>(number), merged(timer.config));
    if (which == TIMER_COMPARATOR) write_comparator(timer, now, value, mask);
}

void Hpet::write_config(u64 now, u64 value) {
    u32 const old = state_.config;
    u64 const count = count_at(now);
    state_.config = static_cast<u32>(value) & (ENABLE | LEGACY_REPLACEMENT);
    u32 const changed = old ^ state_.config;
    if ((changed & ENABLE) != 0) {
        set_base(count, now);
        for (TimerState& timer : state_.timers)
            timer.has_edge = 0;
    }
    if ((changed & LEGACY_REPLACEMENT) == 0) return;
    state_.timers[0].has_edge = state_.timers[1].has_edge = 0;
    drive();
    if (legacy_changed_) legacy_changed_();
}

void Hpet::write_timer_config(TimerState& timer, u32 number, u64 value) {
    u32 next = static_cast<u32>(value) & writable;
    if ((routes_of(number) >> route_of(next) & 1) == 0) next = (next & ~ROUTE) | (timer.config & ROUTE);
    if (((next ^ timer.config) & (LEVEL_TRIGGERED | ROUTE)) != 0 || (next & INTERRUPT_ENABLE) == 0) timer.has_edge = 0;
    if ((next & LEVEL_TRIGGERED) == 0) state_.status &= ~(1U << number);
    if ((next & MODE_32) != 0) { // the upper halves are lost [intel/hpet] 2.3.8
        timer.comparator &= 0xffff'ffff;
        timer.period &= 0xffff'ffff;
    }
    timer.config = next;
}

// In periodic mode a value is the period, and after VALUE_SET also the next match. [intel/hpet] 2.3.9.2.2
void Hpet::write_comparator(TimerState& timer, u64 now, u64 value, u64 mask) {
    auto const merged = [&](u64 old) { return ((old & ~mask) | (value & mask)) & mask_of(timer); };
    bool const is_periodic = (timer.config & PERIODIC) != 0;
    if (is_periodic) timer.period = merged(timer.period);
    if (!is_periodic || (timer.config & VALUE_SET) != 0) {
        timer.comparator = merged(timer.comparator);
        timer.met_until = now;
    }
    timer.config &= ~VALUE_SET;
}

lib::Result<void> Hpet::restore(State const& state) {
    u64 const now = tick();
    u32 possible = 0;
    for (u32 number = 0; number < timer_count; number++) {
        TimerState const& timer = state.timers[number];
        u32 const route = route_of(timer.config);
        if (timer.met_until > now + 1 || (timer.config & ~writable) != 0 || timer.has_edge > 1 ||
            (route != 0 && (routes_of(number) >> route & 1) == 0))
            return lib::fail(lib::Errc::BadFormat);
        possible |= routes_of(number);
    }
    possible |= 3U << legacy_lines;
    if (state.base_tick > now || (state.config & ~(ENABLE | LEGACY_REPLACEMENT)) != 0 ||
        state.status >> timer_count != 0 || (state.lines & ~possible) != 0)
        return lib::fail(lib::Errc::BadFormat);
    state_ = state;
    arm();
    return {};
}

} // namespace platform
