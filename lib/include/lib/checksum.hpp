// SPDX-License-Identifier: MIT
#pragma once
// FNV-1a: tells accidents apart, not attacks. [fnv]
#include <lib/types.hpp>
#include <span>

namespace lib {

class Checksum {
public:
    constexpr void add(u8 byte) { value_ = (value_ ^ byte) * prime; }
    constexpr void add(std::span<u8 const> bytes) {
        for (u8 const byte : bytes)
            add(byte);
    }
    // The number's bytes, the lowest first.
    constexpr void add_number(u64 number) {
        for (unsigned i = 0; i < sizeof(number); i++)
            add(static_cast<u8>(number >> (8 * i)));
    }
    constexpr u64 value() const { return value_; }

private:
    static constexpr u64 basis = 0xcbf2'9ce4'8422'2325, prime = 0x100'0000'01b3;
    u64 value_ = basis;
};

} // namespace lib
