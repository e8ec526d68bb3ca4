// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <storage/block_request.hpp>

namespace storage {
namespace {

// [virtio/1.2] 5.2.6
constexpr u32 IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13;
constexpr u32 UNMAP = 1; // of a range: its blocks may be given back, which says nothing about what they hold

// Whether [sector, sector + size / 512) is inside of the medium.
bool is_inside(Medium const& medium, u64 sector, u64 size) {
    u64 const sectors = medium.size / sector_size;
    return sector <= sectors && size <= (sectors - sector) * sector_size;
}

// Whether it is whole sectors of the disk. It is inside of the medium.
bool is_whole(Medium const& medium, u64 sector, u64 size) {
    return medium.disk == nullptr || (sector * sector_size | size) % medium.disk->sector_size == 0;
}

} // namespace

// Says how long both parts of the chain are, and puts the cursor at its begin. Returns false if it has no header or
// no status.
bool BlockRequest::measure() {
    readable_ = writable_ = 0;
    first_writable_ = chain_.count;
    for (u16 i = 0; i < chain_.count; i++) {
        lib::SplitQueue::Segment const& segment = chain_.segments[i];
        if (!segment.is_writable) {
            readable_ += segment.size;
            continue;
        }
        if (first_writable_ == chain_.count) first_writable_ = i;
        writable_ += segment.size;
    }
    cursor_ = {};
    return readable_ >= sizeof(Header) && writable_ != 0;
}

bool BlockRequest::begin(lib::GuestMemory const& memory, Medium const& medium) {
    status_ = Status::Ok;
    work_ = Work::None;
    written_ = under_way_ = bounced_ = ranges_left_ = 0;
    left_ = 0;
    Header header{};
    if (!measure() || !read_value(memory, header)) return false;
    type_ = header.type;
    if (medium.is_out_of_order) {
        fail(Status::IoError);
        return true;
    }
    switch (header.type) {
    case IN:
        cursor_ = {first_writable_, 0};
        start_transfer(Work::Read, medium, header.sector, writable_ - 1);
        break;
    case OUT: start_transfer(Work::Write, medium, header.sector, readable_ - sizeof(Header)); break;
    case FLUSH:
        // A medium in memory has what was written.
        if (medium.disk != nullptr && medium.disk->has_write_cache) work_ = Work::Flush;
        break;
    case GET_ID: tell_serial(memory, medium); break;
    case DISCARD:
    case WRITE_ZEROES: start_zeroing(header.type, medium, readable_ - sizeof(Header)); break;
    default: fail(Status::Unsupported); break;
    }
    return true;
}

void BlockRequest::start_transfer(Work work, Medium const& medium, u64 sector, u64 size) {
    bool const is_refused = work == Work::Write && medium.is_read_only;
    if (is_refused || size % sector_size != 0 || size > max_transfer || !is_inside(medium, sector, size))
        return fail(Status::IoError);
    if (!is_whole(medium, sector, size)) return fail(Status::IoError);
    if (size == 0) return;
    work_ = work;
    at_ = sector * sector_size;
    left_ = size;
}

void BlockRequest::start_zeroing(u32 type, Medium const& medium, u64 size) {
    // Nothing tells what a part of a disk holds after a DISCARD, and the driver was told that there is none.
    if (type == DISCARD && medium.disk != nullptr) return fail(Status::Unsupported);
    if (medium.is_read_only || size == 0 || size % sizeof(Range) != 0 || size > max_ranges * sizeof(Range))
        return fail(Status::IoError);
    work_ = Work::Zero;
    ranges_left_ = static_cast<u32>(size / sizeof(Range));
    left_ = 0;
}

void BlockRequest::tell_serial(lib::GuestMemory const& memory, Medium const& medium) {
    u8 const* const text = reinterpret_cast<u8 const*>(medium.serial.data());
    u64 const size = std::min<u64>(medium.serial.size(), writable_ - 1);
    for (u16 i = first_writable_; written_ != size; i++) {
        u64 const count = std::min<u64>(chain_.segments[i].size, size - written_);
        if (!memory.write(chain_.segments[i].at, {text + written_, count})) return fail(Status::IoError);
        written_ += static_cast<u32>(count);
    }
}

void BlockRequest::go_on(lib::GuestMemory const& memory, Medium const& medium, u64& budget) {
    if (work_ == Work::Zero)
        zero(memory, medium, budget);
    else if (work_ != Work::None)
        move(memory, medium, budget);
}

// Of what measure() counted, no more is left than the chain has from the cursor on.
void BlockRequest::move(lib::GuestMemory const& memory, Medium const& medium, u64& budget) {
    u64 const count = std::min(left_, budget);
    if (!copy(memory, cursor_, medium.bytes.subspan(at_, count), work_ == Work::Read)) return fail(Status::IoError);
    cursor_.advance(chain_, count);
    if (work_ == Work::Read) written_ += static_cast<u32>(count);
    at_ += count;
    left_ -= count;
    budget -= count;
    if (left_ == 0) work_ = Work::None;
}

// Moves bytes between the chain and memory of ours.
bool BlockRequest::copy(lib::GuestMemory const& memory, Cursor from, std::span<u8> bytes, bool is_to_guest) const {
    while (!bytes.empty()) {
        lib::SplitQueue::Segment const& segment = chain_.segments[from.segment];
        std::span<u8> const part = bytes.first(std::min<u64>(segment.size - from.offset, bytes.size()));
        lib::GuestPhys const buffer = segment.at + from.offset;
        bool const is_done =
            is_to_guest ? memory.write(buffer, part).has_value() : memory.read(buffer, part).has_value();
        if (!is_done) return false;
        bytes = bytes.subspan(part.size());
        from = {static_cast<u16>(from.segment + 1), 0};
    }
    return true;
}

void BlockRequest::zero(lib::GuestMemory const& memory, Medium const& medium, u64& budget) {
    for (;;) {
        if (left_ == 0) {
            if (ranges_left_ == 0) {
                work_ = Work::None;
                return;
            }
            if (!next_range(memory, medium)) return;
        }
        u64 const count = std::min(left_, budget);
        std::memset(medium.bytes.subspan(at_, count).data(), 0, count);
        at_ += count;
        left_ -= count;
        budget -= count;
        if (left_ != 0) return; // no budget
    }
}

// What a discarded block holds is undefined; it is zeroed all the same, so that nothing tells what it held.
bool BlockRequest::next_range(lib::GuestMemory const& memory, Medium const& medium) {
    Range range{};
    if (!read_value(memory, range)) {
        fail(Status::IoError);
        return false;
    }
    u64 const size = range.sectors * sector_size;
    bool const is_too_much = medium.disk != nullptr && range.sectors > lib::max_cleared_sectors;
    // [virtio/1.2] 5.2.6.2: a flag that is not known, or is not of this request, is UNSUPP.
    if ((range.flags & ~(type_ == WRITE_ZEROES ? UNMAP : 0)) != 0)
        fail(Status::Unsupported);
    else if (is_too_much || !is_inside(medium, range.sector, size) || !is_whole(medium, range.sector, size))
        fail(Status::IoError);
    if (status_ != Status::Ok) return false;
    ranges_left_--;
    at_ = range.sector * sector_size;
    left_ = size;
    return true;
}

// Reads what is at the cursor, which may be cut anywhere, and moves the cursor on.
bool BlockRequest::read_chain(lib::GuestMemory const& memory, std::span<u8> out) {
    while (!out.empty()) {
        if (cursor_.segment == chain_.count) return false;
        lib::SplitQueue::Segment const& segment = chain_.segments[cursor_.segment];
        u64 const count = std::min<u64>(segment.size - cursor_.offset, out.size());
        if (count == 0) { // an empty buffer, or the end of one
            cursor_ = {static_cast<u16>(cursor_.segment + 1), 0};
            continue;
        }
        if (!memory.read(segment.at + cursor_.offset, out.first(count))) return false;
        out = out.subspan(count);
        cursor_.advance(chain_, count);
    }
    return true;
}

template <typename T> bool BlockRequest::read_value(lib::GuestMemory const& memory, T& value) {
    lib::SplitQueue::Segment const& segment = chain_.segments[cursor_.segment];
    if (segment.size - cursor_.offset < sizeof(T))
        return read_chain(memory, {reinterpret_cast<u8*>(&value), sizeof(T)});
    auto const whole = memory.read<T>(segment.at + cursor_.offset); // nearly always
    if (!whole) return false;
    value = *whole;
    cursor_.advance(chain_, sizeof(T));
    return true;
}

lib::service::DiskRequest BlockRequest::kind() const {
    using Kind = lib::service::DiskRequest;
    switch (type_) {
    case IN: return Kind::Read;
    case OUT: return Kind::Write;
    case FLUSH: return Kind::Flush;
    case DISCARD:
    case WRITE_ZEROES: return Kind::Clear;
    default: return Kind::Other;
    }
}

void BlockRequest::finish(lib::GuestMemory const& memory) {
    for (u16 i = chain_.count; i-- != 0;) {
        lib::SplitQueue::Segment const& segment = chain_.segments[i];
        if (segment.size == 0) continue;
        (void)memory.store<u8>(segment.at + (segment.size - 1), static_cast<u8>(status_));
        break;
    }
    if (status_ != Status::Ok && type_ == IN) written_ = 0;
    if (u64{written_} + 1 == writable_) written_++;
}

} // namespace storage
