// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <kernel/direct_map.hpp>
#include <kernel/frame_allocator.hpp>
#include <lib/assert.hpp>

namespace kernel {
namespace {

constexpr u64 frames_in(unsigned order) { return u64{1} << order; }

// Words of the bit set of one order for frames [first, end).
constexpr u64 words_for(u64 first, u64 end, unsigned order) {
    return ((((end - 1) >> order) - (first >> order) + 1) + 63) / 64;
}

} // namespace

lib::Result<void> FrameAllocator::add_zone(HostPhys base, u64 size, u32 node) {
    u64 const first = base.value / lib::page_size;
    u64 const end = first + size / lib::page_size;
    if (zone_count_ == max_zones) {
        lost_frames_ += end - first;
        return lib::fail(lib::Errc::NoMemory);
    }
    if (first == end) return lib::fail(lib::Errc::OutOfRange);
    u64 words = 0;
    for (unsigned order = 0; order <= max_order; order++)
        words += words_for(first, end, order);
    u64 const metadata_frames = (words * sizeof(u64) + lib::page_size - 1) / lib::page_size;
    if (end - first <= metadata_frames) return lib::fail(lib::Errc::OutOfRange);

    Zone& zone = zones_[zone_count_++];
    zone.base_frame = first;
    zone.first_frame = first + metadata_frames;
    zone.end_frame = end;
    zone.node = node;
    auto* next = phys_to_virt<u64>(base);
    std::memset(next, 0, metadata_frames * lib::page_size);
    for (unsigned order = 0; order <= max_order; order++) {
        zone.is_free[order] = next;
        next += words_for(first, end, order);
    }
    metadata_frames_ += metadata_frames;
    managed_frames_ += end - first;
    return {};
}

FrameAllocator::Zone* FrameAllocator::zone_of(u64 frame) {
    for (u32 i = 0; i < zone_count_; i++)
        if (frame >= zones_[i].base_frame && frame < zones_[i].end_frame) return &zones_[i];
    return nullptr;
}

bool FrameAllocator::is_free_block(Zone const& zone, unsigned order, u64 frame) {
    if (frame < zone.base_frame || frame + frames_in(order) > zone.end_frame) return false;
    u64 const index = (frame >> order) - (zone.base_frame >> order);
    return (zone.is_free[order][index / 64] >> (index % 64) & 1) != 0;
}

void FrameAllocator::link(Zone& zone, unsigned order, u64 frame) {
    u64 const index = (frame >> order) - (zone.base_frame >> order);
    zone.is_free[order][index / 64] |= u64{1} << (index % 64);
    auto* const block = phys_to_virt<FreeBlock>(HostPhys{frame * lib::page_size});
    block->previous = nullptr;
    block->next = zone.lists[order];
    if (block->next != nullptr) block->next->previous = block;
    zone.lists[order] = block;
}

void FrameAllocator::unlink(Zone& zone, unsigned order, u64 frame) {
    u64 const index = (frame >> order) - (zone.base_frame >> order);
    zone.is_free[order][index / 64] &= ~(u64{1} << (index % 64));
    auto* const block = phys_to_virt<FreeBlock>(HostPhys{frame * lib::page_size});
    if (block->next != nullptr) block->next->previous = block->previous;
    if (block->previous != nullptr)
        block->previous->next = block->next;
    else
        zone.lists[order] = block->next;
}

void FrameAllocator::free_block(Zone& zone, u64 frame, unsigned order) {
    ASSERT(!is_free_block(zone, order, frame));
    while (order < max_order) {
        u64 const buddy = frame ^ frames_in(order);
        if (buddy < zone.first_frame || !is_free_block(zone, order, buddy)) break;
        unlink(zone, order, buddy);
        frame = std::min(frame, buddy);
        order++;
    }
    link(zone, order, frame);
}

void FrameAllocator::set_node(HostPhys base, u64 size, u32 node) {
    for (u32 i = 0; i < zone_count_; i++) {
        u64 const begin = zones_[i].base_frame * lib::page_size;
        if (begin >= base.value && begin - base.value < size) zones_[i].node = node;
    }
}

u32 FrameAllocator::nodes(std::span<NodeMemory> out) const {
    u32 count = 0;
    for (u32 i = 0; i < zone_count_; i++) {
        Zone const& zone = zones_[i];
        auto const known = out.first(count);
        auto found = std::ranges::find(known, zone.node, &NodeMemory::node);
        if (found == known.end()) {
            if (count == out.size()) continue;
            out[count] = {zone.node, 0, 0};
            found = out.begin() + count++;
        }
        found->managed += (zone.end_frame - zone.base_frame) * lib::page_size;
        found->free += zone.free_frames * lib::page_size;
    }
    return count;
}

void FrameAllocator::free_range(HostPhys base, u64 size) {
    u64 frame = lib::align_up(base.value, lib::page_size) / lib::page_size;
    u64 const end = (base.value + size) / lib::page_size;
    while (frame < end) {
        Zone* const zone = zone_of(frame);
        if (zone == nullptr || frame < zone->first_frame) {
            frame = zone == nullptr ? frame + 1 : zone->first_frame;
            continue;
        }
        u64 const limit = std::min(end, zone->end_frame);
        unsigned order = 0;
        while (order < max_order && (frame & (frames_in(order + 1) - 1)) == 0 && frame + frames_in(order + 1) <= limit)
            order++;
        free_block(*zone, frame, order);
        zone->free_frames += frames_in(order);
        free_frames_ += frames_in(order);
        frame += frames_in(order);
    }
}

lib::Result<u64> FrameAllocator::take_block(Zone& zone, unsigned order) {
    unsigned found = order;
    while (found <= max_order && zone.lists[found] == nullptr)
        found++;
    if (found > max_order) return lib::fail(lib::Errc::NoMemory);
    u64 const frame = virt_to_phys(zone.lists[found]).value / lib::page_size;
    unlink(zone, found, frame);
    while (found > order) {
        found--;
        link(zone, found, frame + frames_in(found));
    }
    return frame;
}

lib::Result<HostPhys> FrameAllocator::allocate(unsigned order, u32 node) {
    if (order > max_order) return lib::fail(lib::Errc::OutOfRange);
    if (frames_in(order) > free_frames_ - promised_frames_) return lib::fail(lib::Errc::NoMemory);
    return take(order, node);
}

lib::Result<void> FrameAllocator::promise(u64 frames) {
    if (frames > free_frames_ - promised_frames_) return lib::fail(lib::Errc::NoMemory);
    promised_frames_ += frames;
    return {};
}

void FrameAllocator::take_promise_back(u64 frames) {
    ASSERT(frames <= promised_frames_);
    promised_frames_ -= frames;
}

HostPhys FrameAllocator::allocate_promised() {
    take_promise_back(1);
    auto const frame = take(0, any_node);
    ASSERT(frame);
    return *frame;
}

lib::Result<HostPhys> FrameAllocator::take(unsigned order, u32 node) {
    // High zones first: memory below 4 GiB and below 1 MiB is what DMA and AP start-up cannot do without.
    for (bool const preferred_only : {true, false})
        for (u32 i = zone_count_; i-- > 0;) {
            if (preferred_only != (node == any_node || zones_[i].node == node)) continue;
            if (auto const frame = take_from(zones_[i], order)) return *frame;
        }
    return lib::fail(lib::Errc::NoMemory);
}

lib::Result<HostPhys> FrameAllocator::take_from(Zone& zone, unsigned order) {
    u64 const frame = TRY(take_block(zone, order));
    zone.free_frames -= frames_in(order);
    free_frames_ -= frames_in(order);
    return HostPhys{frame * lib::page_size};
}

// No zone lies on both sides of 4 GiB: the addresses below belong to devices.
lib::Result<HostPhys> FrameAllocator::allocate_low(unsigned order) {
    constexpr u64 end = (u64{1} << 32) / lib::page_size;
    if (order > max_order) return lib::fail(lib::Errc::OutOfRange);
    if (frames_in(order) > free_frames_ - promised_frames_) return lib::fail(lib::Errc::NoMemory);
    for (u32 i = zone_count_; i-- > 0;) {
        if (zones_[i].end_frame > end) continue;
        if (auto const frame = take_from(zones_[i], order)) return *frame;
    }
    return lib::fail(lib::Errc::NoMemory);
}

void FrameAllocator::free(HostPhys base, unsigned order) {
    u64 const frame = base.value / lib::page_size;
    Zone* const zone = zone_of(frame);
    ASSERT(zone != nullptr && order <= max_order && (frame & (frames_in(order) - 1)) == 0);
    ASSERT(frame >= zone->first_frame && frame + frames_in(order) <= zone->end_frame);
    free_block(*zone, frame, order);
    zone->free_frames += frames_in(order);
    free_frames_ += frames_in(order);
}

int FrameAllocator::largest_free_order() const {
    for (int order = static_cast<int>(max_order); order >= 0; order--)
        for (u32 i = 0; i < zone_count_; i++)
            if (zones_[i].lists[static_cast<unsigned>(order)] != nullptr) return order;
    return -1;
}

} // namespace kernel
