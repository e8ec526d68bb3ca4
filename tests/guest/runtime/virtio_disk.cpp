// SPDX-License-Identifier: MIT
#include "runtime/virtio_disk.hpp"

#include "runtime/apic.hpp"

namespace guest {
namespace {

constexpr u16 NEXT = 1, WRITE = 2, INDIRECT = 4;            // of a descriptor [virtio/1.2] 2.7.5
constexpr u32 RED_HAT_BLOCK_DEVICE = 0x1042'1af4;           // [virtio/1.2] 4.1.2, 5.2.1
constexpr u8 VENDOR_SPECIFIC = 0x09, MSIX = 0x11;           // capabilities [pci/3.0] 6.7
constexpr u32 COMMON_CFG = 1, NOTIFY_CFG = 2;               // [virtio/1.2] 4.1.4
constexpr u64 INDIRECT_DESC = 1 << 28, EVENT_IDX = 1 << 29; // [virtio/1.2] 6
constexpr u64 VERSION_1 = u64{1} << 32;
constexpr u8 ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8; // [virtio/1.2] 2.1
// Common configuration. [virtio/1.2] 4.1.4.3
constexpr u64 driver_feature_select = 8, driver_feature = 12, device_status = 20, queue_select = 22, queue_length = 24,
              queue_msix_vector = 26, queue_enable = 28, queue_desc = 32, queue_driver = 40, queue_device = 48;
// Where this driver puts the BARs: in the windows of Mullion's PCI bus (lib/platform_layout.hpp).
constexpr u32 registers_bar = 0xc100'0000, msix_bar = 0xc200'0000, port_bar = 0xc000;
constexpr u32 BAR0 = 0x10, BAR1 = 0x14, BAR2 = 0x18, BAR4 = 0x20, COMMAND = 4, CAPABILITIES = 0x34;
constexpr u32 use_ports = 1, use_memory = 2, bus_master = 4;

u32 config_read(u32 slot, u32 offset) {
    x86::out32(0xcf8, 0x8000'0000 | slot << 11 | offset);
    return x86::in32(0xcfc);
}
void config_write(u32 slot, u32 offset, u32 value) {
    x86::out32(0xcf8, 0x8000'0000 | slot << 11 | offset);
    x86::out32(0xcfc, value);
}

} // namespace

bool VirtioDisk::find_registers(u32 device) {
    config_write(device, BAR0, registers_bar);
    config_write(device, BAR1, 0);
    config_write(device, BAR2, msix_bar);
    config_write(device, BAR4, port_bar);
    config_write(device, COMMAND, use_ports | use_memory | bus_master);
    bool has_msix = false;
    for (u32 at = config_read(device, CAPABILITIES) & 0xfc; at != 0; at = config_read(device, at) >> 8 & 0xfc) {
        u32 const head = config_read(device, at), bar = config_read(device, at + 4) & 0xff,
                  offset = config_read(device, at + 8);
        if ((head & 0xff) == MSIX) {
            has_msix = true;
            config_write(device, at, head | 0x8000'0000);
        }
        if ((head & 0xff) != VENDOR_SPECIFIC) continue;
        if (head >> 24 == COMMON_CFG) common_ = registers_bar + offset;
        if (head >> 24 == NOTIFY_CFG && bar == 0) doorbell_address_ = registers_bar + offset;
        if (head >> 24 == NOTIFY_CFG && bar == 4) doorbell_port_ = static_cast<u16>(port_bar + offset);
    }
    return has_msix && common_ != 0 && doorbell_address_ != 0 && doorbell_port_ != 0;
}

bool VirtioDisk::agree() {
    auto const set_status = [this](u32 bits) { x86::store8(common_ + device_status, static_cast<u8>(bits)); };
    set_status(0);
    while (x86::load8(common_ + device_status) != 0)
        x86::pause();
    set_status(ACKNOWLEDGE | DRIVER);
    u64 const features = VERSION_1 | INDIRECT_DESC | EVENT_IDX;
    for (u32 half = 0; half < 2; half++) {
        x86::store32(common_ + driver_feature_select, half);
        x86::store32(common_ + driver_feature, static_cast<u32>(features >> (half * 32)));
    }
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    if ((x86::load8(common_ + device_status) & FEATURES_OK) == 0) return false;
    x86::store16(common_ + queue_select, 0);
    x86::store16(common_ + queue_length, queue_size);
    x86::store16(common_ + queue_msix_vector, 1);
    x86::store64(common_ + queue_desc, reinterpret_cast<u64>(rings_.descriptors.data()));
    x86::store64(common_ + queue_driver, reinterpret_cast<u64>(&rings_.available_flags));
    x86::store64(common_ + queue_device, reinterpret_cast<u64>(&rings_.used_flags));
    x86::store16(common_ + queue_enable, 1);
    set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    return x86::load8(common_ + device_status) == (ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

bool VirtioDisk::start(u8 vector) {
    u32 device = 0;
    while (device < 32 && config_read(device, 0) != RED_HAT_BLOCK_DEVICE)
        device++;
    if (device == 32 || !find_registers(device)) return false;
    u64 const entry = msix_bar + 16; // vector 1 of the table [pci/3.0] 6.8.2
    x86::store32(entry, 0xfee0'0000);
    x86::store32(entry + 4, 0);
    x86::store32(entry + 8, vector);
    x86::store32(entry + 12, 0);
    return agree();
}

void VirtioDisk::prepare(u32 slot, Type type, u64 sector, void* data, u32 size) {
    Request& request = requests_[slot];
    request.header = {type, 0, sector};
    request.status = 0xff;
    u16 const direction = type == Read ? WRITE : 0;
    u16 count = 0;
    auto const add = [&](void const* at, u32 bytes, u16 flags) {
        request.table[count] = {reinterpret_cast<u64>(at), bytes, flags, static_cast<u16>(count + 1)};
        count++;
    };
    add(&request.header, sizeof(request.header), NEXT);
    if (size != 0) add(data, size, NEXT | direction);
    add(&request.status, 1, WRITE);
    u32 const bytes = count * static_cast<u32>(sizeof(Descriptor));
    rings_.descriptors[slot] = {reinterpret_cast<u64>(request.table.data()), bytes, INDIRECT, 0};
}

void VirtioDisk::pretend(u16 count) {
    for (u16 i = 0; i < count; i++) {
        u16 const slot = static_cast<u16>(i % slots);
        requests_[slot].status = 0;
        rings_.used[rings_.used_index++ % queue_size] = {slot, 0};
    }
    rings_.available_event = next_;
}

} // namespace guest
