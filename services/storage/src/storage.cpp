// SPDX-License-Identifier: MIT
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
    for (u32 count = 0; count < devices_.size() && waiting_ != 0 && budget != 0; count++) {
        u32 const i = first_;
        first_ = (first_ + 1) % devices_.size();
        u64 const bit = u64{1} << i;
        if ((waiting_ & bit) != 0 && !devices_[i].serve(host_, budget)) waiting_ &= ~bit;
    }
    return waiting_ != 0;
}

} // namespace storage
