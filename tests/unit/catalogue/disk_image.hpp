// SPDX-License-Identifier: MIT
#pragma once
// The bytes of a disk, and partition tables on it as tools of other systems write them.
#include <cstring>
#include <functional>
#include <optional>
#include <storage/gpt.hpp>
#include <string>
#include <vector>

namespace catalogue_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// Bit by bit, so that it shares no mistake with what is tested.
inline u32 crc32(std::span<u8 const> bytes) {
    u32 state = ~u32{0};
    for (u8 const byte : bytes) {
        state ^= byte;
        for (int bit = 0; bit < 8; bit++)
            state = state >> 1 ^ (0xedb8'8320 & -(state & 1));
    }
    return ~state;
}

struct Image {
    explicit Image(u32 size_of_sector = 512, u64 size = u64{1} << 20) : sector_size(size_of_sector), bytes(size) {}
    u32 sector_size;
    std::vector<u8> bytes;

    u64 sectors() const { return bytes.size() / sector_size; }
    u64 last() const { return sectors() - 1; }
    template <typename T> void put(u64 at, T value) { std::memcpy(&bytes.at(at), &value, sizeof(T)); }
    void put_text(u64 at, std::string_view text) { std::memcpy(&bytes.at(at), text.data(), text.size()); }
    std::span<u8> part(u64 at, u64 size) { return std::span(bytes).subspan(at, size); }

    void put_mbr_part(u32 index, u8 type, u32 first, u32 count) {
        u64 const at = 446 + index * u64{16};
        put<u8>(at + 4, type);
        put<u32>(at + 8, first);
        put<u32>(at + 12, count);
        put<u16>(510, 0xaa55);
    }
};

struct GptPart {
    u64 first, last;
    std::u16string label;
    u8 type = 0xaf; // each byte of the type's GUID
};

// A table whose fields can be changed before it is written.
struct Gpt {
    explicit Gpt(Image& on) : image(on) {
        entries_sectors = (u64{entry_count} * entry_size + image.sector_size - 1) / image.sector_size;
        first_usable = 2 + entries_sectors;
        last_usable = image.last() - 1 - entries_sectors;
    }
    Image& image;
    u32 entry_count = 128, entry_size = 128, header_size = 92, revision = 0x1'0000;
    u64 entries_sectors;
    u64 first_usable, last_usable;
    u64 first_entries = 2;
    std::optional<u64> my_lba;
    std::vector<GptPart> parts;

    void write() {
        image.put_mbr_part(0, 0xee, 1, static_cast<u32>(image.last()));
        write_copy(1, first_entries);
        write_copy(image.last(), image.last() - entries_sectors);
    }
    // With a right checksum, whatever has been changed in it.
    void seal(u64 at) {
        u64 const header = at * image.sector_size;
        image.put<u32>(header + 16, 0);
        image.put<u32>(header + 16, crc32(image.part(header, header_size)));
    }

private:
    void write_copy(u64 at, u64 entries) {
        u64 const header = at * image.sector_size;
        image.put_text(header, "EFI PART");
        image.put<u32>(header + 8, revision);
        image.put<u32>(header + 12, header_size);
        image.put<u64>(header + 24, my_lba.value_or(at));
        image.put<u64>(header + 32, at == 1 ? image.last() : 1);
        image.put<u64>(header + 40, first_usable);
        image.put<u64>(header + 48, last_usable);
        image.put<u64>(header + 72, entries);
        image.put<u32>(header + 80, entry_count);
        image.put<u32>(header + 84, entry_size);
        u64 const begin = entries * image.sector_size;
        for (u32 i = 0; i < parts.size(); i++) {
            u64 const entry = begin + u64{i} * entry_size;
            std::ranges::fill(image.part(entry, 16), parts[i].type);
            for (u32 byte = 0; byte < 16; byte++) // 03020100-0504-0706-0809-0a0b0c0d0eNN
                image.put<u8>(entry + 16 + byte, static_cast<u8>(byte == 15 ? i : byte));
            image.put<u64>(entry + 32, parts[i].first);
            image.put<u64>(entry + 40, parts[i].last);
            for (u32 unit = 0; unit < parts[i].label.size(); unit++)
                image.put<u16>(entry + 56 + u64{unit} * 2, static_cast<u16>(parts[i].label[unit]));
        }
        u64 const size = u64{entry_count} * entry_size;
        if (begin + size <= image.bytes.size()) image.put<u32>(header + 88, crc32(image.part(begin, size)));
        seal(at);
    }
};

} // namespace catalogue_test
