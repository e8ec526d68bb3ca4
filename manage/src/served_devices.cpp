// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <kernel/log.hpp>
#include <manage/served_devices.hpp>

namespace manage {
namespace {

namespace service = lib::service;
using kernel::Mapping;
using kernel::Rights;
using lib::HostVirt;

constexpr unsigned board_order = std::bit_width((sizeof(service::Board) - 1) / lib::page_size);
static_assert(sizeof(service::Records) <= lib::page_size);

constexpr auto done = static_cast<u64>(service::Answer::Done);
constexpr auto no_such_device = static_cast<u64>(service::Answer::NoSuchDevice);

Mapping<HostVirt> window(u64 at, vm::RamBlock const& block, Rights rights) {
    return {HostVirt{at + block.base.value}, block.host, block.size, rights};
}

} // namespace

lib::Result<void> ServedDevices::make_pages() {
    if (board_ != nullptr) return {};
    records_frame_ = TRY(kernel::allocate_zeroed_frame());
    auto const board = kernel::allocate_frames(board_order);
    if (!board) {
        kernel::free_frames(records_frame_, 0);
        return lib::fail(board.error());
    }
    board_frames_ = *board;
    board_ = kernel::phys_to_virt<service::Board>(board_frames_);
    std::memset(board_, 0, lib::page_size << board_order);
    return {};
}

std::expected<void, std::string_view> ServedDevices::start_service() {
    if (service_ == kernel::Services::most) service_ = services_.add(name_, program_, this);
    if (service_ == kernel::Services::most)
        return std::unexpected("the service that serves it cannot be started; see above");
    return {};
}

std::expected<u32, std::string_view> ServedDevices::add(ServedDevice const& device, service::DeviceEntry const& entry) {
    auto const free = std::ranges::find(devices_, false, &Device::is_used);
    if (free == devices_.end()) return std::unexpected("its service has as many devices as it can serve");
    service::DeviceEntry made = entry;
    made.queue_count = device.queue_count;
    if (auto const described = describe_ram(device, made); !described) return std::unexpected(described.error());
    made.kind = service::DeviceKind::None; // until it is served
    auto const number = static_cast<u32>(free - devices_.begin());
    *free = {.device = device, .kind = entry.kind};
    this->entry(number) = made;
    services_.ask_for_change(service_);
    return number;
}

std::expected<void, std::string_view> ServedDevices::describe_ram(ServedDevice const& device,
                                                                  service::DeviceEntry& made) {
    for (vm::RamBlock const& block : device.ram) {
        if (device.is_reached_by_dma) {
            if (made.ram_piece_count == service::max_ram_pieces)
                return std::unexpected("the memory of its VM is in too many pieces; start it before other VMs");
            made.pieces[made.ram_piece_count++] = {block.base.value, block.size, block.host.value};
        }
        service::RamArea* const last = made.ram_area_count == 0 ? nullptr : &made.ram[made.ram_area_count - 1];
        if (last != nullptr && last->base + last->size == block.base.value) {
            last->size += block.size;
            continue;
        }
        if (made.ram_area_count == service::max_ram_areas) return std::unexpected("its VM's memory has too many holes");
        made.ram[made.ram_area_count++] = {block.base.value, block.size};
    }
    return {};
}

void ServedDevices::start_queue(u32 device, u32 queue, lib::QueueSetup const& setup) {
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
                                          .epoch = epoch_,
                                          .features = setup.features,
                                          .reserved = 0};
    }
    services_.ask_for_change(service_);
}

void ServedDevices::stop_queues(u32 device) {
    kernel::InterruptGuard const no_interrupts;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].stop(kernel::now().value);
    }
    services_.ask_for_change(service_);
}

void ServedDevices::detach(u32 device) {
    kernel::InterruptGuard const no_interrupts;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].stop(kernel::now().value);
        devices_[device].is_leaving = true;
    }
    services_.ask_for_change(service_);
}

bool ServedDevices::has_left(DeviceOwner const& owner) const {
    return std::ranges::none_of(devices_, [&](Device const& d) { return d.device.owner == &owner; });
}

lib::Result<void> ServedDevices::map_windows(kernel::Service& instance, u32 number, ServedDevice const& device) {
    for (vm::RamBlock const& block : device.ram)
        TRY(instance.map(window(service::ram_window(number), block, Rights::ReadWrite)));
    for (vm::RamBlock const& block : device.medium)
        TRY(instance.map(window(service::medium_window(number), block,
                                device.is_medium_read_only ? Rights::Read : Rights::ReadWrite)));
    return {};
}

