// SPDX-License-Identifier: MIT
#pragma once
// A disk: the transport and what a driver reads of the disk's shape. The requests are served outside of the platform:
// queues, doorbells and stops go to the Host, in order, and interrupts and misuse come back through the Platform.
// [virtio/1.2] 5.2
//
// Whoever serves the queues is not trusted: what it says of a queue that is not started, or while a stop is under way,
// is ignored. A device that loses the right to write to memory stops its queues and needs a reset; only a reset makes
// sure that a new kernel (kexec) finds its memory untouched by the requests of the old one.
//
// Not supported: a write cache that a driver turns off (CONFIG_WCE), secure erase, zoned disks.
#include <platform/virtio_pci.hpp>

namespace platform {

class VirtioBlk : public VirtioPci {
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

    void on(Event const&) override {}
    State save() const;
    // Fails with BadFormat also for the state of a disk of another shape. The queues start at the place in their rings
    // that the host knows of.
    lib::Result<void> restore(State const& state);

    // What the one that serves the queues says.
    void serving_interrupts(u32 queue);
    void serving_found_misuse();
    void serving_stopped();

protected:
    VirtioBlk(Plug const& plug, u32 number);
    ~VirtioBlk() = default;

private:
    bool start_queue(u32 queue, lib::QueueSetup const& setup) override;
    bool stop_queues() override;
    void bus_master_lost() override;
    void doorbell(u32 queue) override { host_.disk_doorbell(number_, queue); }
    bool is_started(u32 queue) const { return queue < lib::max_disk_queues && (started_ >> queue & 1) != 0; }

    Host& host_;
    lib::GuestMemory const& memory_;
    DiskFacts facts_;
    u32 number_;
    u32 started_ = 0; // bit n: queue n
    u32 stops_ = 0;   // under way
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
