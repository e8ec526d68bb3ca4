// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <lib/format.hpp>
#include <storage/gpt.hpp>

namespace storage {
namespace {

using lib::ByteView;
using lib::service::PartitionEntry;

constexpr u32 places = 3; // the begin, and both places at the end, of a disk or partition
constexpr u64 superblock_size = 512;

} // namespace

void PartitionTable::start(u64 sectors, u32 sector_size) {
    disk_ = {sectors, sector_size};
    step_ = Step::Done;
    is_backup_ = has_outside_ = false;
    failures_ = partition_count_ = note_size_ = 0;
    defect_ = {};
    bool const is_size = std::has_single_bit(sector_size) && sector_size >= 512 && sector_size <= 4096;
    if (!is_size || sectors > (u64{1} << 62) / sector_size) return set_note("its size is not supported");
    if (sectors == 0) return;
    step_ = Step::First;
    set_range(0, max_read);
}

void PartitionTable::got(std::span<u8 const> bytes) {
    if (step_ == Step::Done) return;
    u64 const size = u64{range_.count} * disk_.sector_size;
    bool const is_read = bytes.size() >= size;
    ByteView const view = is_read ? ByteView(bytes.first(size)) : ByteView();
    if (!is_read) failures_++;
    switch (step_) {
    case Step::First: return got_first(view);
    case Step::BackupHeader: return take_header(view, disk_.sectors - 1);
    case Step::Entries: return got_entries(view);
    case Step::DiskMember:
    case Step::PartMember: return got_place(view);
    case Step::Done: return;
    }
}

void PartitionTable::got_first(ByteView bytes) {
    step_ = Step::Done;
    if (bytes.is_empty()) return set_note("its first sectors cannot be read");
    // First of all, because a table, or its backup, that was there before the disk became a member can be whole.
    if (auto const note = find_member(bytes); !note.empty()) return set_note(note);
    Mbr const mbr = read_mbr(bytes);
    ByteView const second = bytes.part(disk_.sector_size, disk_.sector_size);
    if (mbr.kind == Mbr::Kind::Protective) return take_header(second, 1);
    if (mbr.kind == Mbr::Kind::Real) return take_mbr(mbr);
    if (second.get64(0) == gpt_signature) return refuse("GPT", "there is no protective MBR");
    step_ = Step::DiskMember;
    place_ = 1; // the begin has been looked at
    next_place();
}

void PartitionTable::take_header(ByteView sector, u64 at) {
    if (auto const why = read_gpt_header(header_, sector, at, disk_); !why.empty()) return table_is_bad(why);
    step_ = Step::Entries;
    entries_done_ = 0;
    crc_ = {};
    has_outside_ = false;
    partition_count_ = 0;
    read_entries();
}

// The last sector has a copy of the header. [uefi] 5.3.2
void PartitionTable::table_is_bad(std::string_view why) {
    if (is_backup_ || disk_.sectors < 3) return refuse("GPT", is_backup_ ? defect_ : why);
    is_backup_ = true;
    defect_ = why;
    step_ = Step::BackupHeader;
    range_ = {disk_.sectors - 1, 1};
}

void PartitionTable::read_entries() {
    u64 const left = header_.entries_bytes() - entries_done_;
    set_range(header_.entries * disk_.sector_size + entries_done_, std::min<u64>(left, max_read));
}

void PartitionTable::got_entries(ByteView bytes) {
    if (bytes.is_empty()) return table_is_bad("its entries cannot be read");
    ByteView const part = bytes.part(0, header_.entries_bytes() - entries_done_);
    crc_.add(part.bytes());
    for (u64 at = 0; at < part.size() && partition_count_ < partitions_.size(); at += header_.entry_size) {
        ByteView const entry = part.part(at, header_.entry_size);
        EntryKind const kind = read_gpt_entry(partitions_[partition_count_], entry, header_, disk_);
        if (kind == EntryKind::Good) partition_count_++;
        if (kind == EntryKind::Outside) has_outside_ = true;
    }
    entries_done_ += part.size();
    if (entries_done_ < header_.entries_bytes()) return read_entries();
    if (crc_.value() != header_.entries_crc) return table_is_bad("the checksum of its entries is wrong");
    if (has_outside_) return refuse("GPT", "a partition is not inside of the usable sectors");
    if (has_overlap()) return refuse("GPT", "partitions overlap");
    if (is_backup_) set_note("the backup of its GPT is used: ", defect_);
    look_for_members();
}

void PartitionTable::take_mbr(Mbr const& mbr) {
    for (Mbr::Part const& said : std::span(mbr.parts).first(mbr.part_count)) {
        if (said.first == 0 || said.first >= disk_.sectors || said.count > disk_.sectors - said.first)
            return refuse("MBR", "a partition is not inside of the disk");
        PartitionEntry& part = partitions_[partition_count_++];
        part = {.first = said.first * disk_.sector_size,
                .size = said.count * disk_.sector_size,
                .label = {'m', 'b', 'r', static_cast<char>('0' + said.number)},
                .guid = {},
                .note = {}};
        set_text(part.note, "MBR partition");
    }
    if (has_overlap()) return refuse("MBR", "partitions overlap");
    look_for_members();
}

bool PartitionTable::has_overlap() const {
    for (u32 i = 1; i < partition_count_; i++)
        for (u32 j = 0; j < i; j++) {
            PartitionEntry const &a = partitions_[i], &b = partitions_[j];
            if (a.first < b.first + b.size && b.first < a.first + a.size) return true;
        }
    return false;
}

void PartitionTable::refuse(std::string_view kind, std::string_view why) {
    partition_count_ = 0;
    step_ = Step::Done;
    lib::BufferSink sink(note_text_);
    lib::format(sink, "its {} is refused: {}", kind, why);
    note_size_ = static_cast<u32>(sink.view().size());
}

void PartitionTable::look_for_members() {
    step_ = Step::DiskMember;
    place_ = 1;
    part_ = 0;
    next_place();
}

// Whether the place is in a partition.
bool PartitionTable::is_in_partition(u64 at) const {
    return std::ranges::any_of(
        partitions(), [at](PartitionEntry const& part) { return at >= part.first && at - part.first < part.size; });
}

// An array of whole disks shows its table, which is at its begin, on each of them too if its superblock is at their
// end. The older kind can be at the same place for the disk and for its last partition; then it is the partition's.
void PartitionTable::next_place() {
    for (;; place_++) {
        bool const is_parts = place_ == 2 && is_in_partition(mdraid_0_90_at(disk_.bytes()));
        if (step_ == Step::DiskMember && (place_ == places || is_parts)) {
            step_ = Step::PartMember;
            part_ = place_ = 0;
        }
        if (step_ == Step::PartMember) {
            // A partition with a note needs no other one.
            for (; part_ < partition_count_ && (place_ == places || partitions_[part_].note[0] != 0); part_++)
                place_ = 0;
            if (part_ == partition_count_) {
                step_ = Step::Done;
                return;
            }
        }
        bool const is_disk = step_ == Step::DiskMember;
        u64 const begin = is_disk ? 0 : partitions_[part_].first;
        u64 const size = is_disk ? disk_.bytes() : partitions_[part_].size;
        u64 const at = place_ == 0 ? 0 : place_ == 1 ? mdraid_1_0_at(size) : mdraid_0_90_at(size);
        if (place_ != 0 && at == 0) continue;
        return set_range(begin + at, std::min(size - at, place_ == 0 ? member_head : superblock_size));
    }
}

void PartitionTable::got_place(ByteView bytes) {
    if (bytes.is_empty() && step_ == Step::DiskMember)
        set_note("its end cannot be read");
    else if (bytes.is_empty())
        member("it cannot be read");
    else if (place_ == 0)
        member(find_member(bytes));
    else
        member(is_mdraid(bytes) ? mdraid_note : std::string_view{});
    if (failures_ >= max_failures) {
        for (; part_ < partition_count_; part_++)
            if (partitions_[part_].note[0] == 0) set_text(partitions_[part_].note, "it cannot be read");
        step_ = Step::Done;
    }
    if (step_ == Step::Done) return;
    place_++;
    next_place();
}

// Everything on a member is its owner's.
void PartitionTable::member(std::string_view note) {
    if (note.empty()) return;
    if (step_ == Step::PartMember) return set_text(partitions_[part_].note, note);
    set_note(note);
    for (PartitionEntry& part : std::span(partitions_).first(partition_count_))
        set_text(part.note, note);
    step_ = Step::Done;
}

void PartitionTable::set_range(u64 at, u64 size) {
    u64 const first = at / disk_.sector_size;
    u64 const count = (size + disk_.sector_size - 1) / disk_.sector_size;
    range_ = {first, static_cast<u32>(std::min(count, disk_.sectors - first))};
}

void PartitionTable::set_note(std::string_view text, std::string_view what) {
    lib::BufferSink sink(note_text_);
    sink.write(text);
    sink.write(what);
    note_size_ = static_cast<u32>(sink.view().size());
}

} // namespace storage
