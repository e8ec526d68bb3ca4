// SPDX-License-Identifier: MIT
#pragma once
// From the boot information's memory map to the frame allocator and the final page tables.
#include <boot/multiboot2.hpp>
#include <drivers/acpi.hpp>
#include <lib/result.hpp>

namespace boot {

struct MemorySummary {
    u64 ram = 0;       // all available RAM
    u64 modules = 0;   // bytes of boot modules, kept in place
    u64 own_image = 0; // the hypervisor's image
    HostPhys highest{};
    HostPhys startup_page{}; // one page below 1 MiB for the start of other CPUs; 0: there is none
};

// Uses nothing but the boot page tables, which map the first 4 GiB. Afterwards the RAM below 4 GiB is in the direct
// map, the image is mapped W^X, and allocation works.
lib::Result<MemorySummary> set_up_memory(Multiboot2 const& information, HostPhys information_at, u32 information_size);
// The RAM above 4 GiB, cut where NUMA nodes meet; RAM below is given to the node of its first byte. Nodes of the frame
// allocator are the firmware's proximity domains; RAM that SRAT does not mention is of domain 0.
lib::Result<void> add_high_memory(Multiboot2 const& information, HostPhys information_at, u32 information_size,
                                  drivers::AcpiInfo const& acpi);

} // namespace boot
