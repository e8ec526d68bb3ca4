#pragma once
// Loads kernels with a Multiboot or Multiboot2 header; both are entered in 32-bit protected mode.
// Not supported: video modes and framebuffers, ELF symbols, drives, APM, EFI, relocation (a kernel stays where it is
// linked).
#include <optional>
#include <vmm/boot_input.hpp>
#include <vmm/guest_memory.hpp>
#include <vmm/load_error.hpp>

namespace vmm {

// Offset of a header with a good checksum. [multiboot1] 3.1, [multiboot2] 3.1
std::optional<lib::u64> find_multiboot1_header(std::span<lib::u8 const> kernel);
std::optional<lib::u64> find_multiboot2_header(std::span<lib::u8 const> kernel);

LoadResult load_multiboot1(BootInput const& input, GuestMemory const& memory);
LoadResult load_multiboot2(BootInput const& input, GuestMemory const& memory);

} // namespace vmm
