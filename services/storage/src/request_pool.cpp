// SPDX-License-Identifier: MIT
#include <bit>
#include <storage/request_pool.hpp>

namespace storage {

bool RequestPool::may_share(u32 device) const {
    if (shared_used_ == shared) return false;
    u32 wanting = sharing_ | 1U << device;
    for (u64 left = refused_; left != 0; left &= left - 1)
        wanting |= 1U << device_of(static_cast<u32>(std::countr_zero(left)));
    return shared_of_[device] < shared / static_cast<u32>(std::popcount(wanting));
}

u16 RequestPool::take(u32 queue) {
    u32 const device = device_of(queue);
    bool const is_shared = held_[queue] != 0;
    if (is_shared && !may_share(device)) {
        refused_ |= u64{1} << queue;
        return none;
    }
    forget(queue);
    held_[queue]++;
    if (is_shared) {
        shared_used_++;
        shared_of_[device]++;
        sharing_ |= 1U << device;
    }
    u16 const index = free_[--free_count_];
    Entry& entry = entries_[index];
    entry.next = none;
    entry.queue = static_cast<u8>(queue);
    entry.is_dropped = false;
    return index;
}

void RequestPool::release(u16 index) {
    u32 const queue = entries_[index].queue, device = device_of(queue);
    free_[free_count_++] = index;
    if (--held_[queue] == 0) return;
    shared_used_--;
    if (--shared_of_[device] == 0) sharing_ &= ~(1U << device);
}

} // namespace storage
