// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <lib/assert.hpp>
#include <vm/guest_ram.hpp>

namespace vm {
namespace {
constexpr unsigned granule_order = kernel::FrameAllocator::order_2m;
constexpr unsigned order_1g = 18;

// Returns true if memory at these addresses begins where the block ends, in the guest and in the host.
bool continues(RamBlock const& block, GuestPhys base, HostPhys host) {
    return block.base + block.size == base && block.host + block.size == host;
}
} // namespace

lib::Result<void> GuestRam::append(GuestPhys base, u64 size, u32 node) {
    while (size > 0) {
        // 1 GiB at once where it fits, so that second-level tables can use 1 GiB pages.
        bool const try_1g = base.is_aligned(lib::GiB) && size >= lib::GiB;
        unsigned order = try_1g ? order_1g : granule_order;
        auto block = kernel::allocate_frames(order, node);
        if (!block && try_1g) {
            order = granule_order;
            block = kernel::allocate_frames(order, node);
        }
        if (!block) return lib::fail(block.error());
        u64 const bytes = lib::page_size << order;
        if (block_count_ > 0 && continues(blocks_[block_count_ - 1], base, *block)) {
            blocks_[block_count_ - 1].size += bytes;
        } else {
            blocks_[block_count_++] = {base, bytes, *block};
        }
        base += bytes;
        size -= bytes;
        size_ += bytes;
    }
    return {};
}

lib::Result<void> GuestRam::allocate(u64 size, u32 node) {
    if (size == 0 || size % granule != 0) return lib::fail(lib::Errc::OutOfRange);
    capacity_ = static_cast<u32>(size / granule);
    blocks_ = static_cast<RamBlock*>(::operator new(capacity_ * sizeof(RamBlock), std::nothrow));
    if (blocks_ == nullptr) return lib::fail(lib::Errc::NoMemory);
    u64 const below = std::min(size, hole_begin);
    auto done = append(GuestPhys{0}, below, node);
    if (done && size > below) done = append(GuestPhys{hole_end}, size - below, node);
    if (!done) {
        release();
        return done;
    }
    first_ = kernel::phys_to_virt<u8>(blocks_[0].host);
    first_size_ = blocks_[0].size;
    return done;
}

bool GuestRam::scrub(u64 bytes) {
    u64 before = 0; // of the blocks in front
    for (RamBlock const& block : blocks()) {
        if (bytes == 0) break;
        if (scrubbed_ - before < block.size) {
            u64 const offset = scrubbed_ - before;
            u64 const count = std::min(bytes, block.size - offset);
            std::memset(kernel::phys_to_virt<u8>(block.host + offset), 0, count);
            scrubbed_ += count;
            bytes -= count;
        }
        before += block.size;
    }
    return scrubbed_ == size_;
}

bool GuestRam::copy(GuestRam const& from, u64 bytes) {
    ASSERT(from.size_ == size_);
    while (scrubbed_ < size_ && bytes > 0) {
        // Blocks are of whole granules in both.
        GuestPhys const at{scrubbed_ < hole_begin ? scrubbed_ : scrubbed_ - hole_begin + hole_end};
        u64 const count = std::min(bytes, granule - scrubbed_ % granule);
        std::memcpy(pointer(at, count), from.pointer(at, count), count);
        scrubbed_ += count;
        bytes -= count;
    }
    return scrubbed_ == size_;
}

void GuestRam::release() {
    if (blocks_ == nullptr) return;
    for (u32 i = 0; i < block_count_; i++) {
        RamBlock const& block = blocks_[i];
        // Merged blocks go back in the smallest pieces they may have come in: the allocator merges again.
        for (u64 at = 0; at < block.size; at += granule)
            kernel::free_frames(block.host + at, granule_order);
    }
    ::operator delete(blocks_, capacity_ * sizeof(RamBlock));
    blocks_ = nullptr;
    block_count_ = capacity_ = 0;
    size_ = first_size_ = scrubbed_ = 0;
    first_ = nullptr;
}

[[clang::preserve_most]] u8* GuestRam::search(GuestPhys at, u64 size) const {
    // Blocks are few and sorted; the usual VM has one.
    for (u32 i = 0; i < block_count_; i++) {
        RamBlock const& block = blocks_[i];
        if (at < block.base || at - block.base >= block.size) continue;
        u64 const offset = at - block.base;
        return block.size - offset >= size ? kernel::phys_to_virt<u8>(block.host + offset) : nullptr;
    }
    return nullptr;
}

bool GuestRam::read(GuestPhys at, std::span<u8> out) const {
    u64 done = 0;
    while (done < out.size()) {
        u64 const in_page = lib::page_size - (at.value + done) % lib::page_size;
        u64 const count = std::min<u64>(out.size() - done, in_page);
        u8 const* const from = pointer(at + done, count);
        if (from == nullptr) return false;
        std::memcpy(out.data() + done, from, count);
        done += count;
    }
    return true;
}

} // namespace vm
