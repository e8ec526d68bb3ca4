// SPDX-License-Identifier: MIT
// The monitor's commands about the machine's disks.
#include <charconv>
#include <manage/disk_figures.hpp>
#include <manage/monitor.hpp>

namespace manage {
namespace {

namespace service = lib::service;

constexpr u32 lines_of_vm = config::max_disks * disk_figure_lines;

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

// The lines of all disks are counted as if each VM had as many disks as it may have.
void Monitor::disk_show(Words const& arguments) {
    u32 vm = 0;
    position_ = 0;
    end_ = std::size_t{vms_.vm_count()} * lines_of_vm;
    if (arguments.size() > 0) {
        if (!find_vm(arguments[0], vm)) return;
        position_ = std::size_t{vm} * lines_of_vm;
        end_ = position_ + lines_of_vm;
    }
    if (arguments.size() > 1) {
        std::string_view const text = arguments[1];
        u32 number = 0;
        auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        std::size_t const count = vms_.vm_status(vm).disks.size();
        if (error != std::errc() || end != text.data() + text.size() || number >= count)
            return lib::format(terminal_, "disk show: expected a number below {}, as {} has {} disks, found {}\n",
                               count, arguments[0], count, text);
        position_ += std::size_t{number} * disk_figure_lines;
        end_ = position_ + disk_figure_lines;
    }
    bool has_disk = false;
    for (std::size_t i = position_ / lines_of_vm; i * lines_of_vm < end_; i++)
        has_disk = has_disk || !vms_.vm_status(static_cast<u32>(i)).disks.empty();
    if (!has_disk)
        return lib::format(terminal_, "{} a disk\n", arguments.is_empty() ? "no VM has" : "this VM does not have");
    mode_ = Mode::DiskFigures;
    continue_printing();
}

void Monitor::print_figures(u32 index) {
    u32 const vm = index / lines_of_vm, number = index % lines_of_vm / disk_figure_lines;
    VmStatus const status = vms_.vm_status(vm);
    if (number >= status.disks.size()) return;
    DiskFigures figures;
    figures.is_attached = storage_ != nullptr && storage_->figures_of(status.name, number, figures.size, figures.said);
    print_disk_figures(terminal_, status.name, number, status.disks[number], figures, index % disk_figure_lines);
}

} // namespace manage
