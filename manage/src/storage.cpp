// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <kernel/log.hpp>
#include <manage/storage.hpp>

namespace manage {
namespace {

namespace service = lib::service;
using kernel::Mapping;
using kernel::Rights;
using lib::HostVirt;

constexpr unsigned board_order = std::bit_width((sizeof(service::Board) - 1) / lib::page_size);
static_assert(sizeof(service::Records) <= lib::page_size);

Mapping<HostVirt> window(u64 at, vm::RamBlock const& block, Rights rights) {
    return {HostVirt{at + block.base.value}, block.host, block.size, rights};
}

} // namespace

lib::Result<void> Storage::make_pages() {
    if (board_ != nullptr) return {};
    records_frame_ = TRY(kernel::allocate_zeroed_frame());
    auto const frames = kernel::allocate_frames(board_order);
    if (!frames) {
        kernel::free_frames(records_frame_, 0);
        return lib::fail(frames.error());
    }
    board_frames_ = *frames;
    board_ = kernel::phys_to_virt<service::Board>(board_frames_);
    std::memset(board_, 0, lib::page_size << board_order);
    return {};
}

std::expected<void, std::string_view> Storage::start_service() {
    if (!make_pages()) return std::unexpected("there is too little memory for the storage service");
    if (service_ == kernel::Services::most) service_ = services_.add(service_name, program_, this);
    if (service_ == kernel::Services::most) return std::unexpected("the storage service cannot be started; see above");
    return {};
}

std::expected<u32, std::string_view> Storage::attach(Disk const& disk) {
    if (auto const started = start_service(); !started) return std::unexpected(started.error());
    auto const free = std::ranges::find(devices_, false, &Device::is_used);
    if (free == devices_.end()) return std::unexpected("the storage service has as many disks as it can serve");
    auto const device = static_cast<u32>(free - devices_.begin());
    *free = {.disk = disk, .is_used = true};
    if (!describe(device)) {
        free->is_used = false;
        return std::unexpected("its VM's memory has too many holes");
    }
    services_.ask_for_change(service_);
    return device;
}

// The board's entry, but for its queues; of no kind until it is served.
bool Storage::describe(u32 device) {
    Disk const& disk = devices_[device].disk;
    service::DeviceEntry made{};
    made.queue_count = disk.queue_count;
    made.is_read_only = disk.is_read_only ? 1 : 0;
    made.medium_size = disk.medium_size;
    disk.serial.copy(made.serial, sizeof(made.serial) - 1);
    for (vm::RamBlock const& block : disk.ram) {
        service::RamArea* const last = made.ram_area_count == 0 ? nullptr : &made.ram[made.ram_area_count - 1];
        if (last != nullptr && last->base + last->size == block.base.value) {
            last->size += block.size;
            continue;
        }
        if (made.ram_area_count == service::max_ram_areas) return false;
        made.ram[made.ram_area_count++] = {block.base.value, block.size};
    }
    entry(device) = made;
    return true;
}

void Storage::start_queue(u32 device, u32 queue, lib::QueueSetup const& setup) {
    kernel::InterruptGuard const no_interrupts;
    {
        kernel::LockGuard const locked(lock_);
        epoch_ = std::max(epoch_ + 1, 1U);
        devices_[device].queues[queue] = {.descriptors = setup.descriptors,
                                          .available = setup.available,
                                          .used = setup.used,
                                          .size = setup.size,
                                          .has_event_index = static_cast<u8>(setup.has_event_index),
                                          .has_indirect = static_cast<u8>(setup.has_indirect),
                                          .epoch = epoch_};
    }
    services_.ask_for_change(service_);
}

void Storage::stop_queues(u32 device) {
    kernel::InterruptGuard const no_interrupts;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].queues = {};
        devices_[device].stops++;
    }
    services_.ask_for_change(service_);
}

void Storage::detach(u32 device) {
    kernel::InterruptGuard const no_interrupts;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].queues = {};
        devices_[device].is_leaving = true;
    }
    services_.ask_for_change(service_);
}

bool Storage::has_left(DiskOwner const& owner) const {
    return std::ranges::none_of(devices_, [&](Device const& d) { return d.is_used && d.disk.owner == &owner; });
}

lib::Result<void> Storage::map_windows(kernel::Service& instance, u32 device, Disk const& disk) {
    for (vm::RamBlock const& block : disk.ram)
        TRY(instance.map(window(service::ram_window(device), block, Rights::ReadWrite)));
    for (vm::RamBlock const& block : disk.medium)
        TRY(instance.map(
            window(service::medium_window(device), block, disk.is_read_only ? Rights::Read : Rights::ReadWrite)));
    return {};
}

void Storage::unmap_windows(kernel::Service& instance, u32 device, Disk const& disk) {
    // Whole mappings go, so no table has to be split: it cannot fail.
    for (vm::RamBlock const& block : disk.ram)
        (void)instance.unmap(service::ram_window(device) + block.base.value, block.size);
    for (vm::RamBlock const& block : disk.medium)
        (void)instance.unmap(service::medium_window(device) + block.base.value, block.size);
}

lib::Result<void> Storage::furnish(kernel::Service& instance) {
    TRY(instance.map({HostVirt{service::board_at}, board_frames_, lib::page_size << board_order, Rights::Read}));
    TRY(instance.map({HostVirt{service::records_at}, records_frame_, lib::page_size, Rights::ReadWrite}));
    for (u32 i = 0; i < most; i++)
        if (devices_[i].is_served) TRY(map_windows(instance, i, devices_[i].disk));
    return {};
}

void Storage::change(kernel::Service* instance) {
    for (u32 i = 0; i < most; i++)
        if (devices_[i].is_used) change_one(i, instance);
}

void Storage::change_one(u32 number, kernel::Service* instance) {
    Device& device = devices_[number];
    Disk const& disk = device.disk;
    bool is_leaving = false;
    u32 stops = 0;
    {
        kernel::InterruptGuard const no_interrupts;
        kernel::LockGuard const locked(lock_);
        is_leaving = device.is_leaving;
        stops = std::exchange(device.stops, 0);
        std::ranges::copy(device.queues, entry(number).queues);
    }
    if (is_leaving) {
        if (device.is_served && instance != nullptr) unmap_windows(*instance, number, disk);
        entry(number) = {};
        device = {};
        return;
    }
    if (!device.is_served) {
        if (instance != nullptr && !map_windows(*instance, number, disk)) {
            unmap_windows(*instance, number, disk);
            return disk.owner->disk_failed(disk.number);
        }
        device.is_served = true;
        entry(number).kind = service::DeviceKind::Block;
    }
    while (stops-- > 0)
        disk.owner->disk_stopped(disk.number);
}

bool Storage::interrupt(u64 device, u64 queue) {
    if (device >= most || !devices_[device].is_served || queue >= devices_[device].disk.queue_count) return false;
    Disk const& disk = devices_[device].disk;
    disk.owner->disk_interrupt(disk.number, static_cast<u32>(queue));
    return true;
}

bool Storage::misused(u64 device) {
    if (device >= most || !devices_[device].is_served) return false;
    Disk const& disk = devices_[device].disk;
    disk.owner->disk_misused(disk.number);
    return true;
}

} // namespace manage
