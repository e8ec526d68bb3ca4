// SPDX-License-Identifier: MIT
#include <algorithm>
#include <atomic>
#include <lib/format.hpp>
#include <storage/catalogue.hpp>

namespace storage {
namespace {

namespace service = lib::service;
using service::DiskEntry;
using service::DiskState;
using State = block::Controller::State;

void add_note(DiskEntry& disk, std::string_view text) {
    std::string_view const old(disk.note);
    lib::BufferSink sink(std::span(disk.note).subspan(old.size(), sizeof(disk.note) - 1 - old.size()));
    if (!old.empty()) sink.write("; ");
    sink.write(text);
}

} // namespace

void CatalogueWriter::add(u32 number, block::Function::Shared buffer) {
    if (controllers_.find(number) == nullptr) return;
    units_[number].is_added = true;
    units_[number].buffer = buffer;
}

void CatalogueWriter::ended(u32 token, block::Status status) {
    if (token >= units_.size() || units_[token].reading != Reading::UnderWay) return;
    units_[token].reading = status == block::Status::Good ? Reading::Good : Reading::Failed;
}

bool CatalogueWriter::turn(u64 now) {
    bool is_complete = true;
    for (u32 number = 0; number < controllers_.end(); number++) {
        Unit& unit = units_[number];
        if (!unit.is_added) continue;
        block::Controller const& controller = *controllers_.find(number);
        if (controller.state() == State::Failed && !unit.has_failed) fail(number, controller);
        if (controller.state() == State::Ready && !unit.is_done) advance(number, controller, now);
        is_complete = is_complete && unit.is_done;
    }
    if (!is_complete || !has_changed_) return false;
    complete();
    return true;
}

void CatalogueWriter::advance(u32 number, block::Controller const& controller, u64 now) {
    Unit& unit = units_[number];
    if (unit.reading == Reading::UnderWay) return;
    for (auto const disks = controller.disks(); unit.disk < disks.size(); unit.disk++) {
        block::DiskFacts const& disk = disks[unit.disk];
        if (!unit.has_table) {
            unit.has_table = true;
            unit.read_bytes = 0;
            unit.table.start(disk.sectors, disk.sector_size);
        }
        take_read(unit, disk);
        while (!unit.table.is_done()) {
            if (read(number, disk, controller.limits(), now)) return;
            unit.table.failed();
        }
        append(number, disk);
        unit.has_table = false;
    }
    unit.is_done = true;
}

void CatalogueWriter::take_read(Unit& unit, block::DiskFacts const& disk) {
    Reading const reading = unit.reading;
    unit.reading = Reading::None;
    if (reading == Reading::None) return;
    if (reading == Reading::Failed) {
        unit.read_bytes = 0;
        return unit.table.failed();
    }
    unit.read_bytes += unit.asked_bytes;
    u64 const size = u64{unit.table.next().count} * disk.sector_size;
    if (unit.read_bytes < size) return;
    unit.read_bytes = 0;
    unit.table.got(unit.buffer.bytes.first(size));
}

// False: it can never be read. A command that the controller does not take now is tried again in the next turn.
bool CatalogueWriter::read(u32 number, block::DiskFacts const& disk, block::Limits const& limits, u64 now) {
    Unit& unit = units_[number];
    PartitionTable::Range const range = unit.table.next();
    u64 const size = u64{range.count} * disk.sector_size;
    u64 const most = std::max<u64>(limits.most_bytes, 512) / disk.sector_size * disk.sector_size;
    bool const is_in_reach =
        unit.buffer.address <= limits.highest_address && size - 1 <= limits.highest_address - unit.buffer.address;
    if (size > unit.buffer.bytes.size() || most == 0 || !is_in_reach) return false;
    u64 const part = std::min(size - unit.read_bytes, most);
    block::Piece const piece = {unit.buffer.address + unit.read_bytes, static_cast<u32>(part)};
    block::Command const command = {.operation = block::Operation::Read,
                                    .disk = unit.disk,
                                    .tag = 0,
                                    .sector = range.first + unit.read_bytes / disk.sector_size,
                                    .pieces = {&piece, 1}};
    unit.asked_bytes = piece.size;
    unit.reading = Reading::UnderWay; // its end may be told of at once
    if (!controllers_.submit(number, *this, number, command, now)) unit.reading = Reading::None;
    return true;
}

// Its disks stay in the catalogue, without what they hold.
void CatalogueWriter::fail(u32 number, block::Controller const& controller) {
    Unit& unit = units_[number];
    unit.has_failed = unit.is_done = true;
    change();
    bool has_disk = false;
    for (DiskEntry& disk : std::span(catalogue_.disks).first(catalogue_.disk_count)) {
        if (disk.controller != number) continue;
        has_disk = true;
        disk.state = DiskState::Failed;
        disk.sectors = 0;
        disk.partition_count = 0;
        set_text(disk.note, controller.failure());
    }
    if (has_disk) return;
    if (DiskEntry* const disk = new_entry(number, 0)) {
        disk->state = DiskState::Failed;
        set_text(disk->note, controller.failure());
    }
}

void CatalogueWriter::append(u32 number, block::DiskFacts const& disk) {
    Unit const& unit = units_[number];
    change();
    DiskEntry* const entry = new_entry(number, disk.id);
    if (entry == nullptr) return;
    entry->state = DiskState::Ready;
    entry->sector_size = disk.sector_size;
    entry->sectors = disk.sectors;
    entry->is_read_only = disk.is_read_only ? 1 : 0;
    set_text(entry->serial, {disk.serial.data(), disk.serial.size()});
    set_text(entry->model, {disk.model.data(), disk.model.size()});
    set_text(entry->note, unit.table.note());
    append_partitions(*entry, unit.table);
}

void CatalogueWriter::append_partitions(DiskEntry& entry, PartitionTable const& table) {
    auto const partitions = table.partitions();
    u32 const room = service::max_partitions - catalogue_.partition_count;
    entry.first_partition = catalogue_.partition_count;
    entry.partition_count = std::min(static_cast<u32>(partitions.size()), room);
    std::ranges::copy(partitions.first(entry.partition_count), catalogue_.partitions + entry.first_partition);
    catalogue_.partition_count += entry.partition_count;
    // Nobody may write to the whole disk, because one that is left out can have an owner.
    if (room < partitions.size()) add_note(entry, "partitions are left out: there are more than 128");
}

// In order of controllers and disks, whatever the order is in which they become ready. Null: there is no room.
DiskEntry* CatalogueWriter::new_entry(u32 number, u32 unit) {
    if (catalogue_.disk_count == service::max_machine_disks) {
        is_too_much_ = true;
        return nullptr;
    }
    u32 at = catalogue_.disk_count++;
    for (; at > 0 && catalogue_.disks[at - 1].controller > number; at--)
        catalogue_.disks[at] = catalogue_.disks[at - 1];
    catalogue_.disks[at] = {};
    catalogue_.disks[at].controller = number;
    catalogue_.disks[at].unit = unit;
    return &catalogue_.disks[at];
}

void CatalogueWriter::change() {
    catalogue_.is_complete = 0;
    has_changed_ = true;
}

void CatalogueWriter::complete() {
    if (is_too_much_)
        add_note(catalogue_.disks[catalogue_.disk_count - 1], "disks are left out: there are more than 16");
    is_too_much_ = false;
    has_changed_ = false;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    catalogue_.is_complete = 1;
}

} // namespace storage
