// SPDX-License-Identifier: MIT
#pragma once
// Which kind of kernel a file is, and the loader for it.
#include <lib/boot_kind.hpp>
#include <lib/guest_memory.hpp>
#include <loader/boot_input.hpp>
#include <loader/load_error.hpp>

namespace loader {

using lib::u8;

enum class ImageKind : u8 { Unknown, BzImage, ElfPvh, Multiboot2, Multiboot1, ElfPlain };

// The first that fits, in the order of ImageKind. A Linux bzImage holds a PVH ELF file too, but compressed.
ImageKind detect_image(std::span<u8 const> kernel);

// By the description's choice; Auto detects.
LoadResult load_guest(lib::BootKind boot, BootInput const& input, lib::GuestMemory const& memory);

} // namespace loader
