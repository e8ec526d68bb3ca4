// SPDX-License-Identifier: MIT
#pragma once
// Small objects: size classes 32 … 2048 bytes cut from single frames; larger ones are whole blocks of frames. Sized
// deletion tells the class, so objects carry no header. operator new (nothrow only) and delete use the one heap.
#include <array>
#include <kernel/frame_allocator.hpp>
#include <new>

namespace kernel {

class Heap {
public:
    // nullptr when memory is short. Zeroed. Naturally aligned up to a page.
    void* allocate(FrameAllocator& frames, u64 size);
    void free(FrameAllocator& frames, void* pointer, u64 size);
    u64 frames_used() const { return frames_used_; }
    u64 bytes_used() const { return bytes_used_; } // of objects that live, as large as their class

private:
    static constexpr unsigned smallest_shift = 5;
    static constexpr unsigned classes = 7;
    struct FreeObject {
        FreeObject* next;
    };
    static unsigned class_of(u64 size);
    std::array<FreeObject*, classes> free_{};
    u64 frames_used_ = 0;
    u64 bytes_used_ = 0;
};

// 2^order frames of this machine's memory, and the heap on top. Safe on every CPU.
lib::Result<HostPhys> allocate_frames(unsigned order, u32 node = FrameAllocator::any_node);
lib::Result<HostPhys> allocate_low_frames(unsigned order); // below 4 GiB
void free_frames(HostPhys base, unsigned order);
lib::Result<HostPhys> allocate_zeroed_frame();
lib::Result<void> promise_frames(u64 frames); // FrameAllocator::promise() and its companions
void take_promise_back(u64 frames);
HostPhys allocate_promised_frame();
struct MemoryUse {
    u64 managed, free, metadata;
    u64 promised;     // of what is free: only their owners can have it
    u64 lost;         // RAM in more pieces than there can be zones
    u64 heap;         // its frames: those of small objects are never given back
    u64 heap_objects; // what lives in them
};
MemoryUse memory_use();
u32 memory_of_nodes(std::span<NodeMemory> out); // FrameAllocator::nodes()
// For boot: runs with the allocator locked.
void with_frame_allocator(void (*body)(FrameAllocator&, void*), void* argument);

// An object in pages of its own, or an error: what factories return.
template <typename T> class Own {
public:
    Own() = default;
    explicit Own(T* object) : object_(object) {}
    Own(Own&& other) noexcept : object_(other.release()) {}
    Own& operator=(Own&& other) noexcept {
        if (this != &other) {
            delete object_;
            object_ = other.release();
        }
        return *this;
    }
    ~Own() { delete object_; }
    T* get() const { return object_; }
    T* operator->() const { return object_; }
    T& operator*() const { return *object_; }
    explicit operator bool() const { return object_ != nullptr; }
    T* release() {
        T* const object = object_;
        object_ = nullptr;
        return object;
    }

private:
    T* object_ = nullptr;
};

} // namespace kernel
