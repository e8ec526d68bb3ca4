// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <storage/table_format.hpp>

namespace storage {
namespace {

using lib::ByteView;

constexpr u32 smallest_header = 92, smallest_entry = 128;

constexpr std::array<u32, 16> make_crc_table() {
    std::array<u32, 16> table{};
    for (u32 i = 0; i < table.size(); i++) {
        u32 value = i;
        for (u32 bit = 0; bit < 4; bit++)
            value = (value & 1) != 0 ? value >> 1 ^ 0xedb8'8320 : value >> 1;
        table[i] = value;
    }
    return table;
}
constexpr std::array<u32, 16> crc_table = make_crc_table(); // for half a byte

// The first three fields of a GUID are little-endian numbers, the rest are bytes. [uefi] appendix A
void set_guid(char (&text)[40], ByteView guid) {
    constexpr std::array<u8, 16> order = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    constexpr std::string_view digits = "0123456789abcdef";
    u32 at = 0;
    for (u32 i = 0; i < order.size(); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text[at++] = '-';
        u8 const byte = guid.get8(order[i]);
        text[at++] = digits[byte >> 4];
        text[at++] = digits[byte & 15];
    }
    std::fill(std::begin(text) + at, std::end(text), '\0');
}

void set_label(char (&text)[40], ByteView name) {
    constexpr u32 most = 36; // UTF-16 units
    std::ranges::fill(text, '\0');
    for (u32 i = 0; i < most; i++) {
        u32 const unit = name.get16(u64{i} * 2);
        if (unit == 0) return;
        text[i] = unit >= ' ' && unit <= '~' ? static_cast<char>(unit) : '?';
    }
}

u32 header_crc(std::array<u8, smallest_header> start, ByteView sector, u32 size) {
    std::fill_n(start.begin() + 16, 4, u8{0}); // its own field counts as 0
    Crc32 crc;
    crc.add(start);
    crc.add(sector.part(smallest_header, size - smallest_header).bytes());
    return crc.value();
}

std::string_view check_header(GptHeader const& header, DiskShape const& disk) {
    if (header.first_usable < 2 || header.first_usable > header.last_usable || header.last_usable >= disk.sectors)
        return "its usable sectors are not inside of the disk";
    bool const is_power = std::has_single_bit(header.entry_size);
    if (!is_power || header.entry_size < smallest_entry || header.entry_size > max_gpt_entry_size)
        return "the size of its entries is not supported";
    if (header.entry_count == 0) return "it has no entries";
    if (header.entry_count > max_gpt_entries) return "it has more than 128 entries";
    u64 const sectors = (header.entries_bytes() + disk.sector_size - 1) / disk.sector_size;
    if (header.entries < 2 || header.entries >= disk.sectors || sectors > disk.sectors - header.entries)
        return "its entries are not inside of the disk";
    if (header.entries <= header.last_usable && header.entries + sectors > header.first_usable)
        return "its entries are among the usable sectors";
    return {};
}

} // namespace

void Crc32::add(std::span<u8 const> bytes) {
    for (u8 const byte : bytes) {
        state_ ^= byte;
        state_ = state_ >> 4 ^ crc_table[state_ & 15];
        state_ = state_ >> 4 ^ crc_table[state_ & 15];
    }
}

// [uefi] 5.3.2, table 5.5
std::string_view read_gpt_header(GptHeader& header, ByteView sector, u64 at, DiskShape const& disk) {
    if (!sector.has(0, disk.sector_size)) return "its header cannot be read";
    // The device can write to the sector at any time.
    std::array<u8, smallest_header> start{};
    std::memcpy(start.data(), sector.bytes().data(), start.size());
    ByteView const fields(start);
    if (fields.get64(0) != gpt_signature) return "it has no header";
    u32 const size = fields.get32(12);
    if (size < smallest_header || size > disk.sector_size) return "the size of its header is wrong";
    if (fields.get32(16) != header_crc(start, sector, size)) return "the checksum of its header is wrong";
    if (fields.get32(8) != 0x1'0000) return "its revision is not supported";
    if (fields.get64(24) != at) return "its header belongs to another sector";
    header = {.first_usable = fields.get64(40),
              .last_usable = fields.get64(48),
              .entries = fields.get64(72),
              .entry_count = fields.get32(80),
              .entry_size = fields.get32(84),
              .entries_crc = fields.get32(88)};
    return check_header(header, disk);
}

// [uefi] 5.3.3, table 5.6
EntryKind read_gpt_entry(lib::service::PartitionEntry& part, ByteView entry, GptHeader const& header,
                         DiskShape const& disk) {
    if (entry.get64(0) == 0 && entry.get64(8) == 0) return EntryKind::Unused;
    u64 const first = entry.get64(32), last = entry.get64(40);
    if (first < header.first_usable || last < first || last > header.last_usable) return EntryKind::Outside;
    part.first = first * disk.sector_size;
    part.size = (last - first + 1) * disk.sector_size;
    set_guid(part.guid, entry.part(16, 16));
    set_label(part.label, entry.part(56, 72));
    set_text(part.note, {});
    return EntryKind::Good;
}

// [uefi] 5.2. A file system's first sector can have the signature too; then the boot indicators are rarely right.
Mbr read_mbr(ByteView sector) {
    constexpr u64 table = 446, entry_size = 16;
    constexpr u8 protective = 0xee;
    Mbr mbr;
    if (sector.get16(510) != 0xaa55) return mbr;
    bool is_table = true;
    for (u32 i = 0; i < 4; i++) {
        ByteView const entry = sector.part(table + i * entry_size, entry_size);
        u8 const type = entry.get8(4);
        u32 const first = entry.get32(8), count = entry.get32(12);
        if (type == protective && first == 1) {
            mbr.kind = Mbr::Kind::Protective;
            return mbr;
        }
        is_table = is_table && (entry.get8(0) & 0x7f) == 0;
        if (type != 0 && count != 0) mbr.parts[mbr.part_count++] = {i + 1, first, count};
    }
    if (is_table && mbr.part_count != 0) mbr.kind = Mbr::Kind::Real;
    return mbr;
}

bool is_mdraid(ByteView superblock) { return superblock.get32(0) == 0xa92b'4efc; } // [linux/md] MD_SB_MAGIC

std::string_view find_member(ByteView head) {
    constexpr u64 sector = 512;                       // of LVM, whatever the disk's is
    for (u64 at = 0; at < 4 * sector; at += sector) { // [lvm2] label.h, LABEL_SCAN_SECTORS
        auto const is = [&](u64 offset, std::string_view text) {
            return head.has(at + offset, text.size()) &&
                   std::memcmp(head.bytes().data() + at + offset, text.data(), text.size()) == 0;
        };
        if (is(0, "LABELONE") && is(24, "LVM2 001")) return "member of LVM2";
    }
    return is_mdraid(head) || is_mdraid(head.from(4096)) ? mdraid_note : std::string_view{}; // versions 1.1 and 1.2
}

// [linux/md] super_1_load: at least 8 KiB before the end, at a multiple of 4 KiB.
u64 mdraid_1_0_at(u64 size) { return size < 12288 ? 0 : (size - 8192) & ~u64{4095}; }

// [linux/md] MD_NEW_SIZE_SECTORS: in the last whole 64 KiB.
u64 mdraid_0_90_at(u64 size) {
    constexpr u64 reserved = 65536;
    return size < reserved ? 0 : (size & ~(reserved - 1)) - reserved;
}

} // namespace storage
