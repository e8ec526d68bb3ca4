// SPDX-License-Identifier: MIT
#pragma once
// What the sectors of partition tables, and of those who use disks without Mullion, look like. Nothing here is believed
// before it is checked, and no state is kept.
#include <array>
#include <lib/byte_view.hpp>
#include <lib/service_board.hpp>
#include <string_view>

namespace storage {

using lib::u32;
using lib::u64;
using lib::u8;

// The CRC-32 of GPT, in pieces. [uefi] 4.2.1
class Crc32 {
public:
    void add(std::span<u8 const> bytes);
    u32 value() const { return ~state_; }

private:
    u32 state_ = ~u32{0};
};

struct DiskShape {
    u64 sectors = 0;
    u32 sector_size = 512;
    u64 bytes() const { return sectors * sector_size; }
};

struct GptHeader {
    u64 first_usable = 0, last_usable = 0;
    u64 entries = 0; // first sector of them
    u32 entry_count = 0, entry_size = 0, entries_crc = 0;
    u64 entries_bytes() const { return u64{entry_count} * entry_size; } // at most 64 KiB
};

inline constexpr u64 gpt_signature = 0x5452'4150'2049'4645; // "EFI PART"
inline constexpr u32 max_gpt_entries = 128, max_gpt_entry_size = 512;

// Reads the header in the sector `at`, whose bytes are `sector`. Returns what is wrong with it, or an empty text.
std::string_view read_gpt_header(GptHeader& header, lib::ByteView sector, u64 at, DiskShape const& disk);

enum class EntryKind : u8 { Unused, Good, Outside };
// Reads one entry. Unused and Outside leave `part` undefined.
EntryKind read_gpt_entry(lib::service::PartitionEntry& part, lib::ByteView entry, GptHeader const& header,
                         DiskShape const& disk);

struct Mbr {
    enum class Kind : u8 { None, Protective, Real };
    struct Part {
        u32 number;       // 1 to 4
        u64 first, count; // sectors; they need not be inside of the disk
    };
    Kind kind = Kind::None;
    u32 part_count = 0; // of Real
    std::array<Part, 4> parts{};
};
Mbr read_mbr(lib::ByteView sector);

// Of another user of the disk, whose mark is in the first `member_head` bytes: a note, or an empty text.
inline constexpr u32 member_head = 8192;
std::string_view find_member(lib::ByteView head);
inline constexpr std::string_view mdraid_note = "member of mdraid";
bool is_mdraid(lib::ByteView superblock);
// Where superblocks at the end of `size` bytes are, from their begin; 0: there is no room for one.
u64 mdraid_1_0_at(u64 size);
u64 mdraid_0_90_at(u64 size);

// Cuts what does not fit; the rest becomes NUL.
template <std::size_t Size> void set_text(char (&to)[Size], std::string_view from) {
    for (std::size_t i = 0; i < Size; i++)
        to[i] = i < from.size() && i + 1 < Size ? from[i] : '\0';
}

} // namespace storage
