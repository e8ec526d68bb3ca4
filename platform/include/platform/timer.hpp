// SPDX-License-Identifier: MIT
#pragma once
// One timer of one device, and the only way to one: Host::arm_timer has no other caller. Hands out generations, so that
// an expiry which was on its way when the device changed its mind is recognised as stale, and keeps two expiries apart
// whatever the guest programs.
#include <algorithm>
#include <platform/abi.hpp>

namespace platform {

class Timer {
public:
    // Between the deadlines of two expiries. A guest that asks for more gets the ticks in between as one: each is an
    // interrupt of the machine, also while other VMs run. The RTC's 8192 Hz, the fastest rate that operating systems
    // ask for, takes 122.07 us and stays exact, as do all rates of the PIT below 8333 Hz.
    static constexpr Nanos floor{120'000};

    Timer(Host& host, u16 device, u32 id) : host_(host), id_(id), device_(device) {}
    Timer(Timer const&) = delete;
    Timer& operator=(Timer const&) = delete;

    void arm(Nanos deadline) {
        deadline = std::max(deadline, earliest_);
        if (is_armed_ && deadline_ == deadline) return;
        is_armed_ = true;
        deadline_ = deadline;
        host_.arm_timer(device_, id_, ++generation_, deadline);
    }
    void cancel() {
        if (!is_armed_) return;
        is_armed_ = false;
        host_.cancel_timer(device_, id_);
    }
    // True when `event` is the expiry of what was armed last; the timer is idle then.
    bool accepts(Event const& event) {
        if (!is_armed_ || event.kind != EventKind::Timer || event.id != id_ || event.generation != generation_)
            return false;
        is_armed_ = false;
        earliest_ = std::min(deadline_, host_.now()) + floor;
        return true;
    }
    bool is_armed() const { return is_armed_; }

private:
    Host& host_;
    u64 generation_ = 0;
    Nanos deadline_{};
    Nanos earliest_{};
    u32 id_;
    u16 device_;
    bool is_armed_ = false;
};

} // namespace platform
