// SPDX-License-Identifier: MIT
// A disk with any bytes: reading its table ends after a bounded number of reads inside of the disk, and the partitions
// are inside of the disk and of each other's way.
// Input: one byte for the sector size, the checksums and how big the disk is; one for which reads fail; then pieces of
// 4 bytes (where, as a number of 8 bytes from the begin or, with the top bit, from the end; how many bytes follow; how
// often they are repeated) and the bytes.
#include "input.hpp"
#include "require.hpp"

#include <storage/gpt.hpp>
#include <vector>

namespace {

using fuzz::require;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using storage::PartitionTable;

struct Disk {
    u32 sector_size;
    std::vector<u8> bytes;

    u64 sectors() const { return bytes.size() / sector_size; }
    template <typename T> T get(u64 at) const {
        T value{};
        if (at <= bytes.size() && sizeof(T) <= bytes.size() - at) std::memcpy(&value, bytes.data() + at, sizeof(T));
        return value;
    }
    void put(u64 at, u32 value) {
        if (at <= bytes.size() && sizeof(value) <= bytes.size() - at) std::memcpy(bytes.data() + at, &value, 4);
    }
    u32 crc(u64 at, u64 size) const {
        storage::Crc32 crc;
        if (at <= bytes.size() && size <= bytes.size() - at) crc.add(std::span(bytes).subspan(at, size));
        return crc.value();
    }
    // No fuzzer finds a checksum.
    void seal(u64 sector) {
        u64 const header = sector * sector_size;
        u64 const size = u64{get<u32>(header + 80)} * get<u32>(header + 84);
        u64 const entries = get<u64>(header + 72);
        if (size <= 65536 && entries < sectors()) put(header + 88, crc(entries * sector_size, size));
        put(header + 16, 0);
        u32 const header_size = get<u32>(header + 12);
        put(header + 16, crc(header, header_size));
    }
};

Disk make_disk(fuzz::Input& input, u8 what) {
    constexpr u64 sizes[] = {262144, 131072 + 512 * 7, 65536, 4096};
    Disk disk{512U << what % 4, std::vector<u8>(sizes[what >> 2 & 3])};
    while (!input.is_empty()) {
        auto const where = input.take<u16>();
        u64 const offset = u64{where & 0x7fffU} * 8;
        u64 at = (where & 0x8000) != 0 ? disk.bytes.size() - offset - 8 : offset;
        auto const size = input.take<u8>();
        auto const times = input.take<u8>();
        std::vector<u8> piece(size);
        for (u8& byte : piece)
            byte = input.take<u8>();
        for (u32 i = 0; i <= times; i++, at += size)
            if (at <= disk.bytes.size() && size <= disk.bytes.size() - at)
                std::ranges::copy(piece, disk.bytes.begin() + static_cast<long>(at));
    }
    if ((what & 0x40) == 0) disk.seal(1);
    if ((what & 0x80) == 0) disk.seal(disk.sectors() - 1);
    return disk;
}

void check(PartitionTable const& table, Disk const& disk) {
    require(table.note().size() <= 100);
    auto const parts = table.partitions();
    for (std::size_t i = 0; i < parts.size(); i++) {
        auto const& part = parts[i];
        require(part.size != 0 && part.first % disk.sector_size == 0 && part.size % disk.sector_size == 0);
        require(part.first >= disk.sector_size && part.first <= disk.bytes.size());
        require(part.size <= disk.bytes.size() - part.first);
        for (auto const& other : parts.first(i))
            require(part.first >= other.first + other.size || other.first >= part.first + part.size);
        for (std::span<char const> const text : {std::span<char const>(part.label), {part.guid}, {part.note}}) {
            auto const end = std::ranges::find(text, char{0});
            require(end != text.end());
            require(std::all_of(text.begin(), end, [](char c) { return c >= ' ' && c <= '~'; }));
            require(std::all_of(end, text.end(), [](char c) { return c == 0; }));
        }
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    static PartitionTable& table = *new PartitionTable;
    fuzz::Input input({data, size});
    u8 const what = input.take<u8>();
    u8 const failures = input.take<u8>();
    Disk const disk = make_disk(input, what);
    table.start(disk.sectors(), disk.sector_size);
    for (u32 reads = 0; !table.is_done(); reads++) {
        require(reads < PartitionTable::most_reads);
        auto const range = table.next();
        u64 const bytes = u64{range.count} * disk.sector_size;
        require(range.count != 0 && bytes <= PartitionTable::max_read);
        require(range.first < disk.sectors() && range.count <= disk.sectors() - range.first);
        // A copy, so that no read goes further than what was asked for.
        std::vector<u8> const answer(disk.bytes.data() + range.first * disk.sector_size,
                                     disk.bytes.data() + range.first * disk.sector_size + bytes);
        if ((failures >> reads % 8 & 1) != 0)
            table.failed();
        else
            table.got(answer);
    }
    check(table, disk);
    return 0;
}
