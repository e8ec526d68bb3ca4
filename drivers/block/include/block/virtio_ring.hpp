// SPDX-License-Identifier: MIT
#pragma once
// A split virtqueue as its driver sees it. [virtio/1.2] 2.7. The device may write anything into it at any time: each
// of its values is read once.
#include <block/function.hpp>

namespace block {

struct VirtioDescriptor {
    static constexpr u16 NEXT = 1, WRITE = 2, INDIRECT = 4;
    u64 address;
    u32 size;
    u16 flags, next;
};
static_assert(sizeof(VirtioDescriptor) == 16);

class VirtioRing {
public:
    static constexpr u16 most_descriptors = 128;
    static constexpr u32 descriptors_at = 0, available_at = 0x800, used_at = 0x1000, memory_size = 0x2000;

    enum class Look : u8 { Nothing, Used, Broken };

    // `memory` is page-aligned. `size` is a power of two, at most most_descriptors.
    void start(std::span<u8, memory_size> memory, u16 size);
    u16 size() const { return size_; }

    VirtioDescriptor& descriptor(u32 index) const {
        return reinterpret_cast<VirtioDescriptor*>(memory_ + descriptors_at)[index];
    }
    // Puts a chain into the available ring; the device sees it after publish().
    void add(u16 head);
    // Shows the device what was added. Returns whether it wants to be notified of it.
    bool publish();
    // Looks for a used chain. Its head is any number that the device wrote.
    Look next_used(u32& head);

private:
    u16& available(u32 index) const { return reinterpret_cast<u16*>(memory_ + available_at)[index]; }

    u8* memory_ = nullptr;
    u16 size_ = 0, added_ = 0, published_ = 0, seen_ = 0;
};

} // namespace block
