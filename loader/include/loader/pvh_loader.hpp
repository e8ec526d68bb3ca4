// SPDX-License-Identifier: MIT
#pragma once
// Loads ELF kernels that are entered by the x86/HVM direct boot ABI ("PVH"), and plain ELF files in its likeness.
// Not supported: relocatable (ET_DYN) kernels elsewhere than where they are linked, kernels above 4 GiB.
#include <lib/guest_memory.hpp>
#include <loader/boot_input.hpp>
#include <loader/load_error.hpp>

namespace loader {

// 32-bit protected mode at the note's entry point, rbx = hvm_start_info version 1. [xen/pvh]
LoadResult load_pvh(BootInput const& input, lib::GuestMemory const& memory);

// At the file's own entry point: 32-bit protected mode for ELF32, long mode with an identity map for ELF64; rbx as
// above.
LoadResult load_elf(BootInput const& input, lib::GuestMemory const& memory);

} // namespace loader
