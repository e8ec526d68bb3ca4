// SPDX-License-Identifier: MIT
#pragma once
// Binds devices of VMs to the service that serves their queues: what the service sees of guests, and which VM gets its
// interrupts. Changes reach the service while it waits (kernel/service_host.hpp), in the order in which they were told.
// What is peculiar to a kind of device is in a class that derives from this.
#include <array>
#include <expected>
#include <kernel/services.hpp>
#include <kernel/spinlock.hpp>
#include <kernel/time.hpp>
#include <lib/service_board.hpp>
#include <lib/split_queue.hpp>
#include <span>
#include <vm/guest_ram.hpp>

namespace manage {

using lib::u32;
using lib::u64;
using lib::u8;

// Whose devices they are: a VM. From attach() until the device has left.
class DeviceOwner {
public:
    // On any CPU, with interrupts off and no lock held. The queue's number is hostile.
    virtual void served_interrupt(u32 device, u32 queue) = 0;
    virtual void served_misused(u32 device) = 0;
    // In the run loop of CPU 0: once for each stop_queues(). The service touches the guest's memory for the device no
    // more.
    virtual void served_stopped(u32 device) = 0;
    // The service cannot get at it: there was no memory for the tables of its windows.
    virtual void served_failed(u32 device) = 0;
    virtual std::string_view owner_name() const = 0;

protected:
    ~DeviceOwner() = default;
};

// All of it lives until the device has left.
struct ServedDevice {
    DeviceOwner* owner;
    u32 number; // among those of its owner
    u32 queue_count;
    std::span<vm::RamBlock const> ram;    // of the guest
    std::span<vm::RamBlock const> medium; // of a disk in memory: the addresses are offsets in it
    bool is_medium_read_only;
    bool is_reached_by_dma; // the machine's devices read and write the RAM
};

class ServedDevices : public kernel::ServiceHost {
public:
    static constexpr u32 most = lib::service::max_devices;
    static constexpr u64 answer_seconds = 60; // for which the service may work on what a device has begun

    // From any CPU and context, with the owner's platform locked or not. `device`: what add() returned.
    void start_queue(u32 device, u32 queue, lib::QueueSetup const& setup);
    void stop_queues(u32 device);
    void doorbell(u32 device) { services_.post(service_, lib::service::event_doorbell(device)); }
    // The service will see no more of it; later it has left.
    void detach(u32 device);
    // Takes back an add() of this very turn of the run loop: the service has not heard of it yet.
    void cancel(u32 device) { devices_[device] = {}; }
    // In the run loop of CPU 0.
    bool has_left(DeviceOwner const& owner) const;

    // kernel::ServiceHost
    lib::Result<void> furnish(kernel::Service& instance) override;
    void change(kernel::Service* instance) final;
    u64 call(lib::service::Call number, u64 first, u64 second) override;

protected:
    ServedDevices(kernel::Services& services, std::string_view name, std::span<u8 const> program)
        : services_(services), name_(name), program_(program) {}
    ~ServedDevices() { kernel::cancel_timer(late_); }

    // In the run loop of CPU 0, as all that follows. Errors are sentences without their subject.
    // The board and the records, once.
    lib::Result<void> make_pages();
    // Starts the service if it has not been started, after make_pages().
    std::expected<void, std::string_view> start_service();
    // `entry` has what is peculiar to the kind of device. Returns the device's number here.
    std::expected<u32, std::string_view> add(ServedDevice const& device, lib::service::DeviceEntry const& entry);
    // The owner of a device; nullptr: there is no such device.
    DeviceOwner const* owner_of(u32 device) const { return devices_[device].device.owner; }
    u32 number_of(u32 device) const { return devices_[device].device.number; } // among those of its owner
    lib::service::Board& board() { return *board_; }
    lib::service::Board const& board() const { return *board_; }
    kernel::Services& services() { return services_; }
    u32 service() const { return service_; }

private:
    struct Device {
        ServedDevice device{}; // without an owner: there is none
        lib::service::DeviceKind kind{};
        bool is_served = false; // it is on the board, and whichever instance runs sees its windows
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
        bool is_used() const { return device.owner != nullptr; }
    };

    lib::service::DeviceEntry& entry(u32 device) { return board_->devices[device]; }
    static lib::Result<void> map_windows(kernel::Service& instance, u32 number, ServedDevice const& device);
    static void unmap_windows(kernel::Service& instance, u32 number, ServedDevice const& device);
    static std::expected<void, std::string_view> describe_ram(ServedDevice const& device,
                                                              lib::service::DeviceEntry& made);
    void change_one(u32 number, kernel::Service* instance);
    bool serve(u32 number, kernel::Service* instance);
    void answer_is_late() { services_.ask_for_change(service_); }
    void watch_answers();
    u64 interrupt(u64 device, u64 queue);
    u64 misused(u64 device);
    u64 stopped(u64 device, u64 stops);

    kernel::Services& services_;
    std::string_view name_;
    std::span<u8 const> program_;
    u32 service_ = kernel::Services::most; // none yet
    lib::HostPhys board_frames_{}, records_frame_{};
    lib::service::Board* board_ = nullptr;
    kernel::Timer late_{kernel::Timer::Callback::to<&ServedDevices::answer_is_late>(*this)};
    kernel::Spinlock<kernel::LockRank::Devices> lock_;
    std::array<Device, most> devices_{};
    u32 epoch_ = 0;
};

} // namespace manage
