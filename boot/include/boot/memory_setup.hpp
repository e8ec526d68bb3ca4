#pragma once
// From the boot information's memory map to the frame allocator and the final page tables.
#include <boot/multiboot2.hpp>
#include <lib/result.hpp>

namespace boot {

struct MemorySummary {
    u64 ram = 0;       // all available RAM
    u64 modules = 0;   // bytes of boot modules, kept in place
    u64 own_image = 0; // the hypervisor's image
    HostPhys highest{};
    HostPhys startup_page{}; // one page below 1 MiB for the start of other CPUs; 0: there is none
};

// Uses nothing but the boot page tables, which map the first 4 GiB. Afterwards all RAM is in the direct map, the image
// is mapped W^X, and allocation works.
lib::Result<MemorySummary> set_up_memory(Multiboot2 const& information, HostPhys information_at, u32 information_size);

} // namespace boot
