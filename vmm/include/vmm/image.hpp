#pragma once
// Which kind of kernel a file is, and the loader for it.
#include <vmm/boot_input.hpp>
#include <vmm/description.hpp>
#include <vmm/guest_memory.hpp>
#include <vmm/load_error.hpp>

namespace vmm {

enum class ImageKind : u8 { Unknown, BzImage, ElfPvh, Multiboot2, Multiboot1, ElfPlain };

// The first that fits, in the order of ImageKind. A Linux bzImage holds a PVH ELF file too, but compressed.
ImageKind detect_image(std::span<u8 const> kernel);

// By the description's choice; Auto detects.
LoadResult load_guest(BootKind boot, BootInput const& input, GuestMemory const& memory);

} // namespace vmm
