// SPDX-License-Identifier: MIT
#pragma once
// The piece of low guest memory that holds what a loader says to a kernel until the kernel has moved it elsewhere.
#include <expected>
#include <lib/guest_memory.hpp>
#include <loader/boot_input.hpp>
#include <loader/load_error.hpp>
#include <loader/placement.hpp>

namespace loader {

using lib::GuestPhys;
using lib::u64;
using lib::u8;

// Below the extended BIOS data area, above what real-mode code uses.
inline constexpr MemoryRange boot_area{0x10000, 0x30000};
inline constexpr GuestPhys boot_parameters{0x10000};   // zero page, start info or Multiboot information: one page
inline constexpr GuestPhys boot_gdt{0x11000};          // one page, whose end is the first stack
inline constexpr GuestPhys boot_page_tables{0x12000};  // PML4, PDPT, four page directories
inline constexpr GuestPhys boot_memory_map{0x18000};   // one page
inline constexpr GuestPhys boot_module_list{0x19000};  // one page
inline constexpr GuestPhys boot_module_texts{0x1a000}; // up to the command line
inline constexpr u64 boot_module_texts_size = 0x6000;
inline constexpr GuestPhys boot_command_line{0x20000}; // to the end
inline constexpr u64 boot_command_line_size = 0x10000;
inline constexpr u64 boot_identity_map_size = 4 * lib::GiB;

using BootStep = std::expected<void, LoadError>;

// The area is RAM and is cleared.
BootStep prepare_boot_area(BootInput const& input, lib::GuestMemory const& memory);
// With its final zero; `limit` counts characters without it.
BootStep write_command_line(BootInput const& input, lib::GuestMemory const& memory, u64 limit);

// Entry state with a GDT, and for Long64 an identity map of the first 4 GiB, in guest memory. prepare_boot_area first.
std::expected<EntryState, LoadError> make_entry_state(lib::GuestMemory const& memory, EntryMode mode);

// Copies to where the memory map says RAM.
BootStep copy_in(lib::GuestMemory const& memory, u64 at, std::span<u8 const> bytes);
// The same, later if `input` says so: nothing else that is loaded may touch that place.
BootStep copy_in_later(BootInput const& input, lib::GuestMemory const& memory, u64 at, std::span<u8 const> bytes);
// Finds the highest place below `limit` for the initrd, which goes there, perhaps later. Without one: an empty range.
std::expected<MemoryRange, LoadError> load_initrd(BootInput const& input, lib::GuestMemory const& memory, u64 limit,
                                                  MemoryRange kernel);
// Places an initrd, or whatever else is not the kernel. An empty range for nothing.
std::expected<MemoryRange, LoadError> place_file(BootInput const& input, lib::GuestMemory const& memory,
                                                 std::span<u8 const> bytes, MemoryRange within, MemoryRange kernel);

} // namespace loader
