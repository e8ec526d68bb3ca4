// SPDX-License-Identifier: MIT
#pragma once
// Addresses of IPv4. They are numbers, their first byte the highest.
#include <array>
#include <lib/format.hpp>

namespace lib {

// `length`: of a network's prefix, at most 32.
constexpr u32 ipv4_mask(u32 length) { return length == 0 ? 0 : ~u32{0} << (32 - length); }

// Whether it can be one station's: not of "this network", this machine, or a group. [rfc/6890] 2.2.2
constexpr bool is_ipv4_of_a_station(u32 address) {
    u32 const first = address >> 24;
    return first != 0 && first != 127 && first < 224;
}

// As people write it: "192.0.2.1".
class Ipv4Text {
public:
    explicit Ipv4Text(u32 address)
        : size_(
              format_to(text_, "{}.{}.{}.{}", address >> 24, address >> 16 & 0xff, address >> 8 & 0xff, address & 0xff)
                  .size()) {}
    std::string_view view() const { return {text_.data(), size_}; }

private:
    std::array<char, 16> text_{};
    std::size_t size_;
};

} // namespace lib
