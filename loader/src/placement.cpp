// SPDX-License-Identifier: MIT
#include <algorithm>
#include <loader/placement.hpp>

namespace loader {
namespace {

// Calls `use` for each free piece: an entry cut to `within`, less `avoid`.
template <typename Use> void for_each_free(std::span<E820Entry const> map, PlacementRequest const& request, Use use) {
    for (E820Entry const& entry : map) {
        if (entry.type != e820_ram) continue;
        u64 const base = entry.base; // a copy: entries are packed, and std::max takes references
        u64 const end = entry.size > ~u64{0} - base ? ~u64{0} : base + entry.size;
        MemoryRange const piece{std::max(base, request.within.begin), std::min(end, request.within.end)};
        if (piece.begin >= piece.end) continue;
        if (!piece.overlaps(request.avoid)) {
            use(piece);
            continue;
        }
        if (piece.begin < request.avoid.begin) use(MemoryRange{piece.begin, request.avoid.begin});
        if (request.avoid.end < piece.end) use(MemoryRange{request.avoid.end, piece.end});
    }
}

} // namespace

bool is_ram(std::span<E820Entry const> map, u64 base, u64 size) {
    return std::ranges::any_of(map, [&](E820Entry const& entry) {
        return entry.type == e820_ram && base >= entry.base && base - entry.base <= entry.size &&
               size <= entry.size - (base - entry.base);
    });
}

std::optional<u64> place_low(std::span<E820Entry const> map, PlacementRequest const& request) {
    std::optional<u64> best;
    for_each_free(map, request, [&](MemoryRange piece) {
        if (piece.begin > ~u64{0} - request.alignment) return;
        u64 const begin = lib::align_up(piece.begin, request.alignment);
        if (begin > piece.end || piece.end - begin < request.size) return;
        if (!best || begin < *best) best = begin;
    });
    return best;
}

std::optional<u64> place_high(std::span<E820Entry const> map, PlacementRequest const& request) {
    std::optional<u64> best;
    for_each_free(map, request, [&](MemoryRange piece) {
        if (piece.end - piece.begin < request.size) return;
        u64 const begin = lib::align_down(piece.end - request.size, request.alignment);
        if (begin < piece.begin) return;
        if (!best || begin > *best) best = begin;
    });
    return best;
}

u64 largest_free(std::span<E820Entry const> map, PlacementRequest const& request) {
    u64 largest = 0;
    for_each_free(map, request, [&](MemoryRange piece) { largest = std::max(largest, piece.end - piece.begin); });
    return largest;
}

} // namespace loader
