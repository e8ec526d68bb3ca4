// SPDX-License-Identifier: MIT
#pragma once
// The hypervisor's own 4-level page tables: W^X, NX for all data, 1 GiB and 2 MiB pages where they fit.
#include <lib/bits.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace kernel {

using lib::HostPhys;
using lib::HostVirt;
using lib::u64;
using lib::u8;

// [intel/vol3] 4.5.4
struct PageEntry : lib::Reg<PageEntry, u64> {
    using Present = lib::Bits<u64, 0>;
    using Writable = lib::Bits<u64, 1>;
    using WriteThrough = lib::Bits<u64, 3>;
    using CacheDisable = lib::Bits<u64, 4>;
    using Accessed = lib::Bits<u64, 5>;
    using Dirty = lib::Bits<u64, 6>;
    using Large = lib::Bits<u64, 7>;
    using Global = lib::Bits<u64, 8>;
    using Frame = lib::Bits<u64, 51, 12, u64>;
    using NoExecute = lib::Bits<u64, 63>;
    HostPhys address() const { return HostPhys{get<Frame>() << 12}; }
};

enum class Rights : u8 { Read, ReadWrite, ReadExecute }; // there is no writable and executable
// Each is an entry of the PAT as enable_cpu_protections() sets it: 0, 3 and 1.
enum class Caching : u8 { WriteBack, Uncached, WriteCombining };

class PageTable {
public:
    // What this CPU can do; asked once.
    struct Capabilities {
        bool no_execute;
        bool pages_1g;
    };

    static lib::Result<PageTable> create(Capabilities capabilities);
    // Maps pages of 4 KiB and, where alignment allows, larger. Overwrites what was there.
    lib::Result<void> map(HostVirt virt, HostPhys phys, u64 size, Rights rights, Caching caching = Caching::WriteBack);
    void unmap_page(HostVirt virt); // one 4 KiB page; flushes this CPU only
    HostPhys root() const { return root_; }
    // The physical address behind `virt`, or an error.
    lib::Result<HostPhys> translate(HostVirt virt) const;

private:
    lib::Result<PageEntry*> entry_for(HostVirt virt, unsigned level);
    lib::Result<void> split(PageEntry& entry, unsigned level);
    HostPhys root_{};
    Capabilities capabilities_{};
};

// The one table that all CPUs run on.
PageTable& kernel_page_table();
void set_kernel_page_table(PageTable const& table);

// Maps `size` bytes of a device, wherever they lie within pages; never unmapped. Registers must be uncached.
lib::Result<HostVirt> map_device(HostPhys base, u64 size, Caching caching = Caching::Uncached);
// A stack of `pages` pages with an unmapped page below; returns its top.
lib::Result<HostVirt> allocate_stack(unsigned pages);

} // namespace kernel
