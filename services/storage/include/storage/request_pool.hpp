// SPDX-License-Identifier: MIT
#pragma once
// The requests that are served at the moment, of all queues. Each queue can always have one; the rest is shared by the
// disks that want more than that, in equal parts, so that nobody's requests wait for those of a busy neighbour.
#include <array>
#include <lib/service_board.hpp>
#include <storage/block_request.hpp>

namespace storage {

class RequestPool {
public:
    static constexpr u32 max_queues = lib::service::max_devices * lib::service::max_device_queues;
    static constexpr u16 shared = 96, capacity = max_queues + shared, none = 0xffff;

    struct Entry {
        BlockRequest request;
        u64 taken_at = 0; // ticks
        u16 next = none;  // of the same queue
        u8 queue = 0;     // among those of all devices
        u8 controller = 0;
        bool is_dropped = false; // its queue does not wait for it any more
    };

    RequestPool() {
        for (u16 i = 0; i < capacity; i++)
            free_[i] = i;
    }
    Entry& operator[](u16 index) { return entries_[index]; }

    // Returns an entry for a queue; none: the queue has its part, and is noted as one that wants more.
    u16 take(u32 queue);
    void release(u16 index);
    // The queues that take() refused since they got one last, or nobody asked for them any more.
    u64 refused() const { return refused_; }
    void forget(u32 queue) { refused_ &= ~(u64{1} << queue); }

private:
    static u32 device_of(u32 queue) { return queue / lib::service::max_device_queues; }
    bool may_share(u32 device) const;

    std::array<u16, capacity> free_{};
    u32 free_count_ = capacity, shared_used_ = 0;
    u64 refused_ = 0;
    std::array<u16, max_queues> held_{};
    std::array<u16, lib::service::max_devices> shared_of_{}; // what each has beyond one for each queue
    u32 sharing_ = 0;                                        // bit N: device N has some of those
    std::array<Entry, capacity> entries_{};
};

} // namespace storage
