// SPDX-License-Identifier: MIT
#pragma once
// What both Multiboot versions share.
#include "byte_reader.hpp"
#include <array>
#include <lib/fixed_vector.hpp>
#include <loader/boot_area.hpp>
#include <loader/elf.hpp>

namespace loader {

using lib::u32;
using lib::u64;

inline constexpr std::string_view boot_loader_name = "Mullion";

// The addresses by which a header replaces ELF, as both versions give them. 0 stands for "to the end" and "none".
struct MultibootAddresses {
    u64 header_offset; // in the file
    u32 header;
    u32 load;
    u32 load_end;
    u32 bss_end;
};

struct MultibootKernel {
    MemoryRange range;
    u64 entry;
};

std::expected<MemoryRange, LoadError> load_by_addresses(BootInput const& input, lib::GuestMemory const& memory,
                                                        MultibootAddresses const& addresses);
std::expected<MultibootKernel, LoadError> load_by_elf(BootInput const& input, lib::GuestMemory const& memory);

// One that is in memory, with its text.
struct PlacedModule {
    MemoryRange range;
    std::string_view text;
};
using PlacedModules = lib::FixedVector<PlacedModule, max_boot_modules + 1>;
// The initrd, whose text is empty, and the modules in their order. Each is below the one before it, all are below 4
// GiB.
std::expected<PlacedModules, LoadError> place_modules(BootInput const& input, lib::GuestMemory const& memory,
                                                      MemoryRange kernel);

// KiB from 0 and from 1 MiB on, up to the first hole.
struct BasicMemory {
    u32 lower;
    u32 upper;
};
BasicMemory basic_memory(std::span<E820Entry const> map);

} // namespace loader
