// SPDX-License-Identifier: MIT
#pragma once
// Text that a device says about itself, as DiskFacts has it.
#include <algorithm>
#include <array>
#include <block/function.hpp>

namespace block {

// Copies up to a NUL, without spaces around it; what is not printable becomes '?', and the rest of `out` NUL. The
// device may still write to `in`, of which at most 64 bytes are read, each once.
inline void copy_printable(std::span<char> out, std::span<u8 const> in) {
    std::array<char, 64> text{};
    std::size_t end = 0;
    for (u8 const& byte : in.first(std::min(in.size(), text.size()))) {
        u8 const once = *const_cast<u8 const volatile*>(&byte);
        if (once == 0) break;
        text[end++] = once >= ' ' && once <= '~' ? static_cast<char>(once) : '?';
    }
    std::size_t begin = 0;
    while (begin != end && text[begin] == ' ')
        begin++;
    end = std::min(end, begin + out.size() - 1);
    while (end != begin && text[end - 1] == ' ')
        end--;
    std::ranges::fill(out, '\0');
    std::copy(text.data() + begin, text.data() + end, out.begin());
}

} // namespace block
