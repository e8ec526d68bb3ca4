// SPDX-License-Identifier: MIT
#pragma once
// Our own bugs stop the machine with a readable panic. Never reachable from anything a guest does.

namespace lib {
[[noreturn]] void assertion_failed(char const* what, char const* file, int line);
}

// Kept in release builds: a broken invariant of a hypervisor is a security hole.
#define ASSERT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) [[unlikely]]                                                                                 \
            ::lib::assertion_failed(#condition, __FILE__, __LINE__);                                                   \
    } while (0)
