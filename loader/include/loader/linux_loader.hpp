// SPDX-License-Identifier: MIT
#pragma once
// Loads a Linux bzImage. [linux/boot] The Linux/x86 boot protocol, 2.06 to 2.15.
// Not supported: zImage, EFI entry points, setup_data, kernels above 4 GiB, a video mode.
#include <expected>
#include <lib/guest_memory.hpp>
#include <loader/boot_input.hpp>
#include <loader/load_error.hpp>
#include <loader/placement.hpp>

namespace loader {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// What the setup header says, checked.
struct LinuxHeader {
    u16 version;
    u32 header_end;  // offset in the file
    u32 code_offset; // where the protected-mode part starts in the file
    bool is_64;      // entry at +0x200 in long mode; else 32-bit protected mode
    bool relocatable;
    bool above_4g;         // the initrd may lie above 4 GiB
    u32 alignment;         // a power of two
    u64 initrd_end;        // first byte that the initrd must not use
    u32 command_line_size; // characters without the final zero
    u64 preferred;         // load address
    u64 run_size;          // bytes needed from the load address on
};

std::expected<LinuxHeader, LoadError> read_linux_header(std::span<u8 const> kernel);

// Writes kernel, initrd, command line, boot parameters and, for 64-bit kernels, page tables and descriptors to guest
// memory, each once.
LoadResult load_linux(BootInput const& input, lib::GuestMemory const& memory);

} // namespace loader
