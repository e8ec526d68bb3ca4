// SPDX-License-Identifier: MIT
#pragma once
// MC146818 real-time clock with 256 bytes of CMOS memory. [motorola/mc146818]
//
// Not supported: daylight saving (register B.DSE is stored), the square-wave output, divider rates other than 32.768
// kHz (any divider value but "reset" runs), years before 1970 and after 9999. A data mode changed while the clock runs
// also changes how the time is shown; the chip wants it set anew then.
#include <array>
#include <lib/delegate.hpp>
#include <platform/clock.hpp>
#include <platform/state.hpp>
#include <platform/timer.hpp>

namespace platform {

class Rtc final : public Device {
public:
    static constexpr u16 state_version = 2;
    static constexpr u32 irq = 8;
    static constexpr Region regions[] = {{0, Space::Pio, 1, 0x70, 4}};
    struct State {
        std::array<u8, 256> cmos; // the time registers are current only while the clock stands
        u64 base_second;          // what the clock showed at base_moment
        u64 base_moment;          // machine time in ns, modulo 2^64; keeps the phase of the seconds
        u64 seen_second;          // C.UF and C.AF are known up to here
        u64 seen_period;          // C.PF is known up to this period
        u8 index, upper_index, is_running, weekday_shift, line;
        u8 alarm_line; // the alarm is one of the reasons for which `line` is up
        u8 reserved[2];
    };

    explicit Rtc(Plug const& plug);
    // `alarm`: the alarm began to interrupt.
    void listen(lib::Delegate<void()> alarm) { alarm_ = alarm; }
    bool level() const { return state_.line != 0; }

    IoReply io(IoRequest const& request) override;
    void on(Event const& event) override;
    void reset() override;
    State save() const { return state_; }
    lib::Result<void> restore(State const& state);

private:
    enum TimerId : u32 { Update, Periodic };
    u8& cmos(u8 index) { return state_.cmos[index]; }
    u8 cmos(u8 index) const { return state_.cmos[index]; }
    u8 read(u8 index);
    void write(u8 index, u8 value);
    u8 read_time(u8 index) const;
    void write_time(u8 index, u8 value);
    void write_a(u8 value);
    void write_b(u8 value);
    u8 read_c();
    bool is_update_in_progress() const;
    u64 second() const;
    void store_time();
    void load_time();
    void run_or_stop();
    u64 next_alarm(u64 after) const;
    u64 period_now() const;
    void collect_flags();
    void update_interrupt();
    void arm();
    void fill_cmos(MachineFacts const& facts);
    u8 encode(u32 value) const;
    u32 decode(u8 value) const;
    u8 encode_hour(u32 hour) const;
    u32 decode_hour(u8 value) const;

    Host& host_;
    Wires& wires_;
    lib::Delegate<void()> alarm_;
    Timer update_timer_;
    Timer periodic_timer_;
    State state_{};
};

} // namespace platform
