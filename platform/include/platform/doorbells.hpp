// SPDX-License-Identifier: MIT
#pragma once
// Where the doorbells of a VM's served devices (disks and NICs) are at the moment, for vCPUs that look without the
// platform's lock. A place that is found here is a doorbell of a running queue: the vCPU has to tell whoever serves the
// device, and nothing else. A place that is not found here may still be a doorbell; the platform decides about it, with
// its lock, as about any access.
//
// Why a look without the lock is safe:
// - Lifetime. The entries are a part of the platform, and are neither allocated nor freed while it exists. The platform
//   is destroyed after the VM's last vCPU has stopped for good, and only vCPUs look. A look yields a number, no
//   pointer.
// - Writers. All calls of set() and clear() happen with the platform's lock, so no two threads write at once.
// - A look in the middle of a change. Each look reads an entry's place once, in one piece, so it finds the old place or
//   the new one. The set of queues may be newer or older than that place. The look counts as done when the place was
//   read: the device's doorbells were there at that time, so the access belonged to this device. A newer or older set
//   of queues means at most one event for a queue that has no work or is off. A service takes such events at any time:
//   it looks into the queues that the board says are on, and finds nothing new.
// - A look after a change. A vCPU that has seen by the guest's memory that another vCPU's access has ended finds what
//   that access wrote here: x86 makes the stores of one CPU visible in their order. [intel/vol3] 9.2.2
// - A look across a reset or a stop. The event is posted for a device whose number stays its own until the VM's last
//   vCPU has stopped and the service has let go of it. So no other VM's device gets it.
#include <array>
#include <atomic>
#include <lib/limits.hpp>
#include <lib/types.hpp>

namespace platform {

using lib::u32;
using lib::u64;
using lib::u8;

class Doorbells {
public:
    static constexpr u32 none = ~u32{0}, stride = 4; // bytes from one queue's doorbell to the next one's
    static constexpr u64 nowhere = u64{1} << 63;     // so far from every place that no difference wraps around

    // Returns the device of which a write of `size` bytes there is a doorbell; none: it is something else.
    u32 at_port(u64 port, u8 size) const { return find(&Entry::port, port, size); }
    u32 in_memory(u64 address, u8 size) const { return find(&Entry::address, address, size); }

    // `queues`: bit n says that queue n is ready for doorbells.
    void set(u32 device, u64 port, u64 address, u32 queues) {
        u32 offsets = 0;
        for (u32 queue = 0; queue < lib::max_disk_queues; queue++)
            offsets |= (queues >> queue & 1) << (queue * stride);
        Entry& entry = entries_[device];
        entry.offsets.store(offsets, std::memory_order_relaxed);
        entry.port.store(port, std::memory_order_relaxed);
        entry.address.store(address, std::memory_order_relaxed);
        if (device >= count_.load(std::memory_order_relaxed)) count_.store(device + 1, std::memory_order_release);
    }
    void clear(u32 device) { entries_[device].offsets.store(0, std::memory_order_relaxed); }

private:
    static constexpr u32 offset_count = lib::max_disk_queues * stride;
    static_assert(offset_count <= 32, "an offset is a bit number");
    struct Entry {
        std::atomic<u64> port{nowhere}, address{nowhere}; // of queue 0's doorbell
        std::atomic<u32> offsets{0};                      // bit n: a doorbell begins n bytes from there
    };
    u32 find(std::atomic<u64> Entry::* place, u64 at, u8 size) const {
        u32 const count = count_.load(std::memory_order_acquire);
        for (u32 device = 0; device < count; device++) {
            Entry const& entry = entries_.data()[device];
            u64 const offset = at - (entry.*place).load(std::memory_order_relaxed);
            if (offset >= offset_count || size > stride) continue;
            if ((entry.offsets.load(std::memory_order_relaxed) >> offset & 1) != 0) return device;
        }
        return none;
    }

    std::array<Entry, lib::max_served_devices> entries_{};
    std::atomic<u32> count_{0}; // of entries that were ever set
};

} // namespace platform
