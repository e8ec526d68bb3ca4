// SPDX-License-Identifier: MIT
#pragma once
// The timer of a local APIC: one-shot, periodic, TSC-deadline. It ticks at the crystal frequency (TSC / multiplier),
// divided; all state is in ticks of the guest's TSC, so nothing drifts and no conversion rounds. Not modelled: stopping
// in C-states (ARAT is promised).
#include <lib/result.hpp>
#include <vm/apic_page.hpp>

namespace vm {

// Where the timer gets and gives time. A deadline at or before guest_tsc(), compared as plain unsigned numbers, fires
// at once; firing means: somebody calls LocalApic::timer_expired() on the CPU of the vCPU. Arming replaces what was
// armed before.
class TimerHost {
public:
    virtual u64 guest_tsc() = 0;
    virtual void arm_timer(u64 deadline_guest_tsc) = 0;
    virtual void disarm_timer() = 0;

protected:
    ~TimerHost() = default;
};

class ApicTimer {
public:
    enum class Mode : u8 { OneShot = 0, Periodic = 1, Deadline = 2, Reserved = 3 };

    // `multiplier`: TSC ticks per crystal tick. `minimum_period`: in TSC ticks, how often a periodic timer may make us
    // work; the guest's phase is kept and the ticks between coalesce, as they would for any guest that is slow to take
    // its interrupts.
    ApicTimer(TimerHost& host, u32 multiplier, u64 minimum_period)
        : host_(host), unit_(u64{multiplier} << 1), multiplier_(multiplier), minimum_period_(minimum_period) {}

    void reset();
    void set_mode(Mode mode);
    void set_divide(u32 divide_register);
    void set_initial_count(u32 count);
    u32 current_count();
    void write_deadline(u64 deadline) {
        if (mode_ != Mode::Deadline) return; // [intel/vol3] 12.5.4.1: ignored in other modes
        deadline_ = deadline;
        is_running_ = deadline != 0;
        if (is_running_) [[likely]]
            host_.arm_timer(deadline);
        else
            host_.disarm_timer();
    }
    u64 deadline() const { return mode_ == Mode::Deadline && is_running_ ? deadline_ : 0; }
    bool is_running() const { return is_running_; }
    Mode mode() const { return mode_; }

    // What its registers do not say. The deadline is a time of the guest's TSC.
    struct State {
        u64 deadline;
        u32 initial_count;
        u8 is_running, reserved[3];
    };
    State save() const { return {deadline_, initial_count_, is_running_, {}}; }
    // BadFormat: no timer in this mode comes to such a state. A deadline that has passed fires at once.
    lib::Result<void> restore(State const& state, Mode mode, u32 divide_register);

    // True when an interrupt is due. An early call re-arms and changes nothing.
    bool expire();
    // The guest's TSC jumped: counts go on undisturbed, a TSC deadline is met sooner or later.
    void tsc_shifted(u64 delta);

private:
    void arm(u64 now);
    void stop();
    bool is_due(u64 now) const {
        if (mode_ == Mode::Deadline) return now >= deadline_;
        return static_cast<i64>(deadline_ - now) <= 0;
    }

    TimerHost& host_;
    u64 deadline_ = 0;
    u64 period_ = 0; // initial count in TSC ticks
    u64 unit_;       // TSC ticks per count: multiplier << divide
    u32 initial_count_ = 0;
    u32 multiplier_;
    u64 minimum_period_;
    Mode mode_ = Mode::OneShot;
    u8 shift_ = 1; // the divide register resets to 0, which means 2
    bool is_running_ = false;
};

} // namespace vm
