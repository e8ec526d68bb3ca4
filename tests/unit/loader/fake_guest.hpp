// SPDX-License-Identifier: MIT
#pragma once
// Guest RAM as a PC has it, with the hole below 1 MiB, and the bytes of small kernels to load into it.
#include <array>
#include <cstring>
#include <lib/guest_memory.hpp>
#include <loader/boot_input.hpp>
#include <loader/load_error.hpp>
#include <string>
#include <vector>

namespace fakes {

using lib::u64;
using lib::u8;

inline void store(std::vector<u8>& bytes, std::size_t at, u64 value, std::size_t size) {
    if (bytes.size() < at + size) bytes.resize(at + size);
    std::memcpy(bytes.data() + at, &value, size);
}

struct Guest {
    static constexpr u64 low_end = 0x9fc00;

    explicit Guest(u64 size) : low(low_end, 0xcc), high(size - lib::MiB, 0xcc) {
        pieces[0] = {lib::GuestPhys{0}, low.size(), low.data()};
        pieces[1] = {lib::GuestPhys{lib::MiB}, high.size(), high.data()};
        map[0] = {0, low_end, loader::e820_ram};
        map[1] = {low_end, lib::MiB - low_end, loader::e820_reserved};
        map[2] = {lib::MiB, size - lib::MiB, loader::e820_ram};
    }
    lib::GuestMemory memory() const { return lib::GuestMemory(pieces); }
    template <typename T> T get(u64 at) const { return *memory().read<T>(lib::GuestPhys{at}); }
    std::string text(u64 at) const {
        std::string result;
        while (char const c = get<char>(at++))
            result += c;
        return result;
    }
    bool holds(u64 at, std::vector<u8> const& bytes) const {
        std::vector<u8> found(bytes.size());
        return memory().read(lib::GuestPhys{at}, found).has_value() && found == bytes;
    }

    std::vector<u8> low;
    std::vector<u8> high;
    std::array<lib::RamPiece, 2> pieces{};
    std::array<loader::E820Entry, 3> map{};
};

inline std::string text_of(loader::LoadError error) {
    std::array<char, 200> buffer{};
    lib::BufferSink sink(buffer);
    loader::format_load_error(sink, error);
    return std::string(sink.view());
}

} // namespace fakes
