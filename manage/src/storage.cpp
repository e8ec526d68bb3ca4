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
constexpr unsigned catalogue_order = std::bit_width((sizeof(service::Catalogue) - 1) / lib::page_size);
static_assert(sizeof(service::Records) <= lib::page_size);

constexpr auto done = static_cast<u64>(service::Answer::Done);
constexpr auto no_such_device = static_cast<u64>(service::Answer::NoSuchDevice);

Mapping<HostVirt> window(u64 at, vm::RamBlock const& block, Rights rights) {
    return {HostVirt{at + block.base.value}, block.host, block.size, rights};
}

} // namespace

lib::Result<void> Storage::make_pages() {
    if (board_ != nullptr) return {};
    records_frame_ = TRY(kernel::allocate_zeroed_frame());
    auto const board = kernel::allocate_frames(board_order);
    auto const catalogue = board ? kernel::allocate_frames(catalogue_order) : board;
    if (!catalogue) {
        kernel::free_frames(records_frame_, 0);
        if (board) kernel::free_frames(*board, board_order);
        return lib::fail(catalogue.error());
    }
    board_frames_ = *board;
    catalogue_frames_ = *catalogue;
    board_ = kernel::phys_to_virt<service::Board>(board_frames_);
    std::memset(board_, 0, lib::page_size << board_order);
    if (kernel::Pci* const pci = kernel::machine_pci()) controllers_.find(*pci, board_->controllers);
    return {};
}

std::expected<void, std::string_view> Storage::start_service() {
    if (!make_pages()) return std::unexpected("there is too little memory for the storage service");
    if (service_ == kernel::Services::most) service_ = services_.add(service_name, program_, this);
    if (service_ == kernel::Services::most) return std::unexpected("the storage service cannot be started; see above");
    return {};
}

bool Storage::knows_disks() {
    if (!start_service() || controllers_.count() == 0) return true;
    if (with_catalogue([](DiskCatalogue const& catalogue) { return catalogue.is_complete(); })) return true;
    u64 const now = kernel::now().value;
    if (looking_since_ == 0) looking_since_ = now;
    return now - looking_since_ > look_seconds * lib::nanos_per_second || !services_.status(service_).is_running;
}

std::expected<u32, std::string_view> Storage::attach(Disk const& disk) {
    if (auto const started = start_service(); !started) return std::unexpected(started.error());
    if (is_taken(disk))
        return std::unexpected(
            "another disk of a VM is on the same part of the machine's disk, and one of them writes; "
            "use readonly = true in both, or another partition");
    auto const free = std::ranges::find(devices_, false, &Device::is_used);
    if (free == devices_.end()) return std::unexpected("the storage service has as many disks as it can serve");
    auto const device = static_cast<u32>(free - devices_.begin());
    *free = {.disk = disk, .is_used = true};
    if (auto const described = describe(device); !described) {
        free->is_used = false;
        return std::unexpected(described.error());
    }
    services_.ask_for_change(service_);
    return device;
}

bool Storage::is_taken(Disk const& disk) const {
    return std::ranges::any_of(devices_, [&](Device const& other) {
        return other.is_used && other.disk.part.overlaps(disk.part) && (!disk.is_read_only || !other.disk.is_read_only);
    });
}

// Writes the board's entry without queues. It stays of no kind until the device is served.
std::expected<void, std::string_view> Storage::describe(u32 device) {
    Disk const& disk = devices_[device].disk;
    service::DeviceEntry made{};
    made.queue_count = disk.queue_count;
    made.is_read_only = disk.is_read_only ? 1 : 0;
    made.medium_size = disk.medium_size;
    bool const is_part = disk.part.size != 0;
    made.medium_kind = is_part ? service::MediumKind::Disk : service::MediumKind::Memory;
    made.controller = disk.part.controller;
    made.unit = disk.part.unit;
    made.medium_begin = disk.part.begin;
    disk.serial.copy(made.serial, sizeof(made.serial) - 1);
    for (vm::RamBlock const& block : disk.ram) {
        if (is_part) {
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
    entry(device) = made;
    return {};
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
                                          .epoch = epoch_,
                                          .features = setup.features,
                                          .reserved = 0};
    }
    services_.ask_for_change(service_);
}

void Storage::stop_queues(u32 device) {
    kernel::InterruptGuard const no_interrupts;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].stop(kernel::now().value);
    }
    services_.ask_for_change(service_);
}

void Storage::detach(u32 device) {
    kernel::InterruptGuard const no_interrupts;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].stop(kernel::now().value);
        devices_[device].is_leaving = true;
    }
    services_.ask_for_change(service_);
}

