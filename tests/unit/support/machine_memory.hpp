// SPDX-License-Identifier: MIT
#pragma once
// Physical memory for hosted tests of what allocates frames: one zone for the whole test program, whose "physical"
// addresses are addresses of the process (kernel/direct_map.hpp).
#include <cstdlib>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <lib/x86/instructions.hpp>
#include <sys/mman.h>

namespace support {

using lib::u64;

inline constexpr u64 memory_size = 96 * lib::MiB;

// Needs a fakes::Cpu. Returns what is free now, so that a test can say that everything came back.
inline u64 give_memory() {
    static bool const done = [] {
        void* const memory = std::aligned_alloc(2 * lib::MiB, memory_size);
        kernel::with_frame_allocator(
            [](kernel::FrameAllocator& frames, void* base) {
                kernel::HostPhys const at{reinterpret_cast<u64>(base)};
                if (!frames.add_zone(at, memory_size, 0)) std::abort();
                frames.free_range(at, memory_size);
            },
            memory);
        return true;
    }();
    (void)done;
    return kernel::memory_use().free;
}

// The same for memory below 4 GiB.
inline void give_low_memory() {
    static bool const done = [] {
        void* const memory =
            mmap(nullptr, memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        kernel::with_frame_allocator(
            [](kernel::FrameAllocator& frames, void* base) {
                kernel::HostPhys const at{lib::align_up(reinterpret_cast<u64>(base), 2 * lib::MiB)};
                if (!frames.add_zone(at, memory_size / 2, 0)) std::abort();
                frames.free_range(at, memory_size / 2);
            },
            memory);
        return true;
    }();
    (void)done;
}

// Takes all free frames for as long as it lives, but for `left` of them.
class MemoryShortage {
public:
    explicit MemoryShortage(unsigned left) {
        while (auto const frame = kernel::allocate_frames(0)) {
            *kernel::phys_to_virt<u64>(*frame) = taken_;
            taken_ = frame->value;
        }
        for (unsigned i = 0; i < left; i++)
            give_one();
    }
    ~MemoryShortage() {
        while (taken_ != 0)
            give_one();
    }
    MemoryShortage(MemoryShortage const&) = delete;
    MemoryShortage& operator=(MemoryShortage const&) = delete;

private:
    void give_one() {
        u64 const frame = taken_;
        taken_ = *kernel::phys_to_virt<u64>(kernel::HostPhys{frame});
        kernel::free_frames(kernel::HostPhys{frame}, 0);
    }
    u64 taken_ = 0; // a list through the frames themselves
};

} // namespace support
