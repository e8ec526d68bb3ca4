// SPDX-License-Identifier: MIT
#include <algorithm>
#include <block/virtio_ring.hpp>

namespace block {
namespace {

constexpr u32 first_entry = 4;           // after flags and index, in both rings
constexpr u16 NO_NOTIFY = 1;             // in the flags of the used ring
constexpr u32 available_index = 2 / 2;   // as 16-bit words
constexpr u32 available_entries = 4 / 2; // as 16-bit words

} // namespace

void VirtioRing::start(std::span<u8, memory_size> memory, u16 size) {
    std::ranges::fill(memory, u8{0});
    memory_ = memory.data();
    size_ = size;
    added_ = published_ = seen_ = 0;
}

void VirtioRing::add(u16 head) { available(available_entries + added_++ % size_) = head; }

bool VirtioRing::publish() {
    if (added_ == published_) return false;
    published_ = added_;
    __atomic_store_n(&available(available_index), added_, __ATOMIC_RELEASE);
    // [virtio/1.2] 2.7.13.3: the flags must not be read before the device can see the index.
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return (__atomic_load_n(reinterpret_cast<u16*>(memory_ + used_at), __ATOMIC_RELAXED) & NO_NOTIFY) == 0;
}

VirtioRing::Look VirtioRing::next_used(u32& head) {
    u16 const index = __atomic_load_n(reinterpret_cast<u16*>(memory_ + used_at + 2), __ATOMIC_ACQUIRE);
    u16 const count = static_cast<u16>(index - seen_);
    if (count == 0) return Look::Nothing;
    if (count > static_cast<u16>(published_ - seen_)) return Look::Broken;
    u8* const entry = memory_ + used_at + first_entry + u64{seen_ % u32{size_}} * 8;
    head = __atomic_load_n(reinterpret_cast<u32*>(entry), __ATOMIC_RELAXED);
    seen_++;
    return Look::Used;
}

} // namespace block
