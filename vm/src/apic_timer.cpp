// SPDX-License-Identifier: MIT
#include <vm/apic_timer.hpp>

namespace vm {

void ApicTimer::reset() {
    stop();
    mode_ = Mode::OneShot;
    shift_ = 1;
    unit_ = u64{multiplier_} << shift_;
    initial_count_ = 0;
    period_ = 0;
    deadline_ = 0;
}

void ApicTimer::stop() {
    if (is_running_) host_.disarm_timer();
    is_running_ = false;
}

// Entering or leaving TSC-deadline mode disarms; one-shot and periodic share a running count. [intel/vol3] 12.5.4.1
void ApicTimer::set_mode(Mode mode) {
    if (mode == mode_) return;
    bool const keeps_counting = mode_ <= Mode::Periodic && mode <= Mode::Periodic;
    mode_ = mode;
    if (keeps_counting) return;
    stop();
    deadline_ = 0;
    initial_count_ = 0;
    period_ = 0;
}

// Bits 3, 1, 0: 000 divides by 2, 001 by 4, ... 110 by 128, 111 by 1. The count goes on from where it is.
void ApicTimer::set_divide(u32 divide_register) {
    u32 const code = (divide_register & 3) | ((divide_register >> 1) & 4);
    u8 const shift = static_cast<u8>((code + 1) & 7);
    if (shift == shift_) return;
    bool const counting = is_running_ && mode_ != Mode::Deadline;
    u32 const count = counting ? current_count() : 0;
    shift_ = shift;
    unit_ = u64{multiplier_} << shift;
    period_ = initial_count_ * unit_;
    if (!counting) return;
    u64 const now = host_.guest_tsc();
    deadline_ = now + count * unit_;
    arm(now);
}

void ApicTimer::set_initial_count(u32 count) {
    if (mode_ >= Mode::Deadline) return; // ignored, and reads as zero
    initial_count_ = count;
    period_ = count * unit_;
    if (count == 0) return stop();
    u64 const now = host_.guest_tsc();
    deadline_ = now + period_;
    is_running_ = true;
    arm(now);
}

u32 ApicTimer::current_count() {
    if (!is_running_ || mode_ >= Mode::Deadline) return 0;
    u64 const now = host_.guest_tsc();
    u64 left = deadline_ - now;
    if (static_cast<i64>(left) <= 0) {
        if (mode_ != Mode::Periodic) return 0;
        left = period_ - (now - deadline_) % period_; // expired, but nobody has called us yet
    }
    left += unit_ - 1;
    return static_cast<u32>(multiplier_ == 1 ? left >> shift_ : left / unit_);
}

lib::Result<void> ApicTimer::restore(State const& state, Mode mode, u32 divide_register) {
    reset();
    set_divide(divide_register);
    u64 const now = host_.guest_tsc(), period = state.initial_count * unit_;
    bool const counts = mode <= Mode::Periodic, is_running = state.is_running != 0;
    bool is_valid = state.is_running <= 1 && (counts || state.initial_count == 0);
    if (is_running && counts)
        is_valid = is_valid && period != 0 && static_cast<i64>(state.deadline - now) <= static_cast<i64>(period);
    if (is_running && !counts) is_valid = is_valid && mode == Mode::Deadline && state.deadline != 0;
    if (!is_valid) return lib::fail(lib::Errc::BadFormat);
    mode_ = mode;
    initial_count_ = state.initial_count;
    period_ = period;
    if (!is_running) return {};
    deadline_ = state.deadline;
    is_running_ = true;
    arm(now);
    return {};
}

void ApicTimer::arm(u64 now) {
    u64 when = deadline_;
    if (mode_ == Mode::Periodic && static_cast<i64>(deadline_ - now) < static_cast<i64>(minimum_period_))
        when = now + minimum_period_;
    // A deadline beyond the wrap of a TSC that the guest set high would look past: wait at the wrap instead.
    if (when < now && mode_ != Mode::Deadline) when = static_cast<i64>(when - now) <= 0 ? when : ~u64{0};
    host_.arm_timer(when);
}

bool ApicTimer::expire() {
    if (!is_running_) return false;
    u64 const now = host_.guest_tsc();
    if (!is_due(now)) {
        arm(now);
        return false;
    }
    if (mode_ != Mode::Periodic) {
        is_running_ = false;
        deadline_ = 0;
        return true;
    }
    deadline_ += period_;
    if (static_cast<i64>(deadline_ - now) <= 0) deadline_ += ((now - deadline_) / period_ + 1) * period_;
    arm(now);
    return true;
}

void ApicTimer::tsc_shifted(u64 delta) {
    if (!is_running_) return;
    if (mode_ != Mode::Deadline) deadline_ += delta;
    arm(host_.guest_tsc());
}

} // namespace vm
