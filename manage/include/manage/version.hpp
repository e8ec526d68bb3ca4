#pragma once
#include <string_view>

namespace manage {
inline constexpr std::string_view version = "0.1";
} // namespace manage
