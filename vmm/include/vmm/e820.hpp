#pragma once
// The memory map as PC firmware hands it out. [acpi] 15
#include <lib/types.hpp>

namespace vmm {

inline constexpr lib::u32 e820_ram = 1;
inline constexpr lib::u32 e820_reserved = 2;
inline constexpr lib::u32 e820_acpi = 3;

struct E820Entry {
    lib::u64 base;
    lib::u64 size;
    lib::u32 type;
};

} // namespace vmm
