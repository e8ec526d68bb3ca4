// SPDX-License-Identifier: MIT
#pragma once
// Finds the partitions of one disk, and whether somebody else uses it, from sectors that another part reads for it.
// What the sectors hold is hostile: the number of reads has a bound, and every partition lies inside of the disk and
// outside of the others.
#include <storage/table_format.hpp>

namespace storage {

class PartitionTable {
public:
    static constexpr u32 max_read = 16 * lib::KiB; // bytes
    // The first sectors, a backup header, the entries twice, the disk's end, and three places of each partition.
    static constexpr u32 most_reads = 2 + 2 * 4 + 2 + 3 * max_gpt_entries;
    struct Range {
        u64 first; // sectors
        u32 count; // at most max_read bytes together
    };

    // Begins with a disk. Until then the table is done and empty.
    void start(u64 sectors, u32 sector_size);
    bool is_done() const { return step_ == Step::Done; }
    // What must be read next. Meaningless if it is done.
    Range next() const { return range_; }
    // The answer to next(): all of its bytes, or that they cannot be read.
    void got(std::span<u8 const> bytes);
    void failed() { got({}); }

    // When it is done: by the order of the table.
    std::span<lib::service::PartitionEntry const> partitions() const {
        return std::span(partitions_).first(partition_count_);
    }
    // What is wrong with the disk or its table, or what the whole disk belongs to.
    std::string_view note() const { return {note_text_.data(), note_size_}; }

private:
    // Member: whether the whole disk, and then each partition, has the mark of somebody else at one of three places.
    enum class Step : u8 { First, BackupHeader, Entries, DiskMember, PartMember, Done };
    static constexpr u32 max_failures = 4; // each can take a device's whole time limit

    void got_first(lib::ByteView bytes);
    void take_header(lib::ByteView sector, u64 at);
    void table_is_bad(std::string_view why);
    void read_entries();
    void got_entries(lib::ByteView bytes);
    void take_mbr(Mbr const& mbr);
    bool has_overlap() const;
    bool is_in_partition(u64 at) const;
    void refuse(std::string_view kind, std::string_view why);
    void look_for_members();
    void next_place();
    void got_place(lib::ByteView bytes);
    void member(std::string_view note);
    void set_range(u64 at, u64 size);
    void set_note(std::string_view text, std::string_view what = {});

    DiskShape disk_{};
    Step step_ = Step::Done;
    Range range_{};
    bool is_backup_ = false, has_outside_ = false;
    u32 failures_ = 0;
    GptHeader header_{};
    u64 entries_done_ = 0; // bytes
    Crc32 crc_{};
    std::string_view defect_{}; // of the first table
    u32 part_ = 0, place_ = 0;  // that are looked at
    u32 partition_count_ = 0;
    std::array<lib::service::PartitionEntry, max_gpt_entries> partitions_{};
    std::array<char, 100> note_text_{};
    u32 note_size_ = 0;
};

} // namespace storage
