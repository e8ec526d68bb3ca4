// SPDX-License-Identifier: MIT
#pragma once
// What of the firmware's memory map is used, and for what.
#include <algorithm>
#include <array>
#include <boot/multiboot2.hpp>

namespace boot {

// Physical addresses.
struct Range {
    u64 begin;
    u64 end;
};

// What must not be given to the allocator, sorted.
class ReservedRanges {
public:
    void add(u64 begin, u64 end) {
        begin = lib::align_down(begin, lib::page_size);
        end = lib::align_up(end, lib::page_size);
        if (count_ == ranges_.size() || begin >= end) return;
        std::size_t at = count_++;
        while (at > 0 && ranges_[at - 1].begin > begin) {
            ranges_[at] = ranges_[at - 1];
            at--;
        }
        ranges_[at] = {begin, end};
    }
    bool is_full() const { return count_ == ranges_.size(); }
    // Calls body(begin, end) for each part of [begin, end) that is not reserved.
    template <typename Body> void for_each_gap(u64 begin, u64 end, Body body) const {
        for (std::size_t i = 0; i < count_ && begin < end; i++) {
            Range const& taken = ranges_[i];
            if (taken.end <= begin) continue;
            if (taken.begin >= end) break;
            if (taken.begin > begin) body(begin, taken.begin);
            begin = taken.end;
        }
        if (begin < end) body(begin, end);
    }

private:
    std::array<Range, 64> ranges_{};
    std::size_t count_ = 0;
};

// Firmware of some machines writes to the first 64 KiB after it has handed over, whatever its map says.
inline constexpr u64 low_reserved = 64 * lib::KiB;
inline constexpr u64 startup_end = 0xa0000; // a SIPI vector reaches 1 MiB, but from here on there is no RAM

// The whole pages of a piece of RAM; empty if begin >= end.
inline Range pages_of(MemoryRange const& range) {
    return {std::max(lib::align_up(range.base.value, lib::page_size), low_reserved),
            lib::align_down(range.base.value + range.size, lib::page_size)};
}

// Whether there is memory at all: anything else may be a device.
constexpr bool is_cacheable(MemoryType type) {
    return type == MemoryType::Available || type == MemoryType::AcpiReclaimable || type == MemoryType::AcpiNvs;
}

// A page of RAM that a SIPI can start in, not of use to anybody else; 0: there is none.
HostPhys find_startup_page(Multiboot2 const& information, ReservedRanges const& reserved);

} // namespace boot
