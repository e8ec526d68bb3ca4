// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <lib/memory.hpp>
#include <lib/service_board.hpp>
#include <network/checksum.hpp>
#include <network/frame.hpp>

namespace network {
namespace {

namespace feature = lib::service::net_feature;
constexpr u16 VLAN = 0x0081; // type 0x8100 as it is read [ieee/802.1q] 9.6

} // namespace

EthernetAddress load_address(u8 const* from) {
    return lib::load<u32>(from) | EthernetAddress{lib::load<u16>(from + 4)} << 32;
}

Frame::Verdict Frame::begin(u8 const* ram, u32 features) {
    ram_ = ram;
    checksum_.reset();
    body_ = {};
    u64 total = 0; // 64 descriptors of up to 4 GiB
    for (u16 i = 0; i < chain_.count && !chain_.segments[i].is_writable; i++)
        total += chain_.segments[i].size;
    if (total < sizeof(VirtioHeader)) return Verdict::Misuse;
    read_prologue(static_cast<u32>(std::min<u64>(total, prologue_size)));
    if (total < prologue_size) return drop(Drop::BadSize);
    total -= sizeof(VirtioHeader);
    if (total > most()) return drop(Drop::BadSize);
    size_ = static_cast<u32>(total);
    VirtioHeader const sent = lib::load<VirtioHeader>(prologue_.data());
    header_ = {};
    header_.buffer_count = 1;
    if (sent.gso_type != VirtioHeader::GSO_NONE) return drop(Drop::BadHeader); // was not offered
    // The device must ignore the other flags. [virtio/1.2] 5.1.6.2.2
    if ((sent.flags & VirtioHeader::NEEDS_CSUM) != 0) {
        header_.flags = VirtioHeader::NEEDS_CSUM;
        header_.checksum_start = sent.checksum_start;
        header_.checksum_offset = sent.checksum_offset;
    }
    return is_good_header(features) ? Verdict::Good : drop(Drop::BadHeader);
}

// A checksum inside of the headers before it would change what was decided by them.
bool Frame::is_good_header(u32 features) const {
    if (!needs_checksum()) return true;
    u32 const start = header_.checksum_start, end = start + header_.checksum_offset + sizeof(u16);
    return (features & feature::CSUM) != 0 && start >= ethernet_size + smallest_packet_header && end <= size_;
}

u32 Frame::most() const {
    bool const has_tag = lib::load<u16>(prologue_.data() + prologue_size - 2) == VLAN;
    return largest + (has_tag ? vlan_tag_size : 0);
}

// No more than the chain has.
void Frame::read_prologue(u32 count) {
    lib::SplitQueue::Segment const& first = chain_.segments[0];
    if (first.size >= prologue_size) { // nearly always, and the size is known here
        __builtin_memcpy(prologue_.data(), ram_ + first.at.value, prologue_size);
        body_ = {0, prologue_size};
        return;
    }
    for (u32 done = 0; done != count;) {
        std::span<u8 const> const piece = next(body_, count - done);
        std::memcpy(prologue_.data() + done, piece.data(), piece.size());
        done += static_cast<u32>(piece.size());
    }
}

std::span<u8 const> Frame::next(Cursor& cursor, u32 most) const {
    while (cursor.offset == chain_.segments[cursor.segment].size) // an empty buffer, or the end of one
        cursor = {static_cast<u16>(cursor.segment + 1), 0};
    lib::SplitQueue::Segment const& segment = chain_.segments[cursor.segment];
    u32 const count = std::min(most, segment.size - cursor.offset);
    u8 const* const at = ram_ + segment.at.value + cursor.offset;
    cursor.offset += count;
    return {at, count};
}

u16 Frame::checksum() {
    if (checksum_) return *checksum_;
    Checksum sum;
    Cursor cursor = body_;
    u32 const before = header_.checksum_start - ethernet_size;
    for (u32 left = before; left != 0;)
        left -= static_cast<u32>(next(cursor, left).size());
    for (u32 left = body_size() - before; left != 0;) {
        std::span<u8 const> const piece = next(cursor, left);
        sum.add(piece);
        left -= static_cast<u32>(piece.size());
    }
    // UDP says "no checksum" by zero; for all others both mean the same. [rfc/768]
    u16 const value = sum.value();
    checksum_ = value != 0 ? value : 0xffff;
    return *checksum_;
}

} // namespace network
