// SPDX-License-Identifier: MIT
#pragma once
// Binds the disks of VMs to the service that serves their queues: what the service sees of guests, and who gets its
// interrupts. Changes reach the service while it waits (kernel/service_host.hpp), in the order in which they were told.
#include <array>
#include <kernel/services.hpp>
#include <kernel/spinlock.hpp>
#include <lib/service_board.hpp>
#include <lib/split_queue.hpp>
#include <vm/guest_ram.hpp>

namespace manage {

using lib::u32;
using lib::u64;
using lib::u8;

// Whose disk it is: a VM. From attach() until the disk has left.
class DiskOwner {
public:
    // On any CPU, with interrupts off and no lock held. The queue's number is hostile.
    virtual void disk_interrupt(u32 disk, u32 queue) = 0;
    virtual void disk_misused(u32 disk) = 0;
    // In the run loop of CPU 0: once for each stop_queues().
    virtual void disk_stopped(u32 disk) = 0;
    // The service cannot get at it: there was no memory for the tables of its windows.
    virtual void disk_failed(u32 disk) = 0;

protected:
    ~DiskOwner() = default;
};

class Storage final : public kernel::ServiceHost {
public:
    static constexpr u32 most = lib::service::max_devices;
    static constexpr u32 none = ~u32{0};
    static constexpr std::string_view service_name = "storage";
    // All of it lives until the disk has left.
    struct Disk {
        DiskOwner* owner;
        u32 number; // among those of its owner
        u32 queue_count;
        bool is_read_only;
        std::span<vm::RamBlock const> ram;    // of the guest
        std::span<vm::RamBlock const> medium; // the addresses are offsets in the disk
        u64 medium_size;
        std::string_view serial;
    };

    Storage(kernel::Services& services, std::span<u8 const> program) : services_(services), program_(program) {}

    // In the run loop of CPU 0. Starts the service with the first disk. Returns the disk's number here; an error is a
    // sentence without its subject.
    std::expected<u32, std::string_view> attach(Disk const& disk);
    // From any CPU and context, with the owner's platform locked or not. `device`: what attach() returned.
    void start_queue(u32 device, u32 queue, lib::QueueSetup const& setup);
    void stop_queues(u32 device);
    void doorbell(u32 device) { services_.post(service_, lib::service::event_doorbell(device)); }
    // The service will see no more of it; later it has left.
    void detach(u32 device);
    // Takes back an attach() of this very turn of the run loop: the service has not heard of it yet.
    void cancel(u32 device) { devices_[device] = {}; }
    // In the run loop of CPU 0.
    bool has_left(DiskOwner const& owner) const;

    // kernel::ServiceHost
    lib::Result<void> furnish(kernel::Service& instance) override;
    void change(kernel::Service* instance) override;
    bool interrupt(u64 device, u64 queue) override;
    bool misused(u64 device) override;

private:
    struct Device {
        Disk disk{};
        bool is_used = false;
        bool is_served = false; // it is on the board, and whoever runs sees its windows
        // Told, and not yet on the board. Under the lock.
        bool is_leaving = false;
        u32 stops = 0;
        std::array<lib::service::QueueEntry, lib::service::max_device_queues> queues{};
    };

    lib::Result<void> make_pages();
    std::expected<void, std::string_view> start_service();
    lib::service::DeviceEntry& entry(u32 device) { return board_->devices[device]; }
    static lib::Result<void> map_windows(kernel::Service& instance, u32 device, Disk const& disk);
    static void unmap_windows(kernel::Service& instance, u32 device, Disk const& disk);
    bool describe(u32 device);
    void change_one(u32 device, kernel::Service* instance);

    kernel::Services& services_;
    std::span<u8 const> program_;
    u32 service_ = kernel::Services::most; // none yet
    lib::HostPhys board_frames_{}, records_frame_{};
    lib::service::Board* board_ = nullptr;
    kernel::Spinlock<kernel::LockRank::Devices> lock_;
    std::array<Device, most> devices_{};
    u32 epoch_ = 0;
};

} // namespace manage