void ServedDevices::unmap_windows(kernel::Service& instance, u32 number, ServedDevice const& device) {
    // Whole mappings go, so no table has to be split: it cannot fail.
    for (vm::RamBlock const& block : device.ram)
        (void)instance.unmap(service::ram_window(number) + block.base.value, block.size);
    for (vm::RamBlock const& block : device.medium)
        (void)instance.unmap(service::medium_window(number) + block.base.value, block.size);
}

lib::Result<void> ServedDevices::furnish(kernel::Service& instance) {
    TRY(instance.map({HostVirt{service::board_at}, board_frames_, lib::page_size << board_order, Rights::Read}));
    TRY(instance.map({HostVirt{service::records_at}, records_frame_, lib::page_size, Rights::ReadWrite}));
    for (u32 i = 0; i < most; i++)
        if (devices_[i].is_served) TRY(map_windows(instance, i, devices_[i].device));
    return {};
}

void ServedDevices::change(kernel::Service* instance) {
    for (u32 i = 0; i < most; i++)
        if (devices_[i].is_used()) change_one(i, instance);
    watch_answers();
}

// Maps the windows of a device that the service has not seen yet. False: there is no memory for that.
bool ServedDevices::serve(u32 number, kernel::Service* instance) {
    ServedDevice const& device = devices_[number].device;
    if (instance != nullptr && !map_windows(*instance, number, device)) {
        unmap_windows(*instance, number, device);
        device.owner->served_failed(device.number);
        return false;
    }
    devices_[number].is_served = true;
    entry(number).kind = devices_[number].kind;
    return true;
}

void ServedDevices::change_one(u32 number, kernel::Service* instance) {
    Device& device = devices_[number];
    ServedDevice const& served = device.device;
    bool is_leaving = false;
    u32 answered = 0;
    bool is_at_rest = false;
    {
        kernel::InterruptGuard const no_interrupts;
        kernel::LockGuard const locked(lock_);
        if (instance == nullptr) device.answered = device.stops; // nobody works on anything
        is_leaving = device.is_leaving;
        answered = device.answered;
        is_at_rest = device.answered == device.stops;
        entry(number).stops = device.stops;
        std::ranges::copy(device.queues, entry(number).queues);
    }
    if (is_leaving && (is_at_rest || !device.is_served)) {
        if (device.is_served && instance != nullptr) unmap_windows(*instance, number, served);
        entry(number) = {};
        device = {};
        return;
    }
    if (is_leaving || (!device.is_served && !serve(number, instance))) return;
    for (; device.reported != answered; device.reported++)
        served.owner->served_stopped(served.number);
}

// A service that keeps a guest's memory for too long is ended: then nothing of it works with that memory.
void ServedDevices::watch_answers() {
    constexpr u64 never = ~u64{0};
    u64 oldest = never;
    for (Device const& device : devices_) {
        kernel::InterruptGuard const no_interrupts;
        kernel::LockGuard const locked(lock_);
        if (device.is_used() && device.is_served && device.answered != device.stops)
            oldest = std::min(oldest, device.stopped_at);
    }
    if (oldest == never) return kernel::cancel_timer(late_);
    u64 const limit = oldest + answer_seconds * lib::nanos_per_second;
    if (kernel::now().value < limit) return kernel::arm_timer(late_, kernel::tsc_of({limit}));
    kernel::log_error("service {}: did not stop the queues of a device within {} s, and is ended", name_,
                      answer_seconds);
    services_.kill(service_);
}

u64 ServedDevices::call(service::Call number, u64 first, u64 second) {
    using service::Call;
    if (number == Call::Interrupt) return interrupt(first, second);
    if (number == Call::Misuse) return misused(first);
    if (number == Call::Stopped) return stopped(first, second);
    return no_such_device;
}

u64 ServedDevices::interrupt(u64 device, u64 queue) {
    if (device >= most || !devices_[device].is_served || queue >= devices_[device].device.queue_count)
        return no_such_device;
    ServedDevice const& served = devices_[device].device;
    served.owner->served_interrupt(served.number, static_cast<u32>(queue));
    return done;
}

u64 ServedDevices::misused(u64 device) {
    if (device >= most || !devices_[device].is_served) return no_such_device;
    ServedDevice const& served = devices_[device].device;
    served.owner->served_misused(served.number);
    return done;
}

u64 ServedDevices::stopped(u64 device, u64 stops) {
    if (device >= most || !devices_[device].is_served || stops != entry(static_cast<u32>(device)).stops)
        return no_such_device;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].answered = static_cast<u32>(stops);
    }
    services_.ask_for_change(service_);
    return done;
}

} // namespace manage
