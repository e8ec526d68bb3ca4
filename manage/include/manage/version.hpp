// SPDX-License-Identifier: MIT
#pragma once
#include <string_view>

namespace manage {
inline constexpr std::string_view version = "0.1";
extern std::string_view const commit; // made by linker/commit.cmake when Mullion is built
} // namespace manage
