// SPDX-License-Identifier: MIT
#pragma once
// What every loader gets.
#include <lib/types.hpp>
#include <loader/boot_copies.hpp>
#include <loader/e820.hpp>
#include <span>
#include <string_view>

namespace loader {

// What a Multiboot kernel gets beside itself, and the command line of it.
struct BootModule {
    std::span<lib::u8 const> bytes;
    std::string_view text;
};
inline constexpr lib::u32 max_boot_modules = 8;

struct BootInput {
    std::span<lib::u8 const> kernel;
    std::span<lib::u8 const> initrd; // empty: none
    std::string_view command_line;
    std::span<E820Entry const> memory_map;
    lib::GuestPhys rsdp{};        // 0: no ACPI tables
    BootCopies* copies = nullptr; // takes a kernel's large parts, the initrd and modules; nullptr: copied at once
    std::span<BootModule const> modules{}; // at most max_boot_modules; Multiboot only
    bool is_memory_zero = false; // from 1 MiB on and in the boot area: what has to be zero there is left as it is
};

} // namespace loader
