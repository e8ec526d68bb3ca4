#pragma once
#include <string_view>

namespace boot {
inline constexpr std::string_view version = "0.1";
} // namespace boot
