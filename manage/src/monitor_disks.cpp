// SPDX-License-Identifier: MIT
// The monitor's commands about the machine's disks.
#include <manage/monitor.hpp>

namespace manage {
namespace {

namespace service = lib::service;

void print_size(lib::TextSink& sink, u64 bytes) {
    if (bytes >= 10 * lib::GiB)
        lib::format(sink, "{:>6} GiB", bytes / lib::GiB);
    else
        lib::format(sink, "{:>6} MiB", bytes / lib::MiB);
}

void print_use(lib::TextSink& sink, std::string_view note, std::string_view user) {
    if (!note.empty()) lib::format(sink, ", {}", note);
    if (!user.empty()) lib::format(sink, ", used by {}", user);
    sink.write("\n");
}

} // namespace

void Monitor::disk_list(Words const&) {
    if (storage_ == nullptr || !storage_->knows_disks())
        return terminal_.write("the machine's disks are still being looked at; ask again\n");
    u64 const count = storage_->with_catalogue([](DiskCatalogue const& known) { return known.disks().size(); });
    if (count == 0) return terminal_.write("the machine has no disk that Mullion can use\n");
    mode_ = Mode::Disks;
    position_ = 0;
    end_ = ~u64{0};
    continue_printing();
}

// Prints one disk, or one partition of one: they are counted in the order of the list. Returns false after the last.
bool Monitor::print_disk(u32 index) {
    service::DiskEntry disk{};
    service::PartitionEntry part{};
    bool is_disk = false, is_found = false;
    storage_->with_catalogue([&](DiskCatalogue const& known) {
        for (service::DiskEntry const& each : known.disks()) {
            u32 const count = 1 + each.partition_count;
            if (index >= count) {
                index -= count;
                continue;
            }
            disk = each;
            is_found = true;
            is_disk = index == 0;
            if (!is_disk) part = known.partitions_of(each)[index - 1];
            return;
        }
    });
    if (!is_found) return false;
    if (!is_disk) {
        terminal_.write("  ");
        print_size(terminal_, part.size);
        lib::format(terminal_, "  {}  {}", part.guid, part.label);
        print_use(terminal_, part.note, storage_->user_of({disk.controller, disk.unit, part.first, part.size}));
        return true;
    }
    u64 const size = disk.sectors * disk.sector_size;
    print_size(terminal_, size);
    lib::format(terminal_, "  {}, serial {}, {}-byte sectors{}{}", disk.model, disk.serial, disk.sector_size,
                disk.is_read_only != 0 ? ", read-only" : "",
                disk.state == service::DiskState::Failed ? ", failed" : "");
    print_use(terminal_, disk.note,
              disk.partition_count == 0 ? storage_->user_of({disk.controller, disk.unit, 0, size}) : "");
    return true;
}

} // namespace manage
