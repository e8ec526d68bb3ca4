// SPDX-License-Identifier: MIT
// The commands that a request for a part of a machine's disk consists of.
#include <algorithm>
#include <storage/block_request.hpp>

namespace storage {

BlockRequest::Next BlockRequest::next_slice(lib::GuestMemory const& memory, Medium const& medium, bool can_bounce,
                                            std::span<block::Piece, DiskPart::max_pieces> pieces, Slice& slice) {
    if (work_ != Work::None && medium.is_out_of_order) fail(Status::IoError);
    slice = {};
    switch (work_) {
    case Work::None: return Next::Nothing;
    case Work::Flush: return Next::Slice;
    case Work::Zero: return next_zeroes(memory, medium, pieces, slice);
    case Work::Read:
    case Work::Write: break;
    }
    return next_transfer(memory, medium, can_bounce, pieces, slice);
}

BlockRequest::Next BlockRequest::next_transfer(lib::GuestMemory const& memory, Medium const& medium, bool can_bounce,
                                               std::span<block::Piece, DiskPart::max_pieces> pieces, Slice& slice) {
    DiskPart const& disk = *medium.disk;
    slice.operation = work_ == Work::Read ? block::Operation::Read : block::Operation::Write;
    slice.at = at_;
    Cut const cut = cut_command(disk, chain_, cursor_, left_, pieces);
    if (cut.bytes != 0) {
        slice.bytes = cut.bytes;
        slice.piece_count = cut.piece_count;
        return Next::Slice;
    }
    // Both are whole sectors.
    u64 const count = std::min<u64>({left_, disk.bounce.bytes.size(), disk.limits.most_bytes});
    if (count == 0 || cut.is_uncovered || !disk.covers(chain_, cursor_, count)) {
        fail(Status::IoError);
        return Next::Nothing;
    }
    if (!can_bounce) return Next::NeedsBounce;
    if (work_ == Work::Write && !copy(memory, cursor_, disk.bounce.bytes.first(count), false)) {
        fail(Status::IoError);
        return Next::Nothing;
    }
    slice.bytes = static_cast<u32>(count);
    slice.is_bounced = true;
    slice.piece_count = 1;
    pieces[0] = {disk.bounce.address, slice.bytes};
    return Next::Slice;
}

// Every piece is the page of zeroes.
BlockRequest::Next BlockRequest::next_zeroes(lib::GuestMemory const& memory, Medium const& medium,
                                             std::span<block::Piece> pieces, Slice& slice) {
    while (left_ == 0) {
        if (ranges_left_ == 0) work_ = Work::None;
        if (work_ == Work::None || !next_range(memory, medium)) return Next::Nothing;
    }
    DiskPart const& disk = *medium.disk;
    if (disk.bounce.bytes.empty()) {
        fail(Status::IoError);
        return Next::Nothing;
    }
    u64 const most_pieces = disk.limits.granule > DiskPart::zero_page_size ? 1 : disk.limits.most_pieces;
    u64 const pages = std::min<u64>(pieces.size(), most_pieces);
    slice.operation = block::Operation::Write;
    slice.at = at_;
    slice.bytes = static_cast<u32>(std::min({left_, u64{disk.limits.most_bytes}, pages * DiskPart::zero_page_size}));
    for (u32 left = slice.bytes; left != 0;) {
        u32 const part = std::min(left, DiskPart::zero_page_size);
        pieces[slice.piece_count++] = {disk.zero_page, part};
        left -= part;
    }
    return Next::Slice;
}

void BlockRequest::begun(Slice const& slice) {
    under_way_++;
    bool const is_read = slice.operation == block::Operation::Read;
    if (slice.is_bounced) {
        bounced_to_ = cursor_;
        bounced_ = is_read ? slice.bytes : 0;
    }
    if (work_ == Work::Read || work_ == Work::Write) cursor_.advance(chain_, slice.bytes);
    if (is_read) written_ += slice.bytes;
    at_ += slice.bytes;
    left_ -= slice.bytes;
    if (left_ == 0 && (work_ != Work::Zero || ranges_left_ == 0)) work_ = Work::None;
}

void BlockRequest::ended(bool is_good, bool is_bounced, lib::GuestMemory const* memory, Medium const& medium) {
    under_way_--;
    if (!is_good) return fail(Status::IoError);
    if (!is_bounced || memory == nullptr || bounced_ == 0) return;
    if (!copy(*memory, bounced_to_, medium.disk->bounce.bytes.first(bounced_), true)) fail(Status::IoError);
}

} // namespace storage
