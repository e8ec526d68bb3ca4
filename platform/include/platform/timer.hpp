#pragma once
// One timer of one device: hands out generations, so that an expiry which was on its way when the device changed its
// mind is recognised as stale.
#include <platform/abi.hpp>

namespace platform {

class Timer {
public:
    Timer(Host& host, u16 device, u32 id) : host_(host), id_(id), device_(device) {}
    Timer(Timer const&) = delete;
    Timer& operator=(Timer const&) = delete;

    void arm(Nanos deadline) {
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
        return true;
    }
    bool is_armed() const { return is_armed_; }

private:
    Host& host_;
    u64 generation_ = 0;
    Nanos deadline_{};
    u32 id_;
    u16 device_;
    bool is_armed_ = false;
};

} // namespace platform
