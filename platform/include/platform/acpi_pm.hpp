// SPDX-License-Identifier: MIT
#pragma once
// The fixed ACPI hardware: PM1 event and control block, power-management timer, power button, alarm of the RTC.
// [acpi] 4.8.3
//
// Not supported: SMI command port (the machine is always in ACPI mode), sleep states other than S5, general-purpose
// events, bus-master and global-lock status, sleep-button events.
#include <lib/platform_layout.hpp>
#include <platform/clock.hpp>
#include <platform/state.hpp>
#include <platform/timer.hpp>

namespace platform {

class AcpiPm final : public Device {
public:
    static constexpr u16 state_version = 1;
    static constexpr u32 sci_gsi = lib::layout::sci_gsi;
    static constexpr u64 pm1a_evt = lib::layout::pm1a_evt, pm1a_cnt = lib::layout::pm1a_cnt,
                         pm_tmr = lib::layout::pm_tmr;
    static constexpr u8 s5_sleep_type = lib::layout::s5_sleep_type;
    struct State {
        u64 seen_carries; // TMR_STS is known up to this many changes of the timer's top bit
        u16 pm1_sts, pm1_en, pm1_cnt;
        u8 line, reserved;
    };
    enum RegionNumber : u16 { Pm1Event, Pm1Control, PmTimer };
    static constexpr Region regions[] = {{Pm1Event, Space::Pio, 4, pm1a_evt, 4},
                                         {Pm1Control, Space::Pio, 2, pm1a_cnt, 2},
                                         {PmTimer, Space::Pio, 4, pm_tmr, 4}};

    explicit AcpiPm(Plug const& plug) : host_(plug.host), wires_(plug.wires), timer_(plug.host, plug.device, 0) {
        reset();
    }

    IoReply io(IoRequest const& request) override;
    void on(Event const& event) override;
    void reset() override;
    State save() const { return state_; }
    lib::Result<void> restore(State const& state);

    void power_button();
    void rtc_alarm();

private:
    u64 tick() const { return PmClock::ticks(host_.now()); }
    u32 read_event();
    void write_event(u32 offset, u8 size, u32 value);
    void write_control(u32 offset, u8 size, u32 value);
    void collect_carry();
    void update();

    Host& host_;
    Wires& wires_;
    Timer timer_;
    State state_{};
};

} // namespace platform
