// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <storage/disk_part.hpp>

namespace storage {
namespace {

using lib::SplitQueue;

// Pieces of one command while it grows.
class Builder {
public:
    Builder(block::Limits const& limits, std::span<block::Piece> pieces)
        : limits_(limits), pieces_(pieces.first(std::min<u64>(pieces.size(), limits.most_pieces))) {}

    // Adds bytes of memory. Returns false if the limits forbid some of them; the command ends before those.
    bool add(u64 address, u64 size) {
        if (address > limits_.highest_address) return false;
        u64 const reachable = std::min(size, limits_.highest_address - address + 1);
        if (count_ != 0 && end() == address)
            pieces_[count_ - 1].size += static_cast<u32>(reachable);
        else if (may_begin(address))
            pieces_[count_++] = {address, static_cast<u32>(reachable)};
        else
            return false;
        bytes_ += static_cast<u32>(reachable);
        return reachable == size;
    }
    // Drops the end, so that whole sectors remain. All pieces except the last one are aligned, so the last one is too.
    void trim(u32 sector_size) {
        for (u32 excess = bytes_ % sector_size; excess != 0;) {
            block::Piece& last = pieces_[count_ - 1];
            u32 const dropped = std::min(excess, last.size);
            last.size -= dropped;
            bytes_ -= dropped;
            excess -= dropped;
            if (last.size == 0) count_--;
        }
    }
    u32 bytes() const { return bytes_; }
    u32 count() const { return count_; }

private:
    u64 end() const { return pieces_[count_ - 1].address + pieces_[count_ - 1].size; }
    bool may_begin(u64 address) const {
        if (count_ == pieces_.size() || address % limits_.alignment != 0) return false;
        return count_ == 0 || ((end() | address) % limits_.granule == 0 && end() % limits_.alignment == 0);
    }

    block::Limits const& limits_;
    std::span<block::Piece> pieces_;
    u32 count_ = 0, bytes_ = 0;
};

} // namespace

void Cursor::advance(SplitQueue::Chain const& chain, u64 size) {
    while (size != 0) {
        u64 const count = std::min<u64>(chain.segments[segment].size - offset, size);
        size -= count;
        offset += static_cast<u32>(count);
        if (offset != chain.segments[segment].size) return;
        segment++;
        offset = 0;
    }
}

bool DiskPart::is_usable(block::DiskFacts const& disk, u64 size) const {
    u64 const sector = disk.sector_size;
    if (!std::has_single_bit(sector) || sector < 512 || sector > lib::page_size || begin % sector != 0) return false;
    if (begin / sector > disk.sectors || (size + sector - 1) / sector > disk.sectors - begin / sector) return false;
    return limits.most_bytes >= lib::page_size && limits.most_bytes % lib::page_size == 0 && limits.most_pieces != 0 &&
           std::has_single_bit(limits.alignment) && limits.alignment <= 512 && std::has_single_bit(limits.granule);
}

void DiskPart::set_bounce(block::Function::Shared region) {
    u64 const size = region.bytes.size() & ~(lib::page_size - 1);
    bool const is_reached = size <= limits.highest_address && region.address <= limits.highest_address - size;
    if (size < 2 * lib::page_size || region.address % lib::page_size != 0 || !is_reached) return;
    zero_page = region.address;
    bounce = {region.bytes.subspan(zero_page_size, size - zero_page_size), region.address + zero_page_size};
}

u64 DiskPart::address_of(u64 at, u64& size) const {
    auto const after = std::ranges::upper_bound(memory, at, {}, &lib::service::RamPiece::base);
    if (after != memory.begin()) {
        lib::service::RamPiece const& piece = after[-1];
        if (at - piece.base < piece.size) {
            size = std::min(size, piece.size - (at - piece.base));
            return piece.address + (at - piece.base);
        }
    }
    size = 0;
    return 0;
}

bool DiskPart::covers(SplitQueue::Chain const& chain, Cursor from, u64 size) const {
    while (size != 0) {
        SplitQueue::Segment const& segment = chain.segments[from.segment];
        u64 run = std::min<u64>(segment.size - from.offset, size);
        if (run != 0) {
            (void)address_of(segment.at.value + from.offset, run);
            if (run == 0) return false;
        }
        size -= run;
        from.offset += static_cast<u32>(run);
        if (from.offset != segment.size) continue;
        from.segment++;
        from.offset = 0;
    }
    return true;
}

Cut cut_command(DiskPart const& disk, SplitQueue::Chain const& chain, Cursor from, u64 most,
                std::span<block::Piece, DiskPart::max_pieces> pieces) {
    Builder builder(disk.limits, pieces);
    Cut cut;
    most = std::min<u64>(most, disk.limits.most_bytes);
    for (bool is_open = true; is_open && builder.bytes() < most;) {
        SplitQueue::Segment const& segment = chain.segments[from.segment];
        u64 run = std::min(u64{segment.size} - from.offset, most - builder.bytes());
        if (run != 0) {
            u64 const address = disk.address_of(segment.at.value + from.offset, run);
            cut.is_uncovered = run == 0;
            is_open = run != 0 && builder.add(address, run);
        }
        from.offset += static_cast<u32>(run);
        if (from.offset != segment.size) continue;
        from.segment++;
        from.offset = 0;
    }
    builder.trim(disk.sector_size);
    cut.bytes = builder.bytes();
    cut.piece_count = builder.count();
    return cut;
}

} // namespace storage
