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
// Types of frames, as they are read: the bytes of 0x8100, 0x0800 and 0x86dd. [ieee/802.1q] 9.6
constexpr u16 VLAN = 0x0081, IPV4 = 0x0008, IPV6 = 0xdd86;
constexpr u32 type_at = 12;
constexpr u8 TCP = 6;
constexpr u32 smallest_tcp_header = 20, tcp_checksum_at = 16; // [rfc/9293] 3.1

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
    take_header(lib::load<VirtioHeader>(prologue_.data()));
    total -= sizeof(VirtioHeader);
    if (total > most()) return drop(Drop::BadSize);
    size_ = static_cast<u32>(total);
    bool const is_good = is_good_header(features) && (!is_large() || read_headers(features));
    return is_good ? Verdict::Good : drop(Drop::BadHeader);
}

bool Frame::begin(std::span<u8 const> bytes) {
    if (bytes.size() < ethernet_size || bytes.size() > largest + vlan_tag_size) return false;
    begin_whole(bytes);
    return size_ <= most();
}

void Frame::begin(std::span<u8 const> bytes, Frame const& original) {
    begin_whole(bytes);
    header_ = original.header_;
    ip_at_ = original.ip_at_;
    if (is_large()) std::ranges::copy(bytes.first(header_.header_length), headers_.begin());
}

void Frame::begin_whole(std::span<u8 const> bytes) {
    ram_ = bytes.data();
    checksum_.reset();
    size_ = static_cast<u32>(bytes.size());
    chain_.count = 1;
    chain_.segments[0] = {{0}, size_, false};
    header_ = {};
    header_.buffer_count = 1;
    std::memcpy(prologue_.data() + sizeof(VirtioHeader), bytes.data(), ethernet_size);
    body_ = {0, ethernet_size};
}

// The device must ignore the other flags. [virtio/1.2] 5.1.6.2.2
void Frame::take_header(VirtioHeader const& sent) {
    header_ = {};
    header_.buffer_count = 1;
    header_.gso_type = sent.gso_type;
    if (is_large()) header_.gso_size = sent.gso_size;
    if ((sent.flags & VirtioHeader::NEEDS_CSUM) == 0) return;
    header_.flags = VirtioHeader::NEEDS_CSUM;
    header_.checksum_start = sent.checksum_start;
    header_.checksum_offset = sent.checksum_offset;
}

// A checksum inside of the headers before it would change what was decided by them.
bool Frame::is_good_header(u32 features) const {
    if (!needs_checksum()) return true;
    u32 const start = header_.checksum_start, end = start + header_.checksum_offset + sizeof(u16);
    return (features & feature::CSUM) != 0 && start >= ethernet_size + smallest_packet_header && end <= size_;
}

// What is cut has a checksum to be computed, too. The length of the headers is ours: receivers are not to believe that
// of the sender.
bool Frame::read_headers(u32 features) {
    u32 const needed = is_ipv6() ? feature::HOST_TSO6 : feature::HOST_TSO4, start = header_.checksum_start;
    if (header_.gso_type != VirtioHeader::GSO_TCPV4 && !is_ipv6()) return false; // was not offered
    if ((features & needed) == 0 || !needs_checksum() || header_.gso_size == 0) return false;
    if (header_.checksum_offset != tcp_checksum_at || start + smallest_tcp_header > std::min(size_, max_headers))
        return false;
    std::ranges::copy(ethernet(), headers_.begin());
    u32 done = ethernet_size, end = start + smallest_tcp_header;
    for (Cursor cursor = body_; done != end;) {
        std::span<u8 const> const piece = next(cursor, end - done);
        std::ranges::copy(piece, headers_.begin() + done);
        done += static_cast<u32>(piece.size());
        if (done != start + smallest_tcp_header) continue;
        end = start + headers_[start + 12] / 16 * 4U; // with the options of TCP
        if (end < done || end >= size_ || end > max_headers) return false;
    }
    header_.header_length = static_cast<u16>(end);
    if (!is_tcp_packet()) return false;
    u32 const most_of_one = largest + ip_at_ - ethernet_size; // with the tag of a VLAN
    return end + header_.gso_size <= most_of_one && (size_ - end - 1) / header_.gso_size < max_segments;
}

bool Frame::is_tcp_packet() {
    u16 type = lib::load<u16>(headers_.data() + type_at);
    ip_at_ = ethernet_size;
    if (type == VLAN) {
        ip_at_ += vlan_tag_size;
        type = lib::load<u16>(headers_.data() + type_at + vlan_tag_size);
    }
    u8 const* const ip = headers_.data() + ip_at_;
    u32 const size = header_.checksum_start - ip_at_; // is_good_header(): at least 16
    if (is_ipv6()) return type == IPV6 && ip[0] >> 4 == 6 && size >= ipv6_header;
    return type == IPV4 && ip[0] >> 4 == 4 && size >= smallest_packet_header && size == (ip[0] & 15) * 4U &&
           ip[9] == TCP;
}

u32 Frame::most() const {
    if (is_large()) return largest_to_cut;
    bool const has_tag = lib::load<u16>(prologue_.data() + sizeof(VirtioHeader) + type_at) == VLAN;
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

void Frame::copy(Cursor& cursor, std::span<u8> into) const {
    while (!into.empty()) {
        std::span<u8 const> const piece = next(cursor, static_cast<u32>(into.size()));
        std::memcpy(into.data(), piece.data(), piece.size());
        into = into.subspan(piece.size());
    }
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
