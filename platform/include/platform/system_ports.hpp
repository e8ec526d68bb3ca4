// SPDX-License-Identifier: MIT
#pragma once
// The chipset ports that stand alone: reset control 0xcf9, system control 0x92, POST code 0x80 and the delay port 0xed.
// [intel/ich] 13.7
//
// Not supported: the A20 gate (port 0x92 shows it, it is always open); the kinds of reset differ in nothing.
#include <lib/platform_layout.hpp>
#include <platform/abi.hpp>
#include <platform/state.hpp>

namespace platform {

class SystemPorts final : public Device {
public:
    static constexpr u16 state_version = 1;
    struct State {
        u8 reset_control, port92, post_code, reserved;
    };
    enum RegionNumber : u16 { ResetControl, Port92, PostCode, Delay };
    static constexpr u64 reset_control_port = lib::layout::reset_control_port;
    static constexpr u8 reset_control_value = lib::layout::reset_control_value;
    static constexpr Region regions[] = {{ResetControl, Space::Pio, 1, reset_control_port, 1},
                                         {Port92, Space::Pio, 1, 0x92, 1},
                                         {PostCode, Space::Pio, 1, 0x80, 1},
                                         {Delay, Space::Pio, 1, 0xed, 1}};

    explicit SystemPorts(Plug const& plug) : host_(plug.host) { reset(); }

    IoReply io(IoRequest const& request) override;
    void on(Event const&) override {}
    void reset() override;
    State save() const { return state_; }
    lib::Result<void> restore(State const& state) {
        state_ = state;
        return {};
    }
    // The last value that firmware or kernel wrote to port 0x80.
    u8 post_code() const { return state_.post_code; }

private:
    u8 read(u16 region) const;

    Host& host_;
    State state_{};
};

} // namespace platform
