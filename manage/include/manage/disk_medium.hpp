// SPDX-License-Identifier: MIT
#pragma once
// What a disk in memory consists of: memory of the machine that begins with the bytes of a boot module, or is zero.
#include <vm/guest_ram.hpp>

namespace manage {

using lib::u32;
using lib::u64;
using lib::u8;

class DiskMedium {
public:
    // More would need another way to say where its pieces are.
    static constexpr u64 largest = vm::GuestRam::hole_begin;

    // `contents` must live until go_on() has said that nothing is left. NoMemory, and nothing is kept.
    lib::Result<void> create(u64 size, std::span<u8 const> contents, u32 node);
    // Zeroes and copies at most so many bytes more; true when nothing is left to do. Until then it holds what others
    // left there.
    bool go_on(u64 bytes);
    void release();

    u64 size() const { return size_; }
    u64 memory() const { return memory_.size(); } // that it takes
    // The addresses are offsets in the disk.
    std::span<vm::RamBlock const> blocks() const { return memory_.blocks(); }

private:
    vm::GuestRam memory_;
    u64 size_ = 0;
    std::span<u8 const> contents_;
    u64 copied_ = 0;
};

} // namespace manage
