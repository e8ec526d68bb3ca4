// SPDX-License-Identifier: MIT
#pragma once
// A keyboard controller with nothing plugged in: answers its self-tests at once, so that no driver waits for it, and
// passes on the reset pulse. The FADT says that there is none; this is for those who look anyway. [ibm/at] 8042
//
// Not supported: keyboards, mice, interrupts 1 and 12, the A20 gate (always open).
#include <platform/abi.hpp>
#include <platform/state.hpp>

namespace platform {

class I8042 final : public Device {
public:
    static constexpr u16 state_version = 1;
    struct State {
        u8 output, is_output_full, from_aux, pending_command, control, output_port, reserved[2];
    };
    enum RegionNumber : u16 { Data, Command };
    static constexpr Region regions[] = {{Data, Space::Pio, 1, 0x60, 1}, {Command, Space::Pio, 1, 0x64, 1}};

    explicit I8042(Plug const& plug) : host_(plug.host) { reset(); }

    IoReply io(IoRequest const& request) override;
    void on(Event const&) override {}
    void reset() override;
    State save() const { return state_; }
    lib::Result<void> restore(State const& state);

private:
    void command(u8 value);
    void data(u8 value);
    void answer(u8 value, bool from_aux = false);

    Host& host_;
    State state_{};
};

} // namespace platform
