// SPDX-License-Identifier: MIT
#include <kernel/calls.hpp>
#include <kernel/page_table.hpp>
#include <kernel/spinlock.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {
namespace {

constexpr u64 device_window = 0xffff'c000'0000'0000;
constexpr u64 stack_window = 0xffff'd000'0000'0000;

[[clang::no_destroy]] constinit PageTable the_table;
struct Windows {
    u64 next_device = device_window;
    u64 next_stack = stack_window;
};
constinit Guarded<Windows, LockRank::Vm> windows;

// Ours are global pages: loading CR3 alone does not reach them. [intel/vol3] 4.10.4.1
void flush_this_cpu() {
    u64 const cr4 = lib::x86::read_cr4();
    u64 const global = lib::x86::Cr4::PGE::mask;
    if ((cr4 & global) == 0) {
        lib::x86::write_cr3(lib::x86::read_cr3());
    } else {
        lib::x86::write_cr4(cr4 & ~global);
        lib::x86::write_cr4(cr4);
    }
}

// While the table is still being made, no CPU knows it.
void flush_users_of(HostPhys root) {
    if ((lib::x86::read_cr3() & PageEntry::frame_mask) != root.value) return;
    InterruptGuard const no_interrupts;
    flush_this_cpu();
    run_on_others(lib::Delegate<void()>::to_function<flush_this_cpu>());
}

} // namespace

lib::Result<PageTable> PageTable::create(Capabilities capabilities) {
    PageTable table;
    table.table_ =
        TranslationTable<PageEntry>({.largest_level = capabilities.pages_1g ? 3U : 2U,
                                     .absent_bits = capabilities.no_execute ? 0 : PageEntry::NoExecute::mask});
    TRY(table.table_.create_root());
    return table;
}

lib::Result<void> PageTable::map(HostVirt virt, HostPhys phys, u64 size, Rights rights, MemoryType type) {
    return table_.map({virt, phys, lib::align_up(size, lib::page_size), rights, type},
                      [this] { flush_users_of(root()); });
}

void PageTable::unmap_page(HostVirt virt) {
    // Tables stay, so that no other CPU has to be waited for.
    (void)table_.unmap({virt, lib::page_size, true}, [&] { lib::x86::invlpg(virt.value); });
}

lib::Result<HostPhys> PageTable::translate(HostVirt virt) const {
    // Backtraces ask about any garbage; an address that is not canonical is refused.
    return TRY(table_.translate(virt)).to;
}

PageTable& kernel_page_table() { return the_table; }
void set_kernel_page_table(PageTable&& table) { the_table = std::move(table); }

lib::Result<HostVirt> map_device(HostPhys base, u64 size, MemoryType type) {
    u64 const offset = base.value & (lib::page_size - 1);
    u64 const bytes = lib::align_up(offset + size, lib::page_size);
    return windows.with([&](Windows& w) -> lib::Result<HostVirt> {
        HostVirt const virt{w.next_device};
        TRY(the_table.map(virt, base - offset, bytes, Rights::ReadWrite, type));
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
