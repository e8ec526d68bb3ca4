// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <manage/disk_catalogue.hpp>

namespace manage {
namespace {

namespace service = lib::service;
using service::DiskEntry;
using service::DiskState;
using service::PartitionEntry;

template <std::size_t Size> void make_text(char (&text)[Size]) {
    text[Size - 1] = 0;
    auto* const end = std::ranges::find(text, char{0});
    std::fill(end, std::end(text), char{0});
    std::replace_if(text, end, [](char c) { return c < ' ' || c > '~'; }, '?');
}

u64 bytes_of(DiskEntry const& disk) { return disk.sectors * disk.sector_size; }

bool is_sound(DiskEntry const& disk) {
    if (disk.controller >= service::max_controllers) return false;
    if (disk.state != DiskState::Ready) return disk.state == DiskState::Failed;
    bool const is_size = std::has_single_bit(disk.sector_size) && disk.sector_size >= 512 && disk.sector_size <= 4096;
    return is_size && disk.sectors <= service::max_disk / disk.sector_size;
}

bool is_inside(PartitionEntry const& part, DiskEntry const& disk) {
    constexpr u64 sector = 512;
    u64 const end = bytes_of(disk);
    return part.size != 0 && part.first % sector == 0 && part.size % sector == 0 && part.first <= end &&
           part.size <= end - part.first;
}

bool has_same_letters(std::string_view a, std::string_view b) {
    auto const lower = [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c; };
    return std::ranges::equal(a, b, {}, lower, lower);
}

} // namespace

void DiskCatalogue::take(service::Catalogue const& said) {
    disk_count_ = partition_count_ = 0;
    u32 const disk_count = std::min(said.disk_count, service::max_machine_disks);
    for (DiskEntry const& entry : std::span(said.disks).first(disk_count)) {
        DiskEntry disk = entry;
        if (!is_sound(disk)) continue;
        make_text(disk.serial);
        make_text(disk.model);
        make_text(disk.note);
        u32 const first = std::min(disk.first_partition, service::max_partitions);
        u32 const count = std::min(disk.partition_count, service::max_partitions - first);
        disk.first_partition = partition_count_;
        for (PartitionEntry const& said_part : std::span(said.partitions).subspan(first, count)) {
            if (partition_count_ == service::max_partitions || disk.state != DiskState::Ready) break;
            PartitionEntry part = said_part;
            if (!is_inside(part, disk)) continue;
            make_text(part.label);
            make_text(part.guid);
            make_text(part.note);
            partitions_[partition_count_++] = part;
        }
        disk.partition_count = partition_count_ - disk.first_partition;
        disks_[disk_count_++] = disk;
    }
    is_complete_ = said.is_complete != 0;
}

std::expected<MachinePart, std::string_view> DiskCatalogue::find(config::DiskDescription const& wanted,
                                                                 std::span<char> text) const {
    return wanted.kind == config::DiskKind::Partition ? find_partition(wanted, text) : find_disk(wanted, text);
}

std::expected<MachinePart, std::string_view> DiskCatalogue::find_partition(config::DiskDescription const& wanted,
                                                                           std::span<char> text) const {
    PartitionEntry const* found = nullptr;
    DiskEntry const* on = nullptr;
    u32 count = 0;
    for (DiskEntry const& disk : disks())
        for (PartitionEntry const& part : partitions_of(disk)) {
            if (wanted.name != std::string_view(part.label) && !has_same_letters(wanted.name, part.guid)) continue;
            found = &part;
            on = &disk;
            count++;
        }
    lib::BufferSink sink(text);
    if (count == 0) {
        lib::format(sink, "no partition of the machine has the label or GUID \"{}\"; ", wanted.name);
        list_partitions(sink);
        return std::unexpected(sink.view());
    }
    if (count > 1) {
        lib::format(sink, "{} partitions have the label \"{}\"; name one by its GUID: ", count, wanted.name);
        list_partitions(sink);
        return std::unexpected(sink.view());
    }
    if (!wanted.is_read_only && (found->note[0] != 0 || on->is_read_only != 0)) {
        lib::format(sink, "the partition \"{}\" cannot be written to: {}; use readonly = true or another one",
                    wanted.name, found->note[0] != 0 ? std::string_view(found->note) : "its disk is read-only");
        return std::unexpected(sink.view());
    }
    return MachinePart{on->controller, on->unit, found->first, found->size};
}

std::expected<MachinePart, std::string_view> DiskCatalogue::find_disk(config::DiskDescription const& wanted,
                                                                      std::span<char> text) const {
    lib::BufferSink sink(text);
    DiskEntry const* found = nullptr;
    u32 count = 0;
    for (DiskEntry const& disk : disks()) {
        if (disk.state != DiskState::Ready || wanted.name != std::string_view(disk.serial)) continue;
        found = &disk;
        count++;
    }
    if (count != 1) {
        if (count == 0)
            lib::format(sink, "no disk of the machine has the serial number \"{}\"; ", wanted.name);
        else
            lib::format(sink, "{} disks have the serial number \"{}\"; use a partition: ", count, wanted.name);
        list_disks(sink);
        return std::unexpected(sink.view());
    }
    auto const partitions = partitions_of(*found);
    bool const has_owner = std::ranges::any_of(partitions, [](PartitionEntry const& p) { return p.note[0] != 0; });
    if (!wanted.is_read_only && (found->note[0] != 0 || found->is_read_only != 0 || has_owner)) {
        lib::format(sink, "the disk \"{}\" cannot be written to: {}; use readonly = true or another one", wanted.name,
                    found->is_read_only != 0 ? "it is read-only"
                    : found->note[0] != 0    ? std::string_view(found->note)
                                             : "others use its partitions; see disk list");
        return std::unexpected(sink.view());
    }
    return MachinePart{found->controller, found->unit, 0, bytes_of(*found)};
}

void DiskCatalogue::list_partitions(lib::TextSink& sink) const {
    if (partition_count_ == 0) return list_disks(sink);
    sink.write("partitions:");
    for (u32 i = 0; i < partition_count_; i++) {
        bool const has_label = partitions_[i].label[0] != 0;
        lib::format(sink, "{} {}", i == 0 ? "" : ",", has_label ? partitions_[i].label : partitions_[i].guid);
    }
}

void DiskCatalogue::list_disks(lib::TextSink& sink) const {
    if (disk_count_ == 0) return sink.write("the machine has no disk that Mullion can use");
    sink.write("disks:");
    for (DiskEntry const& disk : disks()) {
        lib::format(sink, "{} {} ({})", &disk == disks_ ? "" : ",", disk.serial[0] != 0 ? disk.serial : "no serial",
                    disk.state == DiskState::Failed ? std::string_view(disk.note) : std::string_view(disk.model));
    }
}

} // namespace manage
