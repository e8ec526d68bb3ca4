// SPDX-License-Identifier: MIT
#pragma once
// The hypervisor's own page tables: W^X, NX for all data, 1 GiB and 2 MiB pages where they fit.
#include <kernel/page_entry.hpp>
#include <kernel/translation_table.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace kernel {

using lib::HostVirt;

class PageTable {
public:
    // What this CPU can do; asked once.
    struct Capabilities {
        bool no_execute;
        bool pages_1g;
    };

    constexpr PageTable() = default;
    static lib::Result<PageTable> create(Capabilities capabilities);
    // Maps pages of 4 KiB and, where alignment allows, larger; `size` is rounded up to pages. Overwrites what was
    // there, which the caller must not do with a lock held: other CPUs are waited for.
    lib::Result<void> map(HostVirt virt, HostPhys phys, u64 size, Rights rights,
                          MemoryType type = MemoryType::WriteBack);
    void unmap_page(HostVirt virt); // one 4 KiB page; flushes this CPU only
    HostPhys root() const { return table_.root(); }
    // The physical address behind `virt`, or an error.
    lib::Result<HostPhys> translate(HostVirt virt) const;

private:
    TranslationTable<PageEntry> table_;
};

// The one table that all CPUs run on.
PageTable& kernel_page_table();
void set_kernel_page_table(PageTable&& table);

// Maps `size` bytes of a device, wherever they lie within pages; never unmapped. Registers must be uncached.
lib::Result<HostVirt> map_device(HostPhys base, u64 size, MemoryType type = MemoryType::Uncached);
// A stack of `pages` pages with an unmapped page below; returns its top.
lib::Result<HostVirt> allocate_stack(unsigned pages);

} // namespace kernel
