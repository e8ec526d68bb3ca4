// SPDX-License-Identifier: MIT
#include <boot/memory_plan.hpp>

namespace boot {

HostPhys find_startup_page(Multiboot2 const& information, ReservedRanges const& reserved) {
    HostPhys found{};
    for (u32 i = 0; i < information.memory_range_count(); i++) {
        auto const entry = information.memory_range(i);
        if (!entry || !entry->is_available()) continue;
        Range const range = pages_of(*entry);
        reserved.for_each_gap(range.begin, std::min(range.end, startup_end), [&](u64 begin, u64 end) {
            if (found.value == 0 && end - begin >= lib::page_size) found = HostPhys{begin};
        });
    }
    return found;
}

} // namespace boot