std::string_view Storage::user_of(MachinePart const& part) const {
    for (Device const& device : devices_)
        if (device.is_used && device.disk.part.overlaps(part)) return device.disk.owner->owner_name();
    return {};
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
    std::memset(kernel::phys_to_virt(catalogue_frames_), 0, lib::page_size << catalogue_order);
    TRY(instance.map({HostVirt{service::board_at}, board_frames_, lib::page_size << board_order, Rights::Read}));
    TRY(instance.map({HostVirt{service::records_at}, records_frame_, lib::page_size, Rights::ReadWrite}));
    TRY(instance.map(
        {HostVirt{service::catalogue_at}, catalogue_frames_, lib::page_size << catalogue_order, Rights::ReadWrite}));
    TRY(controllers_.furnish(instance));
    for (u32 i = 0; i < most; i++)
        if (devices_[i].is_served) TRY(map_windows(instance, i, devices_[i].disk));
    return {};
}

void Storage::change(kernel::Service* instance) {
    for (u32 i = 0; i < most; i++)
        if (devices_[i].is_used) change_one(i, instance);
    watch_answers();
}

// Maps the windows of a device that the service has not seen yet. False: there is no memory for that.
bool Storage::serve(u32 number, kernel::Service* instance) {
    Disk const& disk = devices_[number].disk;
    if (instance != nullptr && !map_windows(*instance, number, disk)) {
        unmap_windows(*instance, number, disk);
        disk.owner->disk_failed(disk.number);
        return false;
    }
    devices_[number].is_served = true;
    entry(number).kind = service::DeviceKind::Block;
    return true;
}

void Storage::change_one(u32 number, kernel::Service* instance) {
    Device& device = devices_[number];
    Disk const& disk = device.disk;
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
        if (device.is_served && instance != nullptr) unmap_windows(*instance, number, disk);
        entry(number) = {};
        device = {};
        return;
    }
    if (is_leaving || (!device.is_served && !serve(number, instance))) return;
    for (; device.reported != answered; device.reported++)
        disk.owner->disk_stopped(disk.number);
}

// A service that keeps a guest's memory for its commands for too long is ended: then the controllers are stopped.
void Storage::watch_answers() {
    constexpr u64 never = ~u64{0};
    u64 oldest = never;
    for (Device const& device : devices_) {
        kernel::InterruptGuard const no_interrupts;
        kernel::LockGuard const locked(lock_);
        if (device.is_used && device.is_served && device.answered != device.stops)
            oldest = std::min(oldest, device.stopped_at);
    }
    if (oldest == never) return kernel::cancel_timer(late_);
    u64 const limit = oldest + answer_seconds * lib::nanos_per_second;
    if (kernel::now().value < limit) return kernel::arm_timer(late_, kernel::tsc_of({limit}));
    kernel::log_error("service {}: did not stop the requests of a disk within {} s, and is ended", service_name,
                      answer_seconds);
    services_.kill(service_);
}

u64 Storage::call(service::Call number, u64 first, u64 second) {
    using service::Call;
    if (number == Call::Interrupt) return interrupt(first, second);
    if (number == Call::Misuse) return misused(first);
    if (number == Call::Stopped) return stopped(first, second);
    if (number == Call::Catalogue) return take_catalogue();
    return controllers_.call(number, first, second);
}

u64 Storage::interrupt(u64 device, u64 queue) {
    if (device >= most || !devices_[device].is_served || queue >= devices_[device].disk.queue_count)
        return no_such_device;
    Disk const& disk = devices_[device].disk;
    disk.owner->disk_interrupt(disk.number, static_cast<u32>(queue));
    return done;
}

u64 Storage::misused(u64 device) {
    if (device >= most || !devices_[device].is_served) return no_such_device;
    Disk const& disk = devices_[device].disk;
    disk.owner->disk_misused(disk.number);
    return done;
}

u64 Storage::stopped(u64 device, u64 stops) {
    if (device >= most || !devices_[device].is_served || stops != entry(static_cast<u32>(device)).stops)
        return no_such_device;
    {
        kernel::LockGuard const locked(lock_);
        devices_[device].answered = static_cast<u32>(stops);
    }
    services_.ask_for_change(service_);
    return done;
}

// The service has one thread, and that is in this call: the catalogue does not change during the copy.
u64 Storage::take_catalogue() {
    auto const* const said = kernel::phys_to_virt<service::Catalogue const>(catalogue_frames_);
    kernel::LockGuard const locked(lock_);
    if (said->is_complete != 0) catalogue_.take(*said);
    return done;
}

} // namespace manage
