// SPDX-License-Identifier: MIT
#pragma once
#include <lib/types.hpp>

namespace lib {

// a / b with `fraction_bits` bits behind the point, rounded down; `is_exact` says whether nothing was cut off. Bit by
// bit, because the image has no 128-bit division. Needs b below 2^63, and room for the result.
constexpr u64 fixed_ratio(u64 a, u64 b, unsigned fraction_bits, bool& is_exact) {
    u64 quotient = a / b;
    u64 rest = a % b;
    for (unsigned i = 0; i < fraction_bits; i++) {
        rest <<= 1;
        quotient = quotient << 1 | (rest >= b ? 1 : 0);
        if (rest >= b) rest -= b;
    }
    is_exact = rest == 0;
    return quotient;
}

constexpr u64 fixed_ratio_up(u64 a, u64 b, unsigned fraction_bits) {
    bool is_exact = false;
    u64 const cut = fixed_ratio(a, b, fraction_bits, is_exact);
    return is_exact ? cut : cut + 1;
}

} // namespace lib
