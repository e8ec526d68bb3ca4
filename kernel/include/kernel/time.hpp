// SPDX-License-Identifier: MIT
#pragma once
// Machine time from the TSC, calibrated once at boot, and timers per CPU.
#include <atomic>
#include <kernel/spinlock.hpp>
#include <lib/delegate.hpp>
#include <lib/fixed_point.hpp>
#include <lib/intrusive_list.hpp>
#include <lib/types.hpp>

namespace kernel {

using lib::Nanos;
using lib::u32;
using lib::u64;

// Converts between TSC ticks and nanoseconds by a multiplication and a shift. Both factors are rounded up, and ticks
// too: when the TSC has reached to_ticks(t), to_nanos() of it has reached t, so nobody is called before its time. The
// error is below one unit plus 2^-50 of the value: less than 3 µs in a century. Rates from 4 MHz to 256 GHz.
class TscScale {
public:
    constexpr TscScale() = default;
    explicit constexpr TscScale(u64 tsc_hz)
        : hz_(tsc_hz), nanos_per_tick_(lib::fixed_ratio_up(lib::nanos_per_second, tsc_hz, shift)),
          ticks_per_nano_(lib::fixed_ratio_up(tsc_hz, lib::nanos_per_second, shift)) {}
    constexpr u64 to_nanos(u64 ticks) const { return static_cast<u64>((lib::u128{ticks} * nanos_per_tick_) >> shift); }
    constexpr u64 to_ticks(u64 nanos) const {
        return static_cast<u64>((lib::u128{nanos} * ticks_per_nano_ + ((u64{1} << shift) - 1)) >> shift);
    }
    constexpr u64 hz() const { return hz_; }

private:
    static constexpr unsigned shift = 56;
    u64 hz_ = 0;
    u64 nanos_per_tick_ = 0; // 8.56 fixed point
    u64 ticks_per_nano_ = 0; // 8.56 fixed point
};

// Before this call now() is 0. `tsc_at_zero` is the TSC value that counts as time 0.
void start_clock(u64 tsc_hz, u64 tsc_at_zero);
TscScale const& tsc_scale();
u64 tsc_at_time_zero();
Nanos now();
u64 tsc_of(Nanos time);

class SchedulerEntity;

// One callback at one time, in the queue of one CPU. Embedded in its owner.
class Timer : public lib::ListLink<Timer> {
public:
    using Callback = lib::Delegate<void()>;
    Timer() = default;
    explicit Timer(Callback callback) : callback_(callback) {}
    void set_callback(Callback callback) { callback_ = callback; }
    // Whose work the callback is: it pays for the callback's time. nullptr: Mullion's own.
    void set_payer(SchedulerEntity* payer) { payer_ = payer; }

private:
    friend class TimerQueue;
    friend void arm_timer(Timer& timer, u64 deadline_tsc);
    friend void arm_timer_on(u32 cpu, Timer& timer, u64 deadline_tsc);
    friend void cancel_timer(Timer& timer);
    Callback callback_;
    SchedulerEntity* payer_ = nullptr;
    u64 deadline_tsc_ = 0;
    std::atomic<u32> queue_{~0U}; // the CPU in whose queue it is or was last
};

// Arms on the calling CPU, whose timer interrupt will call back; an earlier arming is forgotten. A deadline in the past
// fires at once, but never from inside this call.
void arm_timer(Timer& timer, u64 deadline_tsc);
// The same on any CPU, which is interrupted if it must set its hardware for this timer.
void arm_timer_on(u32 cpu, Timer& timer, u64 deadline_tsc);
// A callback that runs on another CPU at this moment is not waited for.
void cancel_timer(Timer& timer);

// Timers of one CPU, sorted by deadline. Its lock belongs to arm_timer() and its friends.
class TimerQueue {
public:
    static constexpr u64 never = ~u64{0};
    // (Re)arms; returns true when this is now the earliest, so that the hardware must be told.
    bool arm(Timer& timer, u64 deadline_tsc);
    void cancel(Timer& timer);
    u64 next_deadline() const { return next_; }
    // Takes out the first timer that is due at `now_tsc`; nullptr: none.
    Timer* pop_due(u64 now_tsc);
    static void call(Timer& timer) { timer.callback_(); }
    static SchedulerEntity* payer_of(Timer const& timer) { return timer.payer_; }
    using Lock = Spinlock<LockRank::Timers>;
    Lock& lock() { return lock_; }

private:
    void update_next();
    Lock lock_;
    lib::IntrusiveList<Timer> timers_;
    u64 next_ = never;
};

} // namespace kernel
