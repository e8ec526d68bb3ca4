// SPDX-License-Identifier: MIT
#pragma once
// How important a line of the log is.
#include <lib/types.hpp>

namespace lib {

enum class LogLevel : u8 { Error, Warning, Info, Debug };

} // namespace lib
