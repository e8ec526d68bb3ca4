// SPDX-License-Identifier: MIT
#pragma once
// Disks of VMs and the service that serves them: their media, and the machine's controllers and disks, which the
// service drives and describes.
#include <lib/service_board.hpp>
#include <manage/controllers.hpp>
#include <manage/disk_catalogue.hpp>
#include <manage/served_devices.hpp>

namespace manage {

class Storage final : public ServedDevices {
public:
    static constexpr std::string_view service_name = "storage";
    static constexpr u64 look_seconds = 40; // for which it may look for disks
    // All of it lives until the disk has left.
    struct Disk {
        DeviceOwner* owner;
        u32 number; // among the devices of its owner
        u32 queue_count;
        bool is_read_only;
        std::span<vm::RamBlock const> ram;    // of the guest
        std::span<vm::RamBlock const> medium; // the addresses are offsets in the disk; empty: it is `part`
        u64 medium_size;
        MachinePart part;
        std::string_view serial;
        u32 iops = 0;      // requests a second at most; 0: no limit
        u64 bandwidth = 0; // bytes a second at most; 0: no limit
    };

    Storage(kernel::Services& services, std::span<u8 const> program, Controllers::Line line)
        : ServedDevices(services, service_name, program),
          controllers_(lib::Delegate<void(u32)>::to<&Storage::interrupt_came>(*this), line) {}

    // In the run loop of CPU 0. Whether the machine's disks are known, or will not be: the service is started for that.
    bool knows_disks();
    // What the service has said of them. `body` gets the catalogue; with a lock held.
    template <typename Body> auto with_catalogue(Body body) {
        kernel::InterruptGuard const no_interrupts;
        kernel::LockGuard const locked(lock_);
        return body(catalogue_);
    }
    // In the run loop of CPU 0. Starts the service with the first disk. Returns the disk's number here; an error is a
    // sentence without its subject.
    std::expected<u32, std::string_view> attach(Disk const& disk);
    // In the run loop of CPU 0. Who uses a part of a disk, or some of it; empty: nobody does.
    std::string_view user_of(MachinePart const& part) const;
    // In the run loop of CPU 0. Says in `size` how large a VM's disk is, and in `said` what the service has counted of
    // it: no number of that is believed. False: it is not attached.
    bool figures_of(std::string_view owner, u32 disk, u64& size, lib::service::DiskStatistics& said) const;

    // kernel::ServiceHost
    lib::Result<void> furnish(kernel::Service& instance) override;
    void ended() override { controllers_.stop(); }
    u64 call(lib::service::Call number, u64 first, u64 second) override;

private:
    // What a device here is, and has of the machine's disks; as long as it has an owner.
    struct Claim {
        u32 number = 0; // among the disks of its owner
        u64 medium_size = 0;
        MachinePart part{};
        bool is_read_only = false;
    };

    lib::Result<void> make_pages();
    std::expected<void, std::string_view> start();
    bool is_taken(Disk const& disk) const;
    void interrupt_came(u32 controller) { services().post(service(), lib::service::event_controller(controller)); }
    u64 take_catalogue();

    Controllers controllers_;
    bool has_pages_ = false;
    lib::HostPhys catalogue_frames_{}, statistics_frames_{};
    u64 looking_since_ = 0; // ns; 0: nobody has asked for the machine's disks
    std::array<Claim, most> claims_{};
    kernel::Spinlock<kernel::LockRank::Devices> lock_;
    DiskCatalogue catalogue_; // under the lock
};

} // namespace manage
