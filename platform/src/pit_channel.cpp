// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/pit_channel.hpp>

namespace platform {
namespace {

constexpr u32 from_bcd(u32 value) {
    return (value & 0xf) + (value >> 4 & 0xf) * 10 + (value >> 8 & 0xf) * 100 + (value >> 12 & 0xf) * 1000;
}
constexpr u32 to_bcd(u32 value) {
    return value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 | value / 1000 % 10 << 12;
}
constexpr u8 access_both = 3;
constexpr u8 status_out = 0x80, status_null_count = 0x40;

} // namespace

void PitChannel::reset(bool gate) {
    state = {};
    state.access = access_both;
    state.mode = 3;
    state.gate = gate;
    state.reload = 65'536;
    set_phase(Phase::NeedsCount);
}

u64 PitChannel::elapsed(u64 tick) const {
    switch (phase()) {
    case Phase::Counting: return tick > state.start ? tick - state.start : 0;
    case Phase::Paused: return state.start;
    case Phase::NeedsCount:
    case Phase::NeedsTrigger: break;
    }
    return 0;
}

void PitChannel::roll(u64 tick) {
    if (!is_periodic() || phase() != Phase::Counting || tick < state.start) return;
    u64 passed = tick - state.start;
    if (passed < state.reload) [[likely]]
        return;
    if (state.next_reload != 0) {
        state.start += state.reload;
        passed -= state.reload;
        state.reload = state.next_reload;
        state.next_reload = 0;
    }
    state.start += passed - passed % state.reload;
}

// The new count reaches the counting element with the next clock pulse.
void PitChannel::load(u32 count, u64 tick) {
    state.reload = count;
    state.next_reload = 0;
    state.start = tick + 1;
    set_phase(Phase::Counting);
}

void PitChannel::write_control(u8 control, u64 tick) {
    u8 const access = control >> 4 & 3;
    if (access == 0) return latch_count(tick);
    u8 const mode = control >> 1 & 7;
    state.access = access;
    state.mode = mode > 5 ? static_cast<u8>(mode - 4) : mode; // X10 and X11
    state.is_bcd = control & 1;
    state.has_low_byte = state.reads_high = 0;
    state.latched_bytes = state.is_status_latched = 0;
    state.next_reload = 0;
    state.reload = std::min(state.reload, modulus());
    set_phase(Phase::NeedsCount);
}

void PitChannel::write(u8 value, u64 tick) {
    u32 raw = value;
    if (state.access == access_both) {
        if (state.has_low_byte == 0) {
            state.low_byte = value;
            state.has_low_byte = 1;
            if (state.mode == 0) set_phase(Phase::NeedsCount); // the first byte stops the counting
            return;
        }
        raw = static_cast<u32>(value) << 8 | state.low_byte;
        state.has_low_byte = 0;
    } else if (state.access == 2) {
        raw = static_cast<u32>(value) << 8;
    }
    u32 count = state.is_bcd != 0 ? from_bcd(raw) % 10'000 : raw;
    if (count == 0) count = modulus();
    if (is_periodic()) count = std::max(count, 2U);

    roll(tick);
    bool const waits_for_trigger = state.mode == 1 || state.mode == 5;
    bool const is_running = phase() == Phase::Counting;
    if (waits_for_trigger) {
        state.next_reload = count;
        if (!is_running) set_phase(Phase::NeedsTrigger);
    } else if (is_periodic() && is_running) {
        state.next_reload = count;
    } else if (state.gate != 0) {
        load(count, tick);
    } else {
        state.reload = count;
        state.next_reload = 0;
        state.start = 0;
        set_phase(is_periodic() ? Phase::NeedsTrigger : Phase::Paused);
    }
}

void PitChannel::set_gate(bool level, u64 tick) {
    if ((state.gate != 0) == level) return;
    roll(tick);
    state.gate = level;
    if (phase() == Phase::NeedsCount) return;
    switch (state.mode) {
    case 1:
    case 5:
        if (level) load(state.next_reload != 0 ? state.next_reload : state.reload, tick);
        break;
    case 2:
    case 3: // low stops and sets OUT, the rising edge starts a whole period
        if (level)
            load(state.next_reload != 0 ? state.next_reload : state.reload, tick);
        else
            set_phase(Phase::NeedsTrigger);
        break;
    default: // low pauses
        if (level) {
            state.start = tick - std::min(state.start, tick);
            set_phase(Phase::Counting);
        } else if (phase() == Phase::Counting) {
            state.start = elapsed(tick);
            set_phase(Phase::Paused);
        }
        break;
    }
}

u32 PitChannel::count(u64 tick) {
    // The common case in every mode but 3: counting, and not yet at the end.
    if (u64 const passed = tick - state.start; phase() == Phase::Counting && state.mode != 3 && passed < state.reload)
        [[likely]]
        return state.reload - static_cast<u32>(passed);
    roll(tick);
    u64 const passed = elapsed(tick);
    switch (state.mode) {
    case 2: return state.reload - static_cast<u32>(passed);
    case 3: { // down by two, twice per period
        u32 const high = (state.reload + 1) / 2;
        u32 const even = state.reload & ~1U;
        u32 const position = static_cast<u32>(passed);
        return position < high ? even - std::min(position * 2, even) : even - std::min((position - high) * 2, even);
    }
    default: // runs on through zero
        if (passed < state.reload) [[likely]]
            return state.reload - static_cast<u32>(passed);
        u32 const beyond = static_cast<u32>((passed - state.reload) % modulus());
        return modulus() - beyond;
    }
}

u16 PitChannel::shown_count(u64 tick) {
    u32 const value = count(tick);
    if (state.is_bcd != 0) return static_cast<u16>(to_bcd(value % 10'000));
    return static_cast<u16>(value); // 65536 shows as 0
}

bool PitChannel::out(u64 tick) {
    if (phase() == Phase::NeedsCount || phase() == Phase::NeedsTrigger) return state.mode != 0;
    roll(tick);
    u64 const passed = elapsed(tick);
    switch (state.mode) {
    case 0:
    case 1: return passed >= state.reload;
    case 2: return passed + 1 != state.reload;
    case 3: return passed < (state.reload + 1) / 2;
    default: return passed != state.reload;
    }
}

u64 PitChannel::next_rise(u64 tick) {
    if (phase() != Phase::Counting) return never;
    roll(tick);
    switch (state.mode) {
    case 0:
    case 1: return state.start + state.reload > tick ? state.start + state.reload : never;
    case 2:
    case 3: return state.start + state.reload;
    default: return state.start + state.reload + 1 > tick ? state.start + state.reload + 1 : never;
    }
}

void PitChannel::latch_count(u64 tick) {
    if (state.latched_bytes != 0) return; // held until it is read
    state.latched_count = shown_count(tick);
    state.latched_bytes = state.access == access_both ? 2 : 1;
}

void PitChannel::latch_status(u64 tick) {
    if (state.is_status_latched != 0) return;
    bool const is_null =
        phase() == Phase::NeedsCount || state.next_reload != 0 || (phase() == Phase::Counting && tick < state.start);
    state.latched_status = static_cast<u8>((out(tick) ? status_out : 0) | (is_null ? status_null_count : 0) |
                                           state.access << 4 | state.mode << 1 | state.is_bcd);
    state.is_status_latched = 1;
}

// Status goes before count.
u8 PitChannel::read_latch() {
    if (state.is_status_latched != 0) {
        state.is_status_latched = 0;
        return state.latched_status;
    }
    bool const is_high = state.access == 2 || (state.access == access_both && state.latched_bytes == 1);
    state.latched_bytes--;
    return static_cast<u8>(is_high ? state.latched_count >> 8 : state.latched_count);
}

u8 PitChannel::read(u64 tick) {
    if ((state.is_status_latched | state.latched_bytes) != 0) return read_latch();
    u16 const value = shown_count(tick);
    if (state.access == access_both) {
        state.reads_high ^= 1;
        return static_cast<u8>(state.reads_high != 0 ? value : value >> 8);
    }
    return static_cast<u8>(state.access == 1 ? value : value >> 8);
}

bool PitChannel::is_valid(State const& state) {
    return state.mode <= 5 && state.access >= 1 && state.access <= 3 && state.is_bcd <= 1 && state.gate <= 1 &&
           state.latched_bytes <= 2 && state.phase <= static_cast<u8>(Phase::Paused) && state.reload >= 1 &&
           state.reload <= 65'536 && state.next_reload <= 65'536;
}

} // namespace platform
