// SPDX-License-Identifier: MIT
#include <bit>
#include <storage/storage.hpp>

namespace storage {
namespace {

constexpr u64 all_devices = (u64{1} << lib::service::max_devices) - 1;
static_assert(lib::service::event_doorbell(0) == 2);

} // namespace

bool Storage::turn(u64 events) {
    waiting_ |= events / lib::service::event_doorbell(0) & all_devices;
    if ((events & lib::service::event_board) != 0) {
        for (u32 i = 0; i < devices_.size(); i++)
            devices_[i].update(board_.devices[i], records_.queues[i], host_, i);
        waiting_ = all_devices; // nobody rings again for what the last instance left
    }
    u64 budget = turn_budget;
    for (u64 round = waiting_; round != 0 && budget != 0;) { // each of them once
        u64 const after_last = round >> first_ << first_;
        u32 const i = static_cast<u32>(std::countr_zero(after_last != 0 ? after_last : round));
        u64 const bit = u64{1} << i;
        round &= ~bit;
        first_ = (i + 1) % devices_.size();
        if (!devices_[i].serve(host_, budget)) waiting_ &= ~bit;
    }
    return waiting_ != 0;
}

} // namespace storage
