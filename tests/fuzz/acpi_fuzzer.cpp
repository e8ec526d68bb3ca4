// SPDX-License-Identifier: MIT
// Whatever firmware leaves: no read outside the tables, and plain values that keep their promises. The input is a list
// of tables {kind, length low, length high, body}; headers and checksums are put right, so that the bodies are looked
// at.
#include "require.hpp"

#include <drivers/acpi.hpp>

#include <cstring>
#include <map>
#include <vector>

namespace {

using fuzz::require;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr char const* kinds[] = {"FACP", "APIC", "HPET", "MCFG", "SPCR", "SRAT", "SSDT", "DSDT"};
constexpr u64 tables_base = 0x10'0000;
constexpr u64 dsdt_base = 0x8'0000;

struct Memory {
    std::map<u64, std::vector<u8>> pieces; // each its own allocation, so that a sanitizer sees the edges
    std::span<u8 const> read(lib::HostPhys at, u64 size) {
        auto const piece = pieces.find(at.value);
        if (piece == pieces.end() || size > piece->second.size()) return {};
        return {piece->second.data(), size};
    }
};

std::vector<u8> table(char const* signature, u8 revision, u8 const* body, std::size_t size) {
    std::vector<u8> bytes(36 + size);
    std::memcpy(bytes.data(), signature, 4);
    auto const length = static_cast<u32>(bytes.size());
    std::memcpy(bytes.data() + 4, &length, 4);
    bytes[8] = revision;
    if (size != 0) std::memcpy(bytes.data() + 36, body, size);
    unsigned sum = 0;
    for (u8 const byte : bytes)
        sum += byte;
    bytes[9] = static_cast<u8>(-sum);
    return bytes;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    static drivers::AcpiInfo info;
    static_cast<void>(drivers::parse_rsdp({data, size}));
    if (auto const s5 = drivers::find_s5({data, size})) require(s5->pm1a < 8 && s5->pm1b < 8);

    Memory memory;
    std::vector<u8> root;
    u64 next = tables_base;
    while (size >= 3) {
        u8 const kind = data[0] & 7;
        auto const revision = static_cast<u8>(data[0] >> 3);
        std::size_t const length = std::min<std::size_t>(data[1] | std::size_t{data[2]} << 8, size - 3);
        u64 const at = kind == 7 ? dsdt_base : next; // an FADT reaches the DSDT if it guesses the address
        memory.pieces[at] = table(kinds[kind], revision, data + 3, length);
        data += 3 + length;
        size -= 3 + length;
        next += 0x1'0000;
        if (kind == 7) continue;
        for (unsigned i = 0; i < 8; i++)
            root.push_back(static_cast<u8>(at >> i * 8));
    }
    memory.pieces[0x1000] = table("XSDT", 1, root.data(), root.size());
    auto const map = drivers::PhysicalMap::to<&Memory::read>(memory);
    require(drivers::read_acpi({.revision = 2, .rsdt = 0, .xsdt = 0x1000}, map, info).has_value());
    require(info.rejected_tables <= 256);
    for (auto const& cpu : info.cpus) {
        require(cpu.apic_id != 0xffff'ffff);
        for (auto const* other = info.cpus.begin(); other != &cpu; ++other)
            require(other->apic_id != cpu.apic_id);
    }
    for (auto const& ecam : info.ecams)
        require(ecam.first_bus <= ecam.last_bus && ecam.base.value != 0);
    for (auto const& range : info.memory)
        require(range.base.value + range.size > range.base.value);
    return 0;
}
