// SPDX-License-Identifier: MIT
#pragma once
// Reads little-endian numbers from an untrusted file.
#include <lib/types.hpp>
#include <span>

namespace loader {

// Answers 0 outside of the bytes: the caller checks sizes where it matters and nothing else can go wrong.
class ByteReader {
public:
    explicit ByteReader(std::span<lib::u8 const> bytes) : bytes_(bytes) {}
    bool has(lib::u64 offset, lib::u64 size) const { return offset <= bytes_.size() && size <= bytes_.size() - offset; }
    lib::u64 size() const { return bytes_.size(); }
    template <typename T> T get(lib::u64 offset) const {
        T value = 0;
        if (has(offset, sizeof(T))) __builtin_memcpy(&value, bytes_.data() + offset, sizeof(T));
        return value;
    }
    // Empty when it is not all there.
    std::span<lib::u8 const> slice(lib::u64 offset, lib::u64 size) const {
        return has(offset, size) ? bytes_.subspan(offset, size) : std::span<lib::u8 const>{};
    }

private:
    std::span<lib::u8 const> bytes_;
};

} // namespace loader
