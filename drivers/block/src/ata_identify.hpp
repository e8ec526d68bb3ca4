// SPDX-License-Identifier: MIT
#pragma once
// What IDENTIFY DEVICE says, for AHCI and IDE. [ata/8-acs] 7.16.7
#include "printable.hpp"

namespace block::ata {

inline constexpr u32 identify_words = 256;

inline bool has_bit(std::span<u16 const> words, u32 word, u32 bit) { return (words[word] >> bit & 1) != 0; }
// Words with these two bits say that what they and their neighbours say is meant.
inline bool has_meaning(std::span<u16 const> words, u32 word) { return words[word] >> 14 == 1; }

// Text whose bytes are swapped in pairs; at most 40 bytes. [ata/8-acs] 3.2.8
inline void copy_text(std::span<char> out, std::span<u16 const> words) {
    std::array<u8, 40> bytes{};
    for (std::size_t i = 0; i < bytes.size() && i < words.size() * 2; i++)
        bytes[i] = static_cast<u8>(i % 2 == 0 ? words[i / 2] >> 8 : words[i / 2] & 0xff);
    copy_printable(out, bytes);
}

} // namespace block::ata
