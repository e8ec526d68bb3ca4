#pragma once
// The fixed ACPI hardware: PM1 event and control block, power-management timer, power button. [acpi] 4.8.3
//
// Not supported: SMI command port (the machine is always in ACPI mode), sleep states other than S5, general-purpose
// events, bus-master and global-lock status, RTC and sleep-button events.
#include <vmm/clock.hpp>
#include <vmm/state.hpp>
#include <vmm/timer.hpp>

namespace vmm {

class AcpiPm final : public Device {
public:
    static constexpr u16 state_version = 1;
    static constexpr u32 sci_gsi = 9;
    static constexpr u64 pm1a_evt = 0x600, pm1a_cnt = 0x604, pm_tmr = 0x608;
    static constexpr u8 s5_sleep_type = 0; // what \_S5 says
    struct State {
        u64 seen_carries; // TMR_STS is known up to this many changes of the timer's top bit
        u16 pm1_sts, pm1_en, pm1_cnt;
        u8 line, reserved;
    };
    enum RegionNumber : u16 { Pm1Event, Pm1Control, PmTimer };

    AcpiPm(Host& host, u16 device) : host_(host), timer_(host, device, 0) { reset(); }

    IoReply io(IoRequest const& request) override;
    void on(Event const& event) override;
    void reset() override;
    State save() const { return state_; }
    lib::Result<void> restore(State const& state);

    void power_button();

private:
    u64 tick() const { return PmClock::ticks(host_.now()); }
    u32 read_event();
    void write_event(u32 offset, u8 size, u32 value);
    void write_control(u32 offset, u8 size, u32 value);
    void collect_carry();
    void update();

    Host& host_;
    Timer timer_;
    State state_{};
};

} // namespace vmm
