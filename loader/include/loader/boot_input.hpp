#pragma once
// What every loader gets.
#include <lib/types.hpp>
#include <loader/boot_copies.hpp>
#include <loader/e820.hpp>
#include <span>
#include <string_view>

namespace loader {

struct BootInput {
    std::span<lib::u8 const> kernel;
    std::span<lib::u8 const> initrd; // empty: none
    std::string_view command_line;
    std::span<E820Entry const> memory_map;
    lib::GuestPhys rsdp{};        // 0: no ACPI tables
    BootCopies* copies = nullptr; // takes a kernel's large parts and the initrd; nullptr: they are copied at once
};

} // namespace loader
