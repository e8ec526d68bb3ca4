// SPDX-License-Identifier: MIT
#pragma once
// The part of a machine's disk that is a guest's disk, what its controller wants of commands, and where the guest's
// memory is for it.
#include <block/controller.hpp>
#include <lib/service_board.hpp>
#include <lib/split_queue.hpp>

namespace storage {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// A place in a chain.
struct Cursor {
    u16 segment = 0;
    u32 offset = 0;

    void advance(lib::SplitQueue::Chain const& chain, u64 size);
};

struct DiskPart {
    // Pieces of one command; a driver may allow more.
    static constexpr u32 max_pieces = 64;
    // The first page of the bounce region is zero and stays so.
    static constexpr u32 zero_page_size = lib::page_size;

    u64 begin = 0;                // byte of the disk, a multiple of its sector size
    u32 controller = 0, unit = 0; // DiskFacts::id
    u32 index = 0;                // among the controller's disks
    u32 sector_size = 0;
    bool has_write_cache = false;
    block::Limits limits{};
    std::span<lib::service::RamPiece const> memory; // in order, without overlaps
    block::Function::Shared bounce{};               // after the zero page; empty: there is none
    u64 zero_page = 0;                              // its address

    // Returns true if commands for [begin, begin + size) of a disk of these facts can be made.
    bool is_usable(block::DiskFacts const& disk, u64 size) const;
    // Uses this memory for bounces, if the controller reaches it.
    void set_bounce(block::Function::Shared region);

    // Where [at, at + size) of the guest's memory begins for devices. Makes `size` less if only its first bytes are in
    // one piece; 0: not even the first one is.
    u64 address_of(u64 at, u64& size) const;
    // Whether devices reach these bytes of a chain.
    bool covers(lib::SplitQueue::Chain const& chain, Cursor from, u64 size) const;
};

// What one command can take of a chain.
struct Cut {
    u32 bytes = 0;             // whole sectors; 0: not even one
    u32 piece_count = 0;       //
    bool is_uncovered = false; // devices do not reach what comes next
};
// Cuts the longest command that obeys the limits from the next `most` bytes, which are whole sectors.
Cut cut_command(DiskPart const& disk, lib::SplitQueue::Chain const& chain, Cursor from, u64 most,
                std::span<block::Piece, DiskPart::max_pieces> pieces);

} // namespace storage
