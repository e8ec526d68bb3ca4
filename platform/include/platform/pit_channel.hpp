// SPDX-License-Identifier: MIT
#pragma once
// One counter of an 8254, as a pure function of the number of clock pulses since power-on: it holds no clock and no
// timer. [intel/8254]
//
// Not supported: in modes 2 and 3 a count written while counting takes over at the end of the whole period (the chip
// does so at the half in mode 3); a count of 1 counts as 2 there.
#include <optional>
#include <platform/abi.hpp>

namespace platform {

class PitChannel {
public:
    enum class Phase : u8 { NeedsCount, NeedsTrigger, Counting, Paused };
    struct State {
        u64 start;       // the tick whose count is `reload`; with Paused: ticks already counted
        u32 reload;      // 1..modulus
        u32 next_reload; // takes over at the end of the period (or at the next trigger); 0: none
        u16 latched_count;
        u8 latched_bytes; // of latched_count still to be read
        u8 latched_status;
        u8 is_status_latched;
        u8 mode;   // 0..5
        u8 access; // 1: low byte, 2: high byte, 3: both
        u8 is_bcd;
        u8 gate;
        u8 low_byte; // the first of two written bytes
        u8 has_low_byte;
        u8 reads_high; // the next unlatched read of two
        u8 phase;
        u8 reserved[3];
    };
    static constexpr u64 never = ~u64{0};

    void reset(bool gate);
    // Bits 5..0 of the control word; access 0 latches the count instead.
    void write_control(u8 control, u64 tick);
    void write(u8 value, u64 tick);
    u8 read(u64 tick);
    void latch_count(u64 tick);
    void latch_status(u64 tick);
    void set_gate(bool level, u64 tick);

    // In the periodic modes: moves `start` to the period in which `tick` lies, so that what follows needs no division.
    void roll(u64 tick);
    bool out(u64 tick);
    // The first tick after `tick` at which OUT rises, or never.
    u64 next_rise(u64 tick);
    // Whether anything but the end of counting can still come.
    bool is_periodic() const { return state.mode == 2 || state.mode == 3; }
    static bool is_valid(State const& state);

    State state{};

private:
    Phase phase() const { return static_cast<Phase>(state.phase); }
    void set_phase(Phase phase) { state.phase = static_cast<u8>(phase); }
    u32 modulus() const { return state.is_bcd != 0 ? 10'000 : 65'536; }
    u64 elapsed(u64 tick) const;
    void load(u32 count, u64 tick);
    u32 count(u64 tick);
    u16 shown_count(u64 tick);
    u8 read_latch();
};

} // namespace platform
