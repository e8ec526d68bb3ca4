// SPDX-License-Identifier: MIT
#pragma once
// Binds the disks of VMs to the service that serves their queues: what the service sees of guests, and who gets its
// interrupts. Changes reach the service while it waits (kernel/service_host.hpp), in the order in which they were told.
#include <array>
#include <kernel/services.hpp>
#include <kernel/spinlock.hpp>
#include <kernel/time.hpp>
#include <lib/service_board.hpp>
#include <lib/split_queue.hpp>
#include <manage/controllers.hpp>
#include <manage/disk_catalogue.hpp>
#include <optional>
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
    // In the run loop of CPU 0: once for each stop_queues(). Nothing of the disk touches the guest's memory any more.
    virtual void disk_stopped(u32 disk) = 0;
    // The service cannot get at it: there was no memory for the tables of its windows.
    virtual void disk_failed(u32 disk) = 0;
    virtual std::string_view owner_name() const = 0;

protected:
    ~DiskOwner() = default;
};

class Storage final : public kernel::ServiceHost {
public:
    static constexpr u32 most = lib::service::max_devices;
    static constexpr u32 none = ~u32{0};
    static constexpr std::string_view service_name = "storage";
    static constexpr u64 answer_seconds = 60; // for which the service may work on what a device has begun
    static constexpr u64 look_seconds = 40;   // for which it may look for disks
    // All of it lives until the disk has left.
    struct Disk {
        DiskOwner* owner;
        u32 number; // among those of its owner
        u32 queue_count;
        bool is_read_only;
        std::span<vm::RamBlock const> ram;    // of the guest
        std::span<vm::RamBlock const> medium; // the addresses are offsets in the disk; empty: it is `part`
        u64 medium_size;
        MachinePart part;
        std::string_view serial;
    };

    Storage(kernel::Services& services, std::span<u8 const> program, Controllers::Line line)
        : services_(services), program_(program),
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
    // From any CPU and context, with the owner's platform locked or not. `device`: what attach() returned.
    void start_queue(u32 device, u32 queue, lib::QueueSetup const& setup);
    void stop_queues(u32 device);
    void doorbell(u32 device) { services_.post(service_, lib::service::event_doorbell(device)); }
    // The service will see no more of it; later it has left.
    void detach(u32 device);
    // Takes back an attach() of this very turn of the run loop: the service has not heard of it yet.
    void cancel(u32 device) { devices_[device] = {}; }
    // In the run loop of CPU 0. Who uses a part of a disk, or some of it; empty: nobody does.
    std::string_view user_of(MachinePart const& part) const;
    bool has_left(DiskOwner const& owner) const;

    // kernel::ServiceHost
    lib::Result<void> furnish(kernel::Service& instance) override;
    void change(kernel::Service* instance) override;
    void ended() override { controllers_.stop(); }
    u64 call(lib::service::Call number, u64 first, u64 second) override;

private:
    struct Device {
        Disk disk{};
        bool is_used = false;
        bool is_served = false; // it is on the board, and whoever runs sees its windows
        u32 reported = 0;       // how many stops its owner has heard of
        // Under the lock: what was told, which the board says later, and what the service has answered.
        bool is_leaving = false;
        u32 stops = 0, answered = 0;
        u64 stopped_at = 0; // ns, the last stop
        void stop(u64 now) {
            queues = {};
            stops++;
            stopped_at = now;
        }
        std::array<lib::service::QueueEntry, lib::service::max_device_queues> queues{};
    };

    lib::Result<void> make_pages();
    std::expected<void, std::string_view> start_service();
    lib::service::DeviceEntry& entry(u32 device) { return board_->devices[device]; }
    static lib::Result<void> map_windows(kernel::Service& instance, u32 device, Disk const& disk);
    static void unmap_windows(kernel::Service& instance, u32 device, Disk const& disk);
    std::expected<void, std::string_view> describe(u32 device);
    bool is_taken(Disk const& disk) const;
    void change_one(u32 device, kernel::Service* instance);
    bool serve(u32 device, kernel::Service* instance);
    void interrupt_came(u32 controller) { services_.post(service_, lib::service::event_controller(controller)); }
    void answer_is_late() { services_.ask_for_change(service_); }
    void watch_answers();
    u64 interrupt(u64 device, u64 queue);
    u64 misused(u64 device);
    u64 stopped(u64 device, u64 stops);
    u64 take_catalogue();

    kernel::Services& services_;
    std::span<u8 const> program_;
    u32 service_ = kernel::Services::most; // none yet
    Controllers controllers_;
    lib::HostPhys board_frames_{}, records_frame_{}, catalogue_frames_{};
    lib::service::Board* board_ = nullptr;
    u64 looking_since_ = 0; // ns; 0: nobody has asked for the machine's disks
    kernel::Timer late_{kernel::Timer::Callback::to<&Storage::answer_is_late>(*this)};
    kernel::Spinlock<kernel::LockRank::Devices> lock_;
    std::array<Device, most> devices_{};
    DiskCatalogue catalogue_; // under the lock
    u32 epoch_ = 0;
};

} // namespace manage
