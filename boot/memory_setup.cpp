// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <boot/image.hpp>
#include <boot/memory_plan.hpp>
#include <boot/memory_setup.hpp>
#include <kernel/cpu.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>
#include <lib/x86/instructions.hpp>

namespace boot {
namespace {

constexpr u64 boot_mapped = 4 * lib::GiB; // boot/entry.S
constexpr u64 screen_begin = 0xa0000, screen_end = 0xc0000;
constexpr u64 smallest_zone = 64 * lib::KiB;

struct ZoneRequest {
    ReservedRanges const* reserved;
    Range range;
    u32 node;
};

// A zone per gap: its book-keeping takes the first pages of the gap itself.
void add_zones(kernel::FrameAllocator& frames, void* argument) {
    auto const& request = *static_cast<ZoneRequest const*>(argument);
    request.reserved->for_each_gap(request.range.begin, request.range.end, [&](u64 begin, u64 end) {
        if (end - begin < smallest_zone) return;
        if (!frames.add_zone(HostPhys{begin}, end - begin, request.node)) return;
        frames.free_range(HostPhys{begin}, end - begin);
    });
}

lib::Result<void> map_image(kernel::PageTable& table) {
    auto const map = [&](char const* begin, char const* end, kernel::Rights rights) {
        return table.map(lib::HostVirt{reinterpret_cast<u64>(begin)}, kernel::image_to_phys(begin),
                         static_cast<u64>(end - begin), rights);
    };
    TRY(map(text_start, text_end, kernel::Rights::ReadExecute));
    TRY(map(rodata_start, rodata_end, kernel::Rights::Read));
    TRY(map(data_start, data_end, kernel::Rights::ReadWrite));
    table.unmap_page(lib::HostVirt{reinterpret_cast<u64>(boot_stack_guard)});
    return {};
}

// Direct map of [begin, end), the image's constants and code read-only in it too.
lib::Result<void> map_direct(kernel::PageTable& table, u64 begin, u64 end) {
    auto const map = [&](u64 from, u64 to, kernel::Rights rights) -> lib::Result<void> {
        if (from >= to) return {};
        return table.map(lib::HostVirt{from + kernel::direct_map_base}, HostPhys{from}, to - from, rights);
    };
    u64 const locked_begin = std::clamp(kernel::image_to_phys(text_start).value, begin, end);
    u64 const locked_end = std::clamp(kernel::image_to_phys(rodata_end).value, begin, end);
    TRY(map(begin, locked_begin, kernel::Rights::ReadWrite));
    TRY(map(locked_begin, locked_end, kernel::Rights::Read));
    return map(locked_end, end, kernel::Rights::ReadWrite);
}

ReservedRanges reserved_ranges(Multiboot2 const& information, HostPhys information_at, u32 information_size) {
    ReservedRanges reserved;
    reserved.add(kernel::image_to_phys(image_start).value, kernel::image_to_phys(image_end).value);
    reserved.add(information_at.value, information_at.value + information_size);
    for (u32 i = 0; i < information.module_count(); i++)
        if (auto const module = information.module(i)) reserved.add(module->start.value, module->end.value);
    return reserved;
}

// The domain of the byte at `begin`; `end` is lowered to where another may begin.
u32 domain_at(drivers::AcpiInfo const& acpi, u64 begin, u64& end) {
    u32 domain = 0;
    for (auto const& memory : acpi.memory) {
        u64 const first = memory.base.value;
        if (first > begin) {
            end = std::min(end, first);
        } else if (begin - first < memory.size) {
            domain = memory.domain;
            end = std::min(end, first + std::min(memory.size, ~first));
        }
    }
    return domain;
}

} // namespace

lib::Result<MemorySummary> set_up_memory(Multiboot2 const& information, HostPhys information_at, u32 information_size) {
    MemorySummary summary;
    ReservedRanges reserved = reserved_ranges(information, information_at, information_size);
    for (u32 i = 0; i < information.module_count(); i++)
        if (auto const module = information.module(i)) summary.modules += lib::align_up(module->size(), lib::page_size);
    summary.startup_page = find_startup_page(information, reserved);
    if (summary.startup_page.value != 0)
        reserved.add(summary.startup_page.value, summary.startup_page.value + lib::page_size);
    if (reserved.is_full()) return lib::fail(lib::Errc::OutOfRange);
    summary.own_image = static_cast<u64>(image_end - image_start);

    for (u32 i = 0; i < information.memory_range_count(); i++) {
        auto const entry = information.memory_range(i);
        if (!entry || !entry->is_available()) continue;
        Range range = pages_of(*entry);
        if (range.begin >= range.end) continue;
        summary.ram += range.end - range.begin;
        summary.highest.value = std::max(summary.highest.value, range.end);
        range.end = std::min(range.end, boot_mapped);
        ZoneRequest request{&reserved, range, 0};
        if (range.begin < range.end) kernel::with_frame_allocator(add_zones, &request);
    }
    auto table = TRY(kernel::PageTable::create({kernel::cpu_features().no_execute, kernel::cpu_features().pages_1g}));
    TRY(map_image(table));
    // RAM below 4 GiB, and where ACPI tables are. What the firmware reserves may be a device's, for which caching and
    // speculative reads are wrong; a table there is mapped when somebody points at it.
    for (u32 i = 0; i < information.memory_range_count(); i++) {
        auto const entry = information.memory_range(i);
        if (!entry || !is_cacheable(entry->type) || entry->base.value >= boot_mapped) continue;
        u64 const end = std::min(lib::align_up(entry->base.value + entry->size, lib::page_size), boot_mapped);
        TRY(map_direct(table, lib::align_down(entry->base.value, lib::page_size), end));
    }
    // The BIOS area, and between its halves the text screen.
    TRY(map_direct(table, 0x9f000, screen_begin));
    TRY(table.map(lib::HostVirt{screen_begin + kernel::direct_map_base}, HostPhys{screen_begin},
                  screen_end - screen_begin, kernel::Rights::ReadWrite, kernel::MemoryType::Uncached));
    TRY(map_direct(table, screen_end, 0x100000));
    lib::x86::write_cr3(table.root().value);
    kernel::set_kernel_page_table(std::move(table));
    return summary;
}

lib::Result<void> add_high_memory(Multiboot2 const& information, HostPhys information_at, u32 information_size,
                                  drivers::AcpiInfo const& acpi) {
    ReservedRanges const reserved = reserved_ranges(information, information_at, information_size);
    for (auto const& memory : acpi.memory) {
        auto const set = [](kernel::FrameAllocator& frames, void* argument) {
            auto const& of = *static_cast<drivers::AcpiMemory const*>(argument);
            frames.set_node(of.base, of.size, of.domain);
        };
        drivers::AcpiMemory copy = memory;
        kernel::with_frame_allocator(set, &copy);
    }
    for (u32 i = 0; i < information.memory_range_count(); i++) {
        auto const entry = information.memory_range(i);
        if (!entry || !entry->is_available()) continue;
        Range rest = pages_of(*entry);
        rest.begin = std::max(rest.begin, boot_mapped);
        while (rest.begin < rest.end) {
            u64 end = rest.end;
            u32 const domain = domain_at(acpi, rest.begin, end);
            end = std::max(lib::align_down(end, lib::page_size), rest.begin + lib::page_size);
            TRY(kernel::kernel_page_table().map(lib::HostVirt{rest.begin + kernel::direct_map_base},
                                                HostPhys{rest.begin}, end - rest.begin, kernel::Rights::ReadWrite));
            ZoneRequest request{&reserved, {rest.begin, end}, domain};
            kernel::with_frame_allocator(add_zones, &request);
            rest.begin = end;
        }
    }
    return {};
}

} // namespace boot
