// SPDX-License-Identifier: MIT
#include <kernel/time.hpp>
#include <lib/x86/instructions.hpp>

namespace kernel {
namespace {
constinit TscScale scale;
constinit u64 zero_tsc = 0;
} // namespace

void start_clock(u64 tsc_hz, u64 tsc_at_zero) {
    scale = TscScale(tsc_hz);
    zero_tsc = tsc_at_zero;
}
TscScale const& tsc_scale() { return scale; }
u64 tsc_at_time_zero() { return zero_tsc; }
Nanos now() { return {scale.to_nanos(lib::x86::rdtsc() - zero_tsc)}; }
u64 tsc_of(Nanos time) { return zero_tsc + scale.to_ticks(time.value); }

bool TimerQueue::arm(Timer& timer, u64 deadline_tsc) {
    if (timer.is_linked()) lib::IntrusiveList<Timer>::remove(timer);
    timer.deadline_tsc_ = deadline_tsc;
    auto later = timers_.begin();
    while (later != timers_.end() && (*later).deadline_tsc_ <= deadline_tsc)
        ++later;
    timers_.insert_before(later, timer);
    u64 const before = next_;
    update_next();
    return next_ != before;
}

void TimerQueue::cancel(Timer& timer) {
    if (!timer.is_linked()) return;
    lib::IntrusiveList<Timer>::remove(timer);
    update_next();
}

void TimerQueue::update_next() { next_ = timers_.is_empty() ? never : (*timers_.begin()).deadline_tsc_; }

Timer* TimerQueue::pop_due(u64 now_tsc) {
    if (next_ > now_tsc) return nullptr;
    Timer* const timer = timers_.pop_front();
    update_next();
    return timer;
}

} // namespace kernel
