// SPDX-License-Identifier: MIT
#pragma once
// Loads kernels with a Multiboot or Multiboot2 header; both are entered in 32-bit protected mode.
// Not supported: video modes and framebuffers, ELF symbols, drives, APM, EFI, relocation (a kernel stays where it is
// linked).
#include <lib/guest_memory.hpp>
#include <loader/boot_input.hpp>
#include <loader/load_error.hpp>
#include <optional>

namespace loader {

// Offset of a header with a good checksum. [multiboot1] 3.1, [multiboot2] 3.1
std::optional<lib::u64> find_multiboot1_header(std::span<lib::u8 const> kernel);
std::optional<lib::u64> find_multiboot2_header(std::span<lib::u8 const> kernel);

LoadResult load_multiboot1(BootInput const& input, lib::GuestMemory const& memory);
LoadResult load_multiboot2(BootInput const& input, lib::GuestMemory const& memory);

} // namespace loader
