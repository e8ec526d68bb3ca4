// SPDX-License-Identifier: MIT
#pragma once
// Numbers that come from a service: no column gets wider by them, whatever they are.
#include <array>
#include <lib/format.hpp>

namespace manage {

// A number of at most ten characters: "1234567890", "12345678K".
struct Count {
    explicit Count(lib::u64 value) {
        constexpr std::string_view units[] = {"", "K", "M", "G", "T"}; // thousands
        lib::u32 unit = 0;
        for (; value >= (unit == 0 ? 10'000'000'000 : 1'000'000'000); unit++)
            value /= 1'000;
        size = lib::format_to(text, "{}{}", value, units[unit]).size();
    }
    std::string_view view() const { return {text.data(), size}; }
    std::array<char, 16> text{};
    std::size_t size = 0;
};

} // namespace manage
