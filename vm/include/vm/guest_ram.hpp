// SPDX-License-Identifier: MIT
#pragma once
// The RAM of one VM: blocks of host memory, owned, zeroed before use, and reached with bounds checks.
#include <array>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <lib/memory.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <span>

namespace vm {

using lib::GuestPhys;
using lib::HostPhys;
using lib::u32;
using lib::u64;
using lib::u8;

// Contiguous in guest-physical and in host-physical space.
struct RamBlock {
    GuestPhys base;
    u64 size;
    HostPhys host;
};

class GuestRam {
public:
    static constexpr u64 hole_begin = 0xc000'0000; // devices live from here to 4 GiB
    static constexpr u64 hole_end = 0x1'0000'0000;
    static constexpr u64 granule = 2 * lib::MiB;

    GuestRam() = default;
    ~GuestRam() { release(); }
    GuestRam(GuestRam const&) = delete;
    GuestRam& operator=(GuestRam const&) = delete;

    // `size` is a multiple of the granule. On failure nothing is kept. What others left in it is still there: no guest
    // may run before scrub() has said that all of it is zero.
    lib::Result<void> allocate(u64 size, u32 node);
    // Zeroes at most so much more; true when nothing is left to do.
    bool scrub(u64 bytes);
    // Instead of scrub(): at most so much more becomes a copy of `from`, which has the same size and does not change.
    bool copy(GuestRam const& from, u64 bytes);
    void release();

    u64 size() const { return size_; }
    u64 size_below_hole() const { return size_ < hole_begin ? size_ : hole_begin; }
    u64 size_above_hole() const { return size_ - size_below_hole(); }
    // Sorted by guest address; neighbours in both spaces are merged.
    std::span<RamBlock const> blocks() const { return {blocks_, block_count_}; }

    // A pointer to `size` bytes at `at` when they lie in one block, else nullptr.
    u8* pointer(GuestPhys at, u64 size) const {
        if (at.value < first_size_ && first_size_ - at.value >= size) [[likely]]
            return first_ + at.value;
        return search(at, size);
    }
    // A naturally aligned value, or 0 where there is no RAM. Blocks are of whole granules: none ends inside of it.
    template <typename T> T load_aligned(GuestPhys at) const {
        if (at.value < first_size_) [[likely]]
            return lib::load<T>(first_ + at.value);
        u8 const* const from = search(at, sizeof(T));
        return from != nullptr ? lib::load<T>(from) : T{0};
    }
    bool read(GuestPhys at, std::span<u8> out) const;

private:
    lib::Result<void> append(GuestPhys base, u64 size, u32 node);
    // Rare, so it shall not cost its callers registers.
    [[clang::preserve_most]] u8* search(GuestPhys at, u64 size) const;
    RamBlock* blocks_ = nullptr; // an array of capacity_
    u32 block_count_ = 0;
    u32 capacity_ = 0;
    u64 size_ = 0;
    u64 scrubbed_ = 0;
    // The first block again, at address 0 and all that the usual VM has.
    u8* first_ = nullptr;
    u64 first_size_ = 0;
};

} // namespace vm
