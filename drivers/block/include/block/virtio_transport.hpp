// SPDX-License-Identifier: MIT
#pragma once
// Registers of a modern virtio device on PCI: where they are, and what they mean. [virtio/1.2] 4.1
#include <block/function.hpp>

namespace block {

class VirtioTransport {
public:
    // Of the status register. [virtio/1.2] 2.1
    static constexpr u8 ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, DEVICE_NEEDS_RESET = 64;
    static constexpr u8 gone = 0xff; // what a device that is not there any more answers

    struct Queue {
        u16 size;
        u64 descriptors, available, used; // for the device
    };

    explicit VirtioTransport(Function& function) : function_(function) {}

    // Looks for the structures in configuration space. Returns why the device cannot be driven, or nothing.
    std::string_view find();

    u8 status();
    void set_status(u8 value); // 0: reset, which is over when the status is 0
    u64 offered_features();
    void accept_features(u64 features);

    // The largest size of queue 0; 0: there is none.
    u16 queue_size();
    // Sets queue 0 up, with MSI-X vector 0. Returns why that cannot be, or nothing.
    std::string_view start_queue(Queue const& queue);
    void notify(); // tells the device of what is new in queue 0

    // The device configuration: how many bytes there are, and 32 of its bits at a multiple of 4 below that.
    u32 configuration_size() const { return configuration_.size; }
    u32 configuration(u32 offset);
    u8 generation(); // another number after a change of the device configuration

private:
    struct Place {
        u32 bar, offset, size; // size 0: not found
    };

    void consider(u32 capability, u32 head);
    void take(Place& place, u32 capability, u32 least, u32 alignment);
    u32 read(u32 offset, u32 width);
    void write(u32 offset, u32 width, u32 value);
    void write_address(u32 offset, u64 value);

    Function& function_;
    Place common_{}, notify_{}, configuration_{};
    u32 notify_multiplier_ = 0, notify_at_ = 0;
    std::string_view refused_; // why a structure cannot be used
};

} // namespace block
