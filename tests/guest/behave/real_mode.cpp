// SPDX-License-Identifier: MIT
#include "behave/behave.hpp"

#include <array>

extern "C" lib::u32 behave_descend();

namespace behave {

// The stages of real_mode.S, a bit each.
void real_mode() {
    constexpr std::array<std::string_view, 11> stages = {
        "compatibility mode", "LMA clears with CR0.PG", "real mode",  "INT in real mode", "real-mode segments",
        "unreal mode",        "protected, no paging",   "PAE paging", "PG toggles",       "32-bit paging",
        "BIOS services"};
    u32 const worked = behave_descend();
    for (unsigned i = 0; i < stages.size(); i++)
        expect_true(stages[i], (worked >> i & 1) != 0);
}

} // namespace behave
