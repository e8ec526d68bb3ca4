// SPDX-License-Identifier: MIT
#pragma once
// What must hold whatever the input is. A fuzzer that meets the contrary stops, with the line on its last lines.
#include <cstdio>
#include <cstdlib>

namespace fuzz {

inline void require(bool condition, int line = __builtin_LINE()) {
    if (condition) return;
    std::fprintf(stderr, "broken promise at line %d\n", line);
    std::abort();
}

} // namespace fuzz
