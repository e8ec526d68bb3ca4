// SPDX-License-Identifier: MIT
#include <algorithm>
#include <block/virtio_transport.hpp>
#include <lib/bits.hpp>

namespace block {
namespace {

// [pci/3.0] 6.1 and 6.7
constexpr u32 command_and_status = 4, first_bar = 0x10, capability_pointer = 0x34, header_size = 0x40;
constexpr u32 HAS_CAPABILITIES = u32{1} << 20;
constexpr u32 VENDOR_SPECIFIC = 9;
constexpr u32 space_size = 256;
constexpr u32 most_capabilities = (space_size - header_size) / 4;

// cfg_type of a capability, [virtio/1.2] 4.1.4. The ISR status is not needed: there is MSI-X.
constexpr u32 COMMON_CFG = 1, NOTIFY_CFG = 2, DEVICE_CFG = 4;

// Offsets in the common configuration, [virtio/1.2] 4.1.4.3. queue_reset and what follows need features of their own.
constexpr u32 device_feature_select = 0, device_feature = 4, driver_feature_select = 8, driver_feature = 12,
              config_msix_vector = 16, device_status = 20, config_generation = 21, queue_select = 22,
              queue_size_at = 24, queue_msix_vector = 26, queue_enable = 28, queue_notify_off = 30, queue_desc = 32,
              queue_driver = 40, queue_device = 48, common_size = 56;
constexpr u32 NO_VECTOR = 0xffff;

} // namespace

std::string_view VirtioTransport::find() {
    common_ = notify_ = configuration_ = {};
    refused_ = "has no registers of virtio 1.0 or later";
    if (function_.configuration(0) == ~u32{0}) return "does not answer";
    if ((function_.configuration(command_and_status) & HAS_CAPABILITIES) == 0) return refused_;
    u32 at = function_.configuration(capability_pointer) & 0xfc;
    for (u32 left = most_capabilities; at != 0; left--) {
        if (left == 0) return "has a list of capabilities without an end";
        if (at < header_size) return "has a capability inside of the header of its configuration space";
        u32 const head = function_.configuration(at);
        if ((head & 0xff) == VENDOR_SPECIFIC) consider(at, head);
        at = head >> 8 & 0xfc;
    }
    if (common_.size == 0 || notify_.size == 0 || configuration_.size == 0) return refused_;
    return {};
}

// [virtio/1.2] 4.1.4.2: of several structures of one type, the first that can be used is the one to use.
void VirtioTransport::consider(u32 capability, u32 head) {
    u32 const length = head >> 16 & 0xff;
    u32 const type = head >> 24;
    u32 const needed = type == NOTIFY_CFG ? 20 : 16;
    if (type != COMMON_CFG && type != NOTIFY_CFG && type != DEVICE_CFG) return;
    if (length < needed || capability + needed > space_size) {
        refused_ = "has a capability that is too short";
        return;
    }
    if (type == COMMON_CFG && common_.size == 0) take(common_, capability, common_size, 4);
    if (type == DEVICE_CFG && configuration_.size == 0) take(configuration_, capability, 8, 4);
    if (type == NOTIFY_CFG && notify_.size == 0) {
        take(notify_, capability, 2, 2);
        notify_multiplier_ = function_.configuration(capability + 16);
    }
}

// Of a structure that is longer than the BAR, the part inside counts.
void VirtioTransport::take(Place& place, u32 capability, u32 least, u32 alignment) {
    u32 const bar = function_.configuration(capability + 4) & 0xff;
    u32 const offset = function_.configuration(capability + 8);
    u32 const length = function_.configuration(capability + 12);
    if (bar > 5 || function_.bar_size(bar) == 0) {
        refused_ = "has registers in a BAR that is not there";
        return;
    }
    if ((function_.configuration(first_bar + 4 * bar) & 1) != 0) {
        refused_ = "has registers in a BAR that is not memory";
        return;
    }
    u64 const size = function_.bar_size(bar);
    if (offset % alignment != 0 || offset >= size || std::min<u64>(length, size - offset) < least) {
        refused_ = "has registers that are not inside of their BAR";
        return;
    }
    place = {bar, offset, static_cast<u32>(std::min<u64>(length, size - offset))};
}

u32 VirtioTransport::read(u32 offset, u32 width) { return function_.read(common_.bar, common_.offset + offset, width); }

void VirtioTransport::write(u32 offset, u32 width, u32 value) {
    function_.write(common_.bar, common_.offset + offset, width, value);
}

void VirtioTransport::write_address(u32 offset, u64 value) {
    write(offset, 4, static_cast<u32>(value));
    write(offset + 4, 4, static_cast<u32>(value >> 32));
}

u8 VirtioTransport::status() { return static_cast<u8>(read(device_status, 1)); }
void VirtioTransport::set_status(u8 value) { write(device_status, 1, value); }
u8 VirtioTransport::generation() { return static_cast<u8>(read(config_generation, 1)); }

u64 VirtioTransport::offered_features() {
    write(device_feature_select, 4, 0);
    u64 const low = read(device_feature, 4);
    write(device_feature_select, 4, 1);
    return low | u64{read(device_feature, 4)} << 32;
}

void VirtioTransport::accept_features(u64 features) {
    write(driver_feature_select, 4, 0);
    write(driver_feature, 4, static_cast<u32>(features));
    write(driver_feature_select, 4, 1);
    write(driver_feature, 4, static_cast<u32>(features >> 32));
}

u16 VirtioTransport::queue_size() {
    write(queue_select, 2, 0);
    return static_cast<u16>(read(queue_size_at, 2));
}

std::string_view VirtioTransport::start_queue(Queue const& queue) {
    write(config_msix_vector, 2, NO_VECTOR);
    write(queue_select, 2, 0);
    write(queue_size_at, 2, queue.size);
    write(queue_msix_vector, 2, 0);
    if (read(queue_msix_vector, 2) != 0) return "has no MSI-X vector for its queue";
    u64 const notify = u64{read(queue_notify_off, 2)} * notify_multiplier_;
    if (notify > notify_.size - 2 || notify % 2 != 0) return "has a doorbell that is not among its registers";
    notify_at_ = notify_.offset + static_cast<u32>(notify);
    write_address(queue_desc, queue.descriptors);
    write_address(queue_driver, queue.available);
    write_address(queue_device, queue.used);
    write(queue_enable, 2, 1);
    return {};
}

void VirtioTransport::notify() { function_.write(notify_.bar, notify_at_, 2, 0); }

u32 VirtioTransport::configuration(u32 offset) {
    return function_.read(configuration_.bar, configuration_.offset + offset, 4);
}

} // namespace block
