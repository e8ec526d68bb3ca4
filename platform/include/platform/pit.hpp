// SPDX-License-Identifier: MIT
#pragma once
// 8254 programmable interval timer and the system control port at 0x61 that gates its speaker channel. [intel/8254]
//
// Not supported: sound; the refresh requests of channel 1 (port 0x61 shows a refresh toggle of its own); the low phases
// of OUT0: the interrupt controllers see each rising edge of counting as one pulse, and programming a mode lowers the
// line.
#include <array>
#include <lib/platform_layout.hpp>
#include <platform/clock.hpp>
#include <platform/pit_channel.hpp>
#include <platform/state.hpp>
#include <platform/timer.hpp>

namespace platform {

class Pit final : public Device {
public:
    static constexpr u16 state_version = 1;
    static constexpr u32 gsi = lib::layout::pit_gsi; // where the MADT says that ISA IRQ 0 is
    struct State {
        std::array<PitChannel::State, 3> channels;
        u64 edges_done; // the tick up to which channel 0's edges were delivered
        u8 line, is_visible, port61, reserved[5];
    };
    enum RegionNumber : u16 { Counters, SystemControl };
    static constexpr Region regions[] = {{Counters, Space::Pio, 1, 0x40, 4}, {SystemControl, Space::Pio, 1, 0x61, 1}};

    explicit Pit(Plug const& plug) : host_(plug.host), wires_(plug.wires), timer_(plug.host, plug.device, 0) {
        reset();
    }

    IoReply io(IoRequest const& request) override;
    void on(Event const& event) override;
    void reset() override;
    State save() const;
    lib::Result<void> restore(State const& state);

    // While no interrupt controller lets channel 0's interrupt through, no timer runs. On the way back to visible the
    // edges that were missed count as one.
    void set_interrupt_visible(bool visible);
    // Brings channel 0's line up to date while it is invisible.
    void catch_up();
    bool level() const { return line_; }

private:
    u64 tick() const { return PitClock::ticks(host_.now()); }
    u8 read_system_control();
    void write_counter(u32 channel, u8 value);
    void write_control(u8 value);
    void deliver_edges(u64 tick);
    void arm(u64 tick);
    void drive(bool level);

    Host& host_;
    Wires& wires_;
    Timer timer_;
    std::array<PitChannel, 3> channels_;
    u64 edges_done_ = 0;
    bool line_ = false;
    bool is_visible_ = true;
    u8 port61_ = 0;
};

} // namespace platform
