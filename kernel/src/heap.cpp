// SPDX-License-Identifier: MIT
#include <bit>
#include <cstring>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <kernel/spinlock.hpp>
#include <lib/assert.hpp>

namespace kernel {
namespace {

struct Memory {
    FrameAllocator frames;
    Heap heap;
};
constinit Guarded<Memory, LockRank::Memory> memory;

constexpr unsigned order_for(u64 size) {
    u64 const pages = (size + lib::page_size - 1) / lib::page_size;
    return static_cast<unsigned>(std::bit_width(pages - 1));
}

} // namespace

unsigned Heap::class_of(u64 size) {
    auto const shift = static_cast<unsigned>(std::bit_width(size - 1));
    return shift <= smallest_shift ? 0 : shift - smallest_shift;
}

void* Heap::allocate(FrameAllocator& frames, u64 size) {
    if (size == 0) size = 1;
    unsigned const index = class_of(size);
    if (index >= classes) {
        auto const block = frames.allocate(order_for(size));
        if (!block) return nullptr;
        frames_used_ += u64{1} << order_for(size);
        bytes_used_ += lib::page_size << order_for(size);
        return std::memset(phys_to_virt(*block), 0, lib::page_size << order_for(size));
    }
    u64 const object_size = u64{1} << (index + smallest_shift);
    if (free_[index] == nullptr) {
        auto const frame = frames.allocate(0);
        if (!frame) return nullptr;
        frames_used_++;
        auto* const page = phys_to_virt<u8>(*frame);
        for (u64 at = 0; at < lib::page_size; at += object_size) {
            auto* const object = reinterpret_cast<FreeObject*>(page + at);
            object->next = free_[index];
            free_[index] = object;
        }
    }
    FreeObject* const object = free_[index];
    free_[index] = object->next;
    bytes_used_ += object_size;
    return std::memset(static_cast<void*>(object), 0, object_size);
}

void Heap::free(FrameAllocator& frames, void* pointer, u64 size) {
    if (pointer == nullptr) return;
    if (size == 0) size = 1;
    unsigned const index = class_of(size);
    if (index >= classes) {
        frames.free(virt_to_phys(pointer), order_for(size));
        frames_used_ -= u64{1} << order_for(size);
        bytes_used_ -= lib::page_size << order_for(size);
        return;
    }
    // Frames of small objects stay with their class: they are reused, not returned.
    auto* const object = static_cast<FreeObject*>(pointer);
    object->next = free_[index];
    free_[index] = object;
    bytes_used_ -= u64{1} << (index + smallest_shift);
}

lib::Result<HostPhys> allocate_frames(unsigned order, u32 node) {
    return memory.with([&](Memory& m) { return m.frames.allocate(order, node); });
}

lib::Result<HostPhys> allocate_low_frames(unsigned order) {
    return memory.with([&](Memory& m) { return m.frames.allocate_low(order); });
}

void free_frames(HostPhys base, unsigned order) {
    memory.with([&](Memory& m) { m.frames.free(base, order); });
}

lib::Result<HostPhys> allocate_zeroed_frame() {
    auto const frame = TRY(allocate_frames(0));
    std::memset(phys_to_virt(frame), 0, lib::page_size);
    return frame;
}

lib::Result<void> promise_frames(u64 frames) {
    return memory.with([&](Memory& m) { return m.frames.promise(frames); });
}

void take_promise_back(u64 frames) {
    memory.with([&](Memory& m) { m.frames.take_promise_back(frames); });
}

HostPhys allocate_promised_frame() {
    return memory.with([](Memory& m) { return m.frames.allocate_promised(); });
}

u32 memory_of_nodes(std::span<NodeMemory> out) {
    return memory.with([&](Memory& m) { return m.frames.nodes(out); });
}

MemoryUse memory_use() {
    return memory.with([](Memory& m) {
        return MemoryUse{m.frames.managed_bytes(),  m.frames.free_bytes(), m.frames.metadata_bytes(),
                         m.frames.promised_bytes(), m.frames.lost_bytes(), m.heap.frames_used() * lib::page_size,
                         m.heap.bytes_used()};
    });
}

void with_frame_allocator(void (*body)(FrameAllocator&, void*), void* argument) {
    memory.with([&](Memory& m) { body(m.frames, argument); });
}

#if !__STDC_HOSTED__
namespace {
void* heap_allocate(u64 size) {
    return memory.with([&](Memory& m) { return m.heap.allocate(m.frames, size); });
}
void heap_free(void* pointer, u64 size) {
    memory.with([&](Memory& m) { m.heap.free(m.frames, pointer, size); });
}
} // namespace
#endif

} // namespace kernel

#if !__STDC_HOSTED__
namespace std {
constinit nothrow_t const nothrow{};
} // namespace std

// Only the nothrow forms exist: a plain new, which cannot fail, does not link.
void* operator new(std::size_t size, std::nothrow_t const&) noexcept { return kernel::heap_allocate(size); }
void* operator new(std::size_t size, std::align_val_t, std::nothrow_t const&) noexcept {
    return kernel::heap_allocate(size); // objects are aligned to their size, up to a page
}
void operator delete(void* pointer, std::size_t size) noexcept { kernel::heap_free(pointer, size); }
void operator delete(void* pointer, std::size_t size, std::align_val_t) noexcept { kernel::heap_free(pointer, size); }
// Named by the compiler for virtual destructors; never called, since every type here is complete where it is deleted.
void operator delete(void*) noexcept { lib::assertion_failed("unsized delete", __FILE__, __LINE__); }
void operator delete(void*, std::align_val_t) noexcept { lib::assertion_failed("unsized delete", __FILE__, __LINE__); }
#endif
