// SPDX-License-Identifier: MIT
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <kernel/page_table.hpp>
#include <kernel/spinlock.hpp>
#include <lib/x86/instructions.hpp>

namespace kernel {
namespace {

constexpr u64 entries_per_table = 512;
constexpr u64 device_window = 0xffff'c000'0000'0000;
constexpr u64 stack_window = 0xffff'd000'0000'0000;

constexpr unsigned shift_of(unsigned level) { return 12 + 9 * (level - 1); } // level 1: 4 KiB
constexpr u64 index_of(HostVirt virt, unsigned level) {
    return (virt.value >> shift_of(level)) & (entries_per_table - 1);
}

PageEntry leaf(HostPhys phys, unsigned level, Rights rights, Caching caching, bool no_execute) {
    PageEntry entry;
    entry.raw = phys.value;
    entry.set<PageEntry::Present>(true);
    entry.set<PageEntry::Accessed>(true); // set beforehand: the CPU need not write the tables
    entry.set<PageEntry::Dirty>(true);
    entry.set<PageEntry::Global>(true);
    entry.set<PageEntry::Writable>(rights == Rights::ReadWrite);
    entry.set<PageEntry::Large>(level > 1);
    entry.set<PageEntry::CacheDisable>(caching == Caching::Uncached);
    entry.set<PageEntry::WriteThrough>(caching != Caching::WriteBack);
    entry.set<PageEntry::NoExecute>(no_execute && rights != Rights::ReadExecute);
    return entry;
}

constinit PageTable the_table;
struct Windows {
    u64 next_device = device_window;
    u64 next_stack = stack_window;
};
constinit Guarded<Windows, LockRank::Vm> windows;

} // namespace

lib::Result<PageTable> PageTable::create(Capabilities capabilities) {
    PageTable table;
    table.capabilities_ = capabilities;
    table.root_ = TRY(allocate_zeroed_frame());
    return table;
}

lib::Result<void> PageTable::split(PageEntry& entry, unsigned level) {
    HostPhys const frame = TRY(allocate_zeroed_frame());
    auto* const lower = phys_to_virt<PageEntry>(frame);
    for (u64 i = 0; i < entries_per_table; i++) {
        lower[i] = entry;
        lower[i].raw += i << shift_of(level - 1);
        lower[i].set<PageEntry::Large>(level - 1 > 1);
    }
    entry.raw = frame.value | PageEntry::Present::mask | PageEntry::Writable::mask;
    return {};
}

lib::Result<PageEntry*> PageTable::entry_for(HostVirt virt, unsigned level) {
    auto* table = phys_to_virt<PageEntry>(root_);
    for (unsigned at = 4; at > level; at--) {
        PageEntry& entry = table[index_of(virt, at)];
        if (!entry.get<PageEntry::Present>()) {
            entry.raw = TRY(allocate_zeroed_frame()).value | PageEntry::Present::mask | PageEntry::Writable::mask;
        } else if (at < 4 && entry.get<PageEntry::Large>()) {
            TRY(split(entry, at));
        }
        table = phys_to_virt<PageEntry>(entry.address());
    }
    return &table[index_of(virt, level)];
}

lib::Result<void> PageTable::map(HostVirt virt, HostPhys phys, u64 size, Rights rights, Caching caching) {
    if (!virt.is_aligned(lib::page_size) || !phys.is_aligned(lib::page_size)) return lib::fail(lib::Errc::OutOfRange);
    size = lib::align_up(size, lib::page_size);
    while (size > 0) {
        unsigned level = capabilities_.pages_1g ? 3 : 2;
        while (level > 1 && ((virt.value | phys.value) & ((u64{1} << shift_of(level)) - 1)) != 0)
            level--;
        while (level > 1 && size < (u64{1} << shift_of(level)))
            level--;
        PageEntry* const entry = TRY(entry_for(virt, level));
        *entry = leaf(phys, level, rights, caching, capabilities_.no_execute);
        u64 const step = u64{1} << shift_of(level);
        virt += step;
        phys += step;
        size -= step;
    }
    return {};
}

void PageTable::unmap_page(HostVirt virt) {
    if (auto const entry = entry_for(virt, 1)) **entry = PageEntry{};
    lib::x86::invlpg(virt.value);
}

lib::Result<HostPhys> PageTable::translate(HostVirt virt) const {
    // Not canonical: an access is #GP, whatever the low 48 bits would say. Backtraces ask about any garbage.
    if (virt.value + (u64{1} << 47) >= u64{1} << 48) return lib::fail(lib::Errc::NotFound);
    auto const* table = phys_to_virt<PageEntry>(root_);
    for (unsigned level = 4; level >= 1; level--) {
        PageEntry const entry = table[index_of(virt, level)];
        if (!entry.get<PageEntry::Present>()) break;
        if (level == 1 || (level < 4 && entry.get<PageEntry::Large>())) {
            u64 const offset_mask = (u64{1} << shift_of(level)) - 1;
            return HostPhys{(entry.address().value & ~offset_mask) | (virt.value & offset_mask)};
        }
        table = phys_to_virt<PageEntry>(entry.address());
    }
    return lib::fail(lib::Errc::NotFound);
}

PageTable& kernel_page_table() { return the_table; }
void set_kernel_page_table(PageTable const& table) { the_table = table; }

lib::Result<HostVirt> map_device(HostPhys base, u64 size, Caching caching) {
    u64 const offset = base.value & (lib::page_size - 1);
    u64 const bytes = lib::align_up(offset + size, lib::page_size);
    return windows.with([&](Windows& w) -> lib::Result<HostVirt> {
        HostVirt const virt{w.next_device};
        TRY(the_table.map(virt, base - offset, bytes, Rights::ReadWrite, caching));
        w.next_device += bytes;
        return virt + offset;
    });
}

lib::Result<HostVirt> allocate_stack(unsigned pages) {
    return windows.with([&](Windows& w) -> lib::Result<HostVirt> {
        HostVirt const bottom{w.next_stack + lib::page_size};
        for (unsigned i = 0; i < pages; i++)
            TRY(the_table.map(bottom + i * lib::page_size, TRY(allocate_zeroed_frame()), lib::page_size,
                              Rights::ReadWrite));
        w.next_stack = bottom.value + pages * lib::page_size;
        return HostVirt{w.next_stack};
    });
}

} // namespace kernel
