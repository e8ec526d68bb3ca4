// SPDX-License-Identifier: MIT
#pragma once
// How a guest kernel is started: what a description names and what the loaders carry out.
#include <lib/types.hpp>

namespace lib {

enum class BootKind : u8 { Auto, Linux, Pvh, Elf, Multiboot1, Multiboot2 };

} // namespace lib
