// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <network/reception.hpp>

namespace network {

using lib::SplitQueue;

Reception::Outcome Reception::put(Frame& frame, bool takes_partial_checksum) {
    return finish(put_parts(frame, takes_partial_checksum));
}

Reception::Outcome Reception::put(Frame const& frame, Segmenter const& segment) {
    return finish(put_parts(frame, segment));
}

Reception::Outcome Reception::finish(Outcome outcome) {
    if (outcome == Outcome::Done)
        end();
    else
        ring_.put_back(taken_, added_);
    return outcome;
}

Reception::Outcome Reception::put_parts(Frame& frame, bool takes_partial_checksum) {
    Outcome outcome = begin(sizeof(VirtioHeader) + frame.size());
    if (outcome != Outcome::Done) return outcome;
    bool const must_sum = frame.needs_checksum() && !takes_partial_checksum;
    std::array<u8, Frame::prologue_size> prologue; // all of it is written here
    VirtioHeader header = frame.header();
    if (must_sum) header = {0, VirtioHeader::GSO_NONE, 0, 0, 0, 0, header.buffer_count};
    __builtin_memcpy(prologue.data(), &header, sizeof(header));
    __builtin_memcpy(prologue.data() + sizeof(header), frame.ethernet().data(), Frame::ethernet_size);
    outcome = write(prologue);
    Frame::Cursor cursor = frame.body();
    if (!must_sum) return outcome == Outcome::Done ? copy(frame, cursor, frame.body_size()) : outcome;
    u16 const checksum = frame.checksum();
    u32 const at = frame.checksum_at();
    if (outcome == Outcome::Done) outcome = copy(frame, cursor, at);
    if (outcome == Outcome::Done) outcome = write({reinterpret_cast<u8 const*>(&checksum), sizeof(checksum)});
    if (outcome != Outcome::Done) return outcome;
    for (u32 left = sizeof(checksum); left != 0;) // what is there instead
        left -= static_cast<u32>(frame.next(cursor, left).size());
    return copy(frame, cursor, frame.body_size() - at - static_cast<u32>(sizeof(checksum)));
}

Reception::Outcome Reception::put_parts(Frame const& frame, Segmenter const& segment) {
    VirtioHeader const header{0, VirtioHeader::GSO_NONE, 0, 0, 0, 0, 1};
    std::span<u8 const> const headers = segment.headers();
    Outcome outcome = begin(static_cast<u32>(sizeof(header) + headers.size()) + segment.payload_size());
    if (outcome == Outcome::Done) outcome = write({reinterpret_cast<u8 const*>(&header), sizeof(header)});
    if (outcome == Outcome::Done) outcome = write(headers);
    Frame::Cursor cursor = segment.payload();
    return outcome == Outcome::Done ? copy(frame, cursor, segment.payload_size()) : outcome;
}

Reception::Outcome Reception::begin(u32 size) {
    Outcome const outcome = take_chain();
    if (outcome != Outcome::Done) return outcome;
    if (room_ < size) {
        if (!is_mergeable_) return Outcome::TooLarge;
        find_buffer_count();
    }
    return Outcome::Done;
}

Reception::Outcome Reception::take_chain() {
    switch (ring_.take(chain_)) {
    case SplitQueue::Taken::Nothing: return Outcome::NoBuffer;
    case SplitQueue::Taken::Misuse: return Outcome::Misuse;
    case SplitQueue::Taken::Chain: break;
    }
    taken_++;
    segment_ = 0;
    offset_ = written_ = 0;
    room_ = 0; // 64 descriptors of up to 4 GiB
    for (u16 i = 0; i < chain_.count; i++) {
        if (chain_.segments[i].is_writable)
            room_ += chain_.segments[i].size;
        else
            segment_ = static_cast<u16>(i + 1); // the readable ones come first
    }
    // [virtio/1.2] 5.1.6.3.1
    return room_ < sizeof(VirtioHeader) ? Outcome::Misuse : Outcome::Done;
}

// The first chain will not be the last one. It has room for the header, which may be cut anywhere.
void Reception::find_buffer_count() {
    u64 before = 0; // bytes in the segments before
    constexpr u32 low = offsetof(VirtioHeader, buffer_count), high = low + 1;
    for (u16 i = segment_; before <= high; i++) {
        SplitQueue::Segment const& segment = chain_.segments[i];
        u8* const at = ram_ + segment.at.value;
        if (low - before < segment.size) count_low_ = at + (low - before); // wraps around after that segment
        if (high - before < segment.size) count_high_ = at + (high - before);
        before += segment.size;
    }
}

Reception::Outcome Reception::write(std::span<u8 const> bytes) {
    while (!bytes.empty()) {
        if (written_ == room_) { // only with mergeable buffers: else begin() found enough
            ring_.add_used(chain_, written_);
            added_++;
            Outcome const outcome = take_chain();
            if (outcome != Outcome::Done) return outcome;
        }
        SplitQueue::Segment const& segment = chain_.segments[segment_];
        u32 const part = std::min(segment.size - offset_, static_cast<u32>(bytes.size()));
        std::memcpy(ram_ + segment.at.value + offset_, bytes.data(), part);
        bytes = bytes.subspan(part);
        offset_ += part;
        written_ += part;
        if (offset_ == segment.size) {
            segment_++;
            offset_ = 0;
        }
    }
    return Outcome::Done;
}

Reception::Outcome Reception::copy(Frame const& frame, Frame::Cursor& cursor, u32 count) {
    while (count != 0) {
        std::span<u8 const> const piece = frame.next(cursor, count);
        Outcome const outcome = write(piece);
        if (outcome != Outcome::Done) return outcome;
        count -= static_cast<u32>(piece.size());
    }
    return Outcome::Done;
}

void Reception::end() {
    ring_.add_used(chain_, written_);
    added_++;
    if (added_ == 1) return; // as the header says
    *count_low_ = static_cast<u8>(added_);
    *count_high_ = static_cast<u8>(added_ >> 8);
}

} // namespace network
