// SPDX-License-Identifier: MIT
#pragma once
// Physical memory: a buddy allocator over zones, each one range of RAM of one NUMA node. A zone's book-keeping (two
// bits per frame) lies in the zone itself; the list links of free blocks lie in the free frames.
#include <array>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <span>

namespace kernel {

using lib::HostPhys;
using lib::u32;
using lib::u64;
using lib::u8;

struct NodeMemory {
    u32 node;
    u64 managed, free; // bytes
};

class FrameAllocator {
public:
    static constexpr unsigned max_order = 18; // 1 GiB
    static constexpr unsigned order_2m = 9;
    static constexpr u32 max_zones = 64;
    static constexpr u32 any_node = ~0U;

    // Adopts [base, base + size) of RAM, page-aligned, all of it in use until free_range() says otherwise. Takes the
    // book-keeping from the zone's own start. Fails when the zone is too small to be worth it or there are too many.
    lib::Result<void> add_zone(HostPhys base, u64 size, u32 node);
    // What was added before the nodes were known: zones that begin in this range are of `node`.
    void set_node(HostPhys base, u64 size, u32 node);
    // Gives a part of a zone to the allocator. Pages of the book-keeping and outside of all zones are skipped.
    void free_range(HostPhys base, u64 size);

    // 2^order frames, naturally aligned; contents undefined. Memory of `node` first, then any. Nodes are whatever
    // numbers the caller gave: the firmware's proximity domains.
    lib::Result<HostPhys> allocate(unsigned order, u32 node = any_node);
    // The same, below 4 GiB: for devices whose addresses have 32 bits.
    lib::Result<HostPhys> allocate_low(unsigned order);
    void free(HostPhys base, unsigned order);

    // Frames for what must not fail later. They count as free, but only allocate_promised() takes them.
    lib::Result<void> promise(u64 frames);
    void take_promise_back(u64 frames);
    HostPhys allocate_promised();

    // What the nodes with memory have; as many as there is room for, returns how many.
    u32 nodes(std::span<NodeMemory> out) const;
    u64 free_bytes() const { return free_frames_ * lib::page_size; } // the promised ones among them
    u64 promised_bytes() const { return promised_frames_ * lib::page_size; }
    u64 managed_bytes() const { return managed_frames_ * lib::page_size; }
    // Of zones that came when there were max_zones already.
    u64 lost_bytes() const { return lost_frames_ * lib::page_size; }
    u64 metadata_bytes() const { return metadata_frames_ * lib::page_size; }
    // The largest order that could be had now, or -1.
    int largest_free_order() const;

private:
    struct FreeBlock {
        FreeBlock* next;
        FreeBlock* previous;
    };
    struct Zone {
        u64 base_frame = 0;  // the book-keeping lies here
        u64 first_frame = 0; // the first frame that can be free
        u64 end_frame = 0;
        u32 node = 0;
        u64 free_frames = 0;
        std::array<u64*, max_order + 1> is_free{}; // per order: bit set for each free block
        std::array<FreeBlock*, max_order + 1> lists{};
    };
    Zone* zone_of(u64 frame);
    static bool is_free_block(Zone const& zone, unsigned order, u64 frame);
    static void link(Zone& zone, unsigned order, u64 frame);
    static void unlink(Zone& zone, unsigned order, u64 frame);
    static void free_block(Zone& zone, u64 frame, unsigned order);
    static lib::Result<u64> take_block(Zone& zone, unsigned order);
    lib::Result<HostPhys> take(unsigned order, u32 node);
    lib::Result<HostPhys> take_from(Zone& zone, unsigned order);

    std::array<Zone, max_zones> zones_{};
    u32 zone_count_ = 0;
    u64 free_frames_ = 0;
    u64 promised_frames_ = 0;
    u64 managed_frames_ = 0;
    u64 metadata_frames_ = 0;
    u64 lost_frames_ = 0;
};

} // namespace kernel
