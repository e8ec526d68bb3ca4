// SPDX-License-Identifier: MIT
#pragma once
// Text that a device says about itself, as DiskFacts has it.
#include <algorithm>
#include <block/function.hpp>

namespace block {

// Copies up to a NUL and without spaces around it; what is not printable becomes '?', and the rest of `out` NUL.
inline void copy_printable(std::span<char> out, std::span<u8 const> in) {
    std::ranges::fill(out, '\0');
    in = in.first(static_cast<std::size_t>(std::ranges::find(in, u8{0}) - in.begin()));
    while (!in.empty() && in.front() == ' ')
        in = in.subspan(1);
    while (!in.empty() && in.back() == ' ')
        in = in.first(in.size() - 1);
    std::size_t const count = std::min(in.size(), out.size() - 1);
    for (std::size_t i = 0; i < count; i++)
        out[i] = in[i] >= ' ' && in[i] <= '~' ? static_cast<char>(in[i]) : '?';
    std::size_t end = count;
    while (end != 0 && out[end - 1] == ' ')
        out[--end] = '\0'; // it was cut after a space
}

} // namespace block
