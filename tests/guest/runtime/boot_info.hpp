// SPDX-License-Identifier: MIT
#pragma once
#include "runtime/runtime.hpp"

namespace guest {
void parse_boot_info(); // once, before anything overwrites low memory
}
