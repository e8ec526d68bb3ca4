// SPDX-License-Identifier: MIT
#pragma once
// A disk: what a driver reads of the disk's shape. The requests are served outside of the platform. [virtio/1.2] 5.2
//
// Not supported: a write cache that a driver turns off (CONFIG_WCE), secure erase, zoned disks.
#include <platform/served_virtio.hpp>

namespace platform {

class VirtioBlk : public ServedVirtio {
public:
    static constexpr u16 state_version = 1;
    static constexpr u16 queue_size = lib::SplitQueue::max_size;
    static constexpr u32 configuration_size = 60; // [virtio/1.2] 5.2.4, without the fields of secure erase
    struct State {
        VirtioPci::State transport;
        std::array<Queue, lib::max_disk_queues> queues;
        u64 sectors; // these say which disk it was
        u32 queue_count;
        u8 is_there, is_read_only, reserved[2];
    };

    State save() const;
    // Fails with BadFormat also for the state of a disk of another shape. The queues start at the place in their rings
    // that the host knows of.
    lib::Result<void> restore(State const& state);

protected:
    VirtioBlk(Plug const& plug, u32 number);
    ~VirtioBlk() = default;

private:
    DiskFacts facts_;
    std::array<Queue, lib::max_disk_queues> queues_{};
    std::array<u8, configuration_size> configuration_{};
};

// The disk with this number among those of the VM.
template <u32 Number> class Disk final : public VirtioBlk {
public:
    static constexpr u32 number = Number, pci_slot = 2 + Number;
    explicit Disk(Plug const& plug) : VirtioBlk(plug, Number) {}
    static bool is_in(MachineFacts const& facts) { return facts.disks[Number].is_there; }
};

} // namespace platform
