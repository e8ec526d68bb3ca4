// SPDX-License-Identifier: MIT
#pragma once
// Bounds-checked little-endian reading of tables that somebody else wrote. A value outside the bytes reads as 0, so a
// short or damaged table looks like one whose last fields are empty; has() tells the difference where it matters.
#include <cstring>
#include <lib/types.hpp>
#include <span>
#include <string_view>
#include <type_traits>

namespace lib {

class ByteView {
public:
    constexpr ByteView() = default;
    constexpr explicit ByteView(std::span<u8 const> bytes) : bytes_(bytes) {}

    constexpr u64 size() const { return bytes_.size(); }
    constexpr bool is_empty() const { return bytes_.empty(); }
    constexpr std::span<u8 const> bytes() const { return bytes_; }
    constexpr bool has(u64 offset, u64 count) const { return offset <= size() && count <= size() - offset; }

    u8 get8(u64 offset) const { return get<u8>(offset); }
    u16 get16(u64 offset) const { return get<u16>(offset); }
    u32 get32(u64 offset) const { return get<u32>(offset); }
    u64 get64(u64 offset) const { return get<u64>(offset); }

    // The part of [offset, offset + count) that exists.
    constexpr ByteView part(u64 offset, u64 count) const {
        if (offset >= size()) return {};
        u64 const there = size() - offset;
        return ByteView(bytes_.subspan(offset, count < there ? count : there));
    }
    constexpr ByteView from(u64 offset) const { return part(offset, size()); }
    // Text up to the first NUL or the end of the bytes.
    std::string_view text(u64 offset) const {
        if (offset >= size()) return {};
        auto const* const begin = reinterpret_cast<char const*>(bytes_.data() + offset);
        std::string_view const rest(begin, size() - offset);
        return rest.substr(0, rest.find('\0'));
    }
    // Sum of all bytes modulo 256: 0 for a valid ACPI, SMBIOS or PnP table.
    u8 checksum() const {
        unsigned sum = 0;
        for (u8 const byte : bytes_)
            sum += byte;
        return static_cast<u8>(sum);
    }

private:
    template <typename T> T get(u64 offset) const {
        if (!has(offset, sizeof(T))) return 0;
        T value;
        std::memcpy(&value, bytes_.data() + offset, sizeof(T));
        return value;
    }
    std::span<u8 const> bytes_;
};

} // namespace lib
