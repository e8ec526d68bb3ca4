// SPDX-License-Identifier: MIT
#pragma once
// Where in guest memory something can go, by the memory map that the guest will see.
#include <loader/e820.hpp>
#include <optional>
#include <span>

namespace loader {

using lib::u64;

struct MemoryRange {
    u64 begin = 0;
    u64 end = 0; // behind the last byte

    constexpr bool overlaps(MemoryRange other) const {
        return begin < end && other.begin < other.end && begin < other.end && other.begin < end;
    }
};

// True when [base, base + size) lies in one RAM entry. No overflow can make it true.
bool is_ram(std::span<E820Entry const> map, u64 base, u64 size);

// `within` limits the search; `avoid` stays free. Alignment is a power of two. Both answer with the first byte.
struct PlacementRequest {
    u64 size;
    u64 alignment;
    MemoryRange within;
    MemoryRange avoid;
};
std::optional<u64> place_low(std::span<E820Entry const> map, PlacementRequest const& request);
std::optional<u64> place_high(std::span<E820Entry const> map, PlacementRequest const& request);

// The largest piece of RAM within the request's limits: what the message of a failure names.
u64 largest_free(std::span<E820Entry const> map, PlacementRequest const& request);

} // namespace loader
