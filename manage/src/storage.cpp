// SPDX-License-Identifier: MIT
#include <bit>
#include <cstring>
#include <manage/storage.hpp>

namespace manage {
namespace {

namespace service = lib::service;

constexpr unsigned catalogue_order = std::bit_width((sizeof(service::Catalogue) - 1) / lib::page_size);
constexpr unsigned statistics_order = std::bit_width((sizeof(service::Statistics) - 1) / lib::page_size);

} // namespace

lib::Result<void> Storage::make_pages() {
    if (has_pages_) return {};
    TRY(ServedDevices::make_pages());
    auto const catalogue = TRY(kernel::allocate_frames(catalogue_order));
    auto const statistics = kernel::allocate_frames(statistics_order);
    if (!statistics) {
        kernel::free_frames(catalogue, catalogue_order);
        return lib::fail(statistics.error());
    }
    catalogue_frames_ = catalogue;
    statistics_frames_ = *statistics;
    std::memset(kernel::phys_to_virt(statistics_frames_), 0, lib::page_size << statistics_order);
    has_pages_ = true;
    if (kernel::Pci* const pci = kernel::machine_pci()) controllers_.find(*pci, board().controllers);
    return {};
}

std::expected<void, std::string_view> Storage::start() {
    if (!make_pages()) return std::unexpected("there is too little memory for the storage service");
    return start_service();
}

bool Storage::knows_disks() {
    if (!start() || controllers_.count() == 0) return true;
    if (with_catalogue([](DiskCatalogue const& catalogue) { return catalogue.is_complete(); })) return true;
    u64 const now = kernel::now().value;
    if (looking_since_ == 0) looking_since_ = now;
    return now - looking_since_ > look_seconds * lib::nanos_per_second || !services().status(service()).is_running;
}

std::expected<u32, std::string_view> Storage::attach(Disk const& disk) {
    if (auto const started = start(); !started) return std::unexpected(started.error());
    if (is_taken(disk))
        return std::unexpected(
            "another disk of a VM is on the same part of the machine's disk, and one of them writes; "
            "use readonly = true in both, or another partition");
    bool const is_part = disk.part.size != 0;
    service::DeviceEntry entry{};
    entry.kind = service::DeviceKind::Block;
    entry.is_read_only = disk.is_read_only ? 1 : 0;
    entry.medium_size = disk.medium_size;
    entry.medium_kind = is_part ? service::MediumKind::Disk : service::MediumKind::Memory;
    entry.controller = disk.part.controller;
    entry.unit = disk.part.unit;
    entry.medium_begin = disk.part.begin;
    disk.serial.copy(entry.serial, sizeof(entry.serial) - 1);
    entry.iops = disk.iops;
    entry.bandwidth = disk.bandwidth;
    auto const added = add({.owner = disk.owner,
                            .number = disk.number,
                            .queue_count = disk.queue_count,
                            .ram = disk.ram,
                            .medium = disk.medium,
                            .is_medium_read_only = disk.is_read_only,
                            .is_reached_by_dma = is_part},
                           entry);
    if (!added) return added;
    claims_[*added] = {disk.number, disk.medium_size, disk.part, disk.is_read_only};
    kernel::phys_to_virt<service::Statistics>(statistics_frames_)->devices[*added] = {};
    return added;
}

bool Storage::is_taken(Disk const& disk) const {
    for (u32 i = 0; i < most; i++)
        if (owner_of(i) != nullptr && claims_[i].part.overlaps(disk.part) &&
            (!disk.is_read_only || !claims_[i].is_read_only))
            return true;
    return false;
}

std::string_view Storage::user_of(MachinePart const& part) const {
    for (u32 i = 0; i < most; i++)
        if (owner_of(i) != nullptr && claims_[i].part.overlaps(part)) return owner_of(i)->owner_name();
    return {};
}

bool Storage::figures_of(std::string_view owner, u32 disk, u64& size, service::DiskStatistics& said) const {
    for (u32 i = 0; i < most; i++) {
        if (owner_of(i) == nullptr || claims_[i].number != disk || owner_of(i)->owner_name() != owner) continue;
        size = claims_[i].medium_size;
        std::memcpy(&said, &kernel::phys_to_virt<service::Statistics const>(statistics_frames_)->devices[i],
                    sizeof(said));
        return true;
    }
    return false;
}

lib::Result<void> Storage::furnish(kernel::Service& instance) {
    std::memset(kernel::phys_to_virt(catalogue_frames_), 0, lib::page_size << catalogue_order);
    TRY(instance.map({lib::HostVirt{service::catalogue_at}, catalogue_frames_, lib::page_size << catalogue_order,
                      kernel::Rights::ReadWrite}));
    TRY(instance.map({lib::HostVirt{service::statistics_at}, statistics_frames_, lib::page_size << statistics_order,
                      kernel::Rights::ReadWrite}));
    TRY(controllers_.furnish(instance));
    return ServedDevices::furnish(instance);
}

u64 Storage::call(service::Call number, u64 first, u64 second) {
    using service::Call;
    if (number == Call::Interrupt || number == Call::Misuse || number == Call::Stopped)
        return ServedDevices::call(number, first, second);
    if (number == Call::Catalogue) return take_catalogue();
    return controllers_.call(number, first, second);
}

// The service has one thread, and that is in this call: the catalogue does not change during the copy.
u64 Storage::take_catalogue() {
    auto const* const said = kernel::phys_to_virt<service::Catalogue const>(catalogue_frames_);
    kernel::LockGuard const locked(lock_);
    if (said->is_complete != 0) catalogue_.take(*said);
    return static_cast<u64>(service::Answer::Done);
}

} // namespace manage
