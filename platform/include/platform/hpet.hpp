// SPDX-License-Identifier: MIT
#pragma once
// High precision event timers: a counter and three comparators, each of which can be periodic. [intel/hpet]
//
// Like the PIT, it never ticks: what a comparator has met is computed from the time when somebody looks, and one timer
// per comparator waits for the next interrupt. Matches that came together make one interrupt.
//
// Not supported: interrupts as messages (FSB), accesses of one or two bytes (writes are ignored).
#include <array>
#include <lib/delegate.hpp>
#include <lib/platform_layout.hpp>
#include <platform/clock.hpp>
#include <platform/state.hpp>
#include <platform/timer.hpp>

namespace platform {

class Hpet final : public Device {
public:
    static constexpr u64 base = lib::layout::hpet_base, window_size = 0x400;
    static constexpr u32 timer_count = 3;
    // The line of comparator 0 or 1 while it replaces the PIT's or the RTC's interrupt; the first after those of the
    // I/O APIC.
    static constexpr u32 legacy_lines = 24;
    static constexpr Region regions[] = {{0, Space::Mmio, 8, base, window_size}};
    static constexpr u16 state_version = 1;
    struct TimerState {
        u64 comparator;
        u64 period;
        u64 met_until; // host tick before which each match is accounted for
        u32 config;    // the writable bits
        u8 has_edge;   // an edge-triggered interrupt keeps its line up
        u8 reserved[3];
    };
    struct State {
        std::array<TimerState, timer_count> timers;
        u64 base_count; // what the counter showed at base_tick; what it shows while it stands
        u64 base_tick;
        u32 config;
        u32 status; // of level-triggered comparators
        u32 lines;  // which are up
        u32 reserved;
    };

    explicit Hpet(Plug const& plug);
    // `changed`: comparators 0 and 1 took over the PIT's and the RTC's interrupts, or gave them back.
    void listen(lib::Delegate<void()> changed) { legacy_changed_ = changed; }

    IoReply io(IoRequest const& request) override;
    void on(Event const& event) override;
    void reset() override;
    State save() const { return state_; }
    lib::Result<void> restore(State const& state);

    bool replaces_legacy() const;
    // Whether a legacy line is up.
    bool legacy_level(u32 number) const { return (state_.lines >> (legacy_lines + number) & 1) != 0; }

private:
    u64 tick() const { return HpetClock::ticks(host_.now()); }
    bool is_running() const;
    u64 count_at(u64 tick) const;
    u64 mask_of(TimerState const& timer) const;
    u64 next_match(TimerState const& timer) const;
    bool is_level(TimerState const& timer) const;
    u32 line_of(u32 number) const;
    void collect(u64 now);
    void meet(u32 number, u64 now);
    u64 read(u64 reg);
    void write(u64 now, u64 reg, u64 value, u64 mask);
    void write_config(u64 now, u64 value);
    void write_timer_config(TimerState& timer, u32 number, u64 value);
    void write_comparator(TimerState& timer, u64 now, u64 value, u64 mask);
    void set_base(u64 count, u64 tick);
    void drive();
    void arm();

    Host& host_;
    Wires& wires_;
    lib::Delegate<void()> legacy_changed_;
    std::array<Timer, timer_count> timers_;
    State state_{};
};

} // namespace platform
