// SPDX-License-Identifier: MIT
#pragma once
// The address space of one service: its own lower half, and Mullion's upper half, which ring 3 cannot reach, or where
// the CPU is open to Meltdown no more of Mullion than the entry pages. It changes
// only while no CPU uses it, so that nothing is to be flushed: each use begins with a write to CR3.
#include <kernel/entry_pages.hpp>
#include <kernel/page_entry.hpp>
#include <kernel/translation_table.hpp>
#include <lib/fixed_vector.hpp>
#include <lib/result.hpp>
#include <span>

namespace kernel {

class UserSpace {
public:
    UserSpace() = default;
    // No CPU uses it any more.
    ~UserSpace();
    UserSpace(UserSpace const&) = delete;
    UserSpace& operator=(UserSpace const&) = delete;

    // `context`: where the registers of what runs in it are, if it has_service_page_tables().
    lib::Result<void> create(UserContext const& context);
    // Zeroed memory of `size` bytes, rounded up to pages, at the page-aligned `at`, which begins with `bytes`. At most
    // most_pieces times. NoMemory; OutOfRange: that is no place for it.
    lib::Result<void> add(u64 at, u64 size, Rights rights, std::span<u8 const> bytes = {});
    // Memory that belongs to others. Every end of the range is a multiple of the page size.
    lib::Result<void> map(Mapping<lib::HostVirt> const& mapping) {
        return table_.map(mapping, [] {});
    }
    lib::Result<void> unmap(u64 at, u64 size) {
        return table_.unmap(Unmapping<lib::HostVirt>{lib::HostVirt{at}, size}, [] {});
    }
    // Copies what the service has at `at`. False, and nothing is copied: it has no such memory.
    bool read(u64 at, std::span<u8> out) const;

    HostPhys root() const { return table_.root(); }
    u64 bytes() const { return bytes_; } // of memory, without its tables

    static constexpr lib::u32 most_pieces = 16;

private:
    struct Piece {
        HostPhys base;
        lib::u32 order;
    };
    TranslationTable<PageEntry> entry_pages_; // if it has_service_page_tables(): the upper half
    TranslationTable<UserEntry> table_;
    lib::FixedVector<Piece, most_pieces> pieces_;
    u64 bytes_ = 0;
};

} // namespace kernel
