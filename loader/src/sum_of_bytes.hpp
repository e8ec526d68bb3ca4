// SPDX-License-Identifier: MIT
#pragma once
// The sum that makes up the checksum of a firmware table.
#include <lib/memory.hpp>
#include <lib/types.hpp>
#include <span>

namespace loader {

// Modulo 256. Every VM has some thousands of these bytes, so eight at a time go into four sums of 16 bits, of which the
// lower halves count.
inline lib::u8 sum_of_bytes(std::span<lib::u8 const> bytes) {
    constexpr lib::u64 every_other = 0x00ff'00ff'00ff'00ff;
    lib::u64 sums = 0;
    lib::u8 const* at = bytes.data();
    lib::u8 const* const end = at + bytes.size();
    for (; end - at >= 8; at += 8) {
        lib::u64 const word = lib::load<lib::u64>(at);
        sums = (sums & every_other) + (word & every_other) + (word >> 8 & every_other);
    }
    lib::u64 sum = sums + (sums >> 16) + (sums >> 32) + (sums >> 48);
    for (; at != end; at++)
        sum += *at;
    return static_cast<lib::u8>(sum);
}

} // namespace loader
