// SPDX-License-Identifier: MIT
// Hosted builds have no panic: a broken invariant ends the test program with its place. Weak, so that tests of the
// kernel's own panic can link it.
#include <lib/assert.hpp>

#include <cstdio>
#include <cstdlib>

namespace lib {

[[gnu::weak]] void assertion_failed(char const* what, char const* file, int line) {
    std::fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, what);
    std::abort();
}

} // namespace lib
