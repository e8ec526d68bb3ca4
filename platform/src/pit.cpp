// SPDX-License-Identifier: MIT
#include <platform/pit.hpp>

namespace platform {
namespace {

// Port 0x61. [intel/ich] 13.7.1 NMI_SC
constexpr u8 timer2_gate = 0x01, writable61 = 0x0f, refresh_toggle = 0x10, timer2_out = 0x20;
constexpr u64 ticks_per_refresh = 18; // 15.085 us

constexpr u32 control_port = 3;
constexpr u8 read_back = 3, read_back_no_count = 0x20, read_back_no_status = 0x10;

} // namespace

void Pit::reset() {
    channels_[0].reset(true);
    channels_[1].reset(true);
    channels_[2].reset(false);
    port61_ = 0;
    timer_.cancel();
    drive(false);
}

IoReply Pit::io(IoRequest const& request) {
    u8 const value = static_cast<u8>(request.data);
    if (request.region == SystemControl) {
        if (request.op == Op::Read) return {read_system_control()};
        port61_ = value & writable61;
        channels_[2].set_gate((value & timer2_gate) != 0, tick());
        return {};
    }
    u32 const port = static_cast<u32>(request.offset & 3);
    if (request.op == Op::Read) {
        if (port == control_port) return floating_bus;
        return {channels_[port].read(tick())};
    }
    if (port == control_port)
        write_control(value);
    else
        write_counter(port, value);
    return {};
}

u8 Pit::read_system_control() {
    u64 const now = tick();
    u8 const refresh = now / ticks_per_refresh % 2 != 0 ? refresh_toggle : u8{0};
    return static_cast<u8>(port61_ | refresh | (channels_[2].out(now) ? timer2_out : 0));
}

void Pit::write_counter(u32 channel, u8 value) {
    u64 const now = tick();
    if (channel != 0) return channels_[channel].write(value, now);
    deliver_edges(now); // what the old count still owes
    channels_[0].write(value, now);
    if (!channels_[0].is_periodic()) drive(false);
    arm(now);
}

void Pit::write_control(u8 value) {
    u64 const now = tick();
    u32 const channel = value >> 6;
    if (channel == read_back) {
        for (u32 i = 0; i < channels_.size(); i++) {
            if ((value >> (i + 1) & 1) == 0) continue;
            if ((value & read_back_no_count) == 0) channels_[i].latch_count(now);
            if ((value & read_back_no_status) == 0) channels_[i].latch_status(now);
        }
        return;
    }
    bool const is_latch = (value & 0x30) == 0;
    if (channel == 0 && !is_latch) {
        deliver_edges(now);
        drive(false);
        timer_.cancel();
    }
    channels_[channel].write_control(value & 0x3f, now);
}

void Pit::drive(bool level) {
    if (level == line_) return;
    line_ = level;
    wires_.set_irq_line(gsi, level);
}

// Whatever came since the last look is one pulse: a late timer coalesces, it never causes a burst.
void Pit::deliver_edges(u64 now) {
    u64 const next = channels_[0].next_rise(edges_done_);
    if (next <= now) {
        drive(false);
        drive(true);
    }
    edges_done_ = now;
}

void Pit::arm(u64 now) {
    u64 const next = is_visible_ ? channels_[0].next_rise(now) : PitChannel::never;
    if (next == PitChannel::never)
        timer_.cancel();
    else
        timer_.arm(PitClock::moment(next));
}

void Pit::on(Event const& event) {
    if (!timer_.accepts(event)) return;
    u64 const now = tick();
    deliver_edges(now);
    arm(now);
}

void Pit::catch_up() {
    if (!is_visible_) deliver_edges(tick());
}

void Pit::set_interrupt_visible(bool visible) {
    if (visible == is_visible_) return;
    is_visible_ = visible;
    u64 const now = tick();
    if (visible) deliver_edges(now);
    arm(now);
}

Pit::State Pit::save() const {
    State saved{};
    u64 const now = tick();
    for (u32 i = 0; i < channels_.size(); i++) {
        PitChannel channel = channels_[i];
        channel.roll(now); // equal machines have equal states, whenever they were looked at last
        saved.channels[i] = channel.state;
    }
    saved.edges_done = edges_done_;
    saved.line = line_;
    saved.is_visible = is_visible_;
    saved.port61 = port61_;
    return saved;
}

lib::Result<void> Pit::restore(State const& state) {
    u64 const now = tick();
    for (PitChannel::State const& channel : state.channels)
        if (!PitChannel::is_valid(channel) || channel.start > now + 1) return lib::fail(lib::Errc::BadFormat);
    if (state.edges_done > now || state.line > 1 || state.is_visible > 1) return lib::fail(lib::Errc::BadFormat);
    for (u32 i = 0; i < channels_.size(); i++)
        channels_[i].state = state.channels[i];
    edges_done_ = state.edges_done;
    line_ = state.line != 0;
    is_visible_ = state.is_visible != 0;
    port61_ = state.port61 & writable61;
    arm(now);
    return {};
}

} // namespace platform
