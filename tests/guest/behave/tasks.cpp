// SPDX-License-Identifier: MIT
#include "behave/behave.hpp"

#include <array>

extern "C" lib::u32 behave_tasks();

namespace behave {

// The stages of tasks.S, a bit each.
void tasks() {
    constexpr std::array<std::string_view, 11> stages = {
        "jump to a task",          "call of a task and its IRET",  "call through a task gate",
        "INT through a task gate", "error code on a task's stack", "double fault through a task gate",
        "fault in the new task",   "TSS that is not present",      "16-bit TSS",
        "CR3 of a task",           "page fault of a TSS"};
    u32 const worked = behave_tasks();
    for (unsigned i = 0; i < stages.size(); i++)
        expect_true(stages[i], (worked >> i & 1) != 0);
}

} // namespace behave
