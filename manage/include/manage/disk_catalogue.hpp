// SPDX-License-Identifier: MIT
#pragma once
// What the storage service has said of the machine's disks. Each number and text of it is checked when it is taken
// over: the service is not trusted.
#include <config/description.hpp>
#include <expected>
#include <lib/format.hpp>
#include <lib/service_board.hpp>

namespace manage {

using lib::u32;
using lib::u64;
using lib::u8;

// A part of a disk of the machine, or all of it.
struct MachinePart {
    u32 controller = 0, unit = 0;
    u64 begin = 0, size = 0; // bytes
    bool overlaps(MachinePart const& other) const {
        return controller == other.controller && unit == other.unit && begin < other.begin + other.size &&
               other.begin < begin + size;
    }
};

class DiskCatalogue {
public:
    // Takes over what makes sense.
    void take(lib::service::Catalogue const& said);
    bool is_complete() const { return is_complete_; }

    std::span<lib::service::DiskEntry const> disks() const { return {disks_, disk_count_}; }
    std::span<lib::service::PartitionEntry const> partitions_of(lib::service::DiskEntry const& disk) const {
        return {partitions_ + disk.first_partition, disk.partition_count};
    }
    // What a VM's disk names. The error is a sentence for the log, written to `text`.
    std::expected<MachinePart, std::string_view> find(config::DiskDescription const& wanted,
                                                      std::span<char> text) const;

private:
    std::expected<MachinePart, std::string_view> find_partition(config::DiskDescription const& wanted,
                                                                std::span<char> text) const;
    std::expected<MachinePart, std::string_view> find_disk(config::DiskDescription const& wanted,
                                                           std::span<char> text) const;
    void list_partitions(lib::TextSink& sink) const;
    void list_disks(lib::TextSink& sink) const;

    bool is_complete_ = false;
    u32 disk_count_ = 0, partition_count_ = 0;
    lib::service::DiskEntry disks_[lib::service::max_machine_disks]{};
    lib::service::PartitionEntry partitions_[lib::service::max_partitions]{};
};

} // namespace manage
