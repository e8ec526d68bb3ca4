// SPDX-License-Identifier: MIT
#pragma once
// One Ethernet frame in the transmit chain of a driver. [virtio/1.2] 5.1.6
//
// Both headers are read once, here; what is decided by them is what the receivers get. The rest of the frame goes
// straight from the sender's buffers to the receivers', and the sender may change it during the copy.
#include <lib/split_queue.hpp>
#include <network/host.hpp>
#include <network/statistics.hpp>
#include <optional>
#include <span>

namespace network {

// struct virtio_net_hdr [virtio/1.2] 5.1.6
struct VirtioHeader {
    static constexpr u8 NEEDS_CSUM = 1;                             // in flags
    static constexpr u8 GSO_NONE = 0, GSO_TCPV4 = 1, GSO_TCPV6 = 4; // gso_type
    u8 flags, gso_type;
    u16 header_length, gso_size, checksum_start, checksum_offset, buffer_count;
};
static_assert(sizeof(VirtioHeader) == 12);

// As a number whose lowest byte is the first one of the frame: bit 0 is set in an address of a group.
using EthernetAddress = u64;
EthernetAddress load_address(u8 const* from); // of 6 bytes

class Frame {
public:
    static constexpr u32 ethernet_size = 14;                // both addresses and the type
    static constexpr u32 largest = 1514, vlan_tag_size = 4; // [ieee/802.3] 3.2.7, without the checksum at the end
    static constexpr u32 smallest_packet_header = 20;       // of IPv4; that of IPv6 is longer
    static constexpr u32 ipv6_header = 40;
    static constexpr u32 largest_to_cut = 65550; // [virtio/1.2] 5.1.6.3.1, without the virtio header
    static constexpr u32 max_headers = 192;      // of a frame to be cut, TCP's included
    static constexpr u32 max_segments = 1024;    // that one frame may become: 64 KiB in pieces of 64 bytes
    static constexpr u32 prologue_size = sizeof(VirtioHeader) + ethernet_size;
    // A position in the bytes after the Ethernet header.
    struct Cursor {
        u16 segment;
        u32 offset;
    };
    enum class Verdict : u8 { Good, Dropped, Misuse };

    // To be filled by SplitQueue::take() before begin(), and no longer changed after it.
    lib::SplitQueue::Chain& chain() { return chain_; }
    // `ram`: where guest-physical address 0 of the sender is; all of the chain is RAM. `features`: those that its
    // driver accepted. Misuse: the chain does not even hold the virtio header.
    [[nodiscard]] Verdict begin(u8 const* ram, u32 features);
    // The same for a frame that came from outside, without a virtio header: `bytes` stay where they are, and may change
    // as a guest's buffers may. Returns false if it is shorter or longer than a frame may be.
    [[nodiscard]] bool begin(std::span<u8 const> bytes);
    // A copy of `original` in the service's own memory, in which the headers may have changed but not their sizes. What
    // its sender has left to be done is still to be done.
    void begin(std::span<u8 const> bytes, Frame const& original);
    Drop reason() const { return reason_; } // after Verdict::Dropped

    u32 size() const { return size_; } // without the virtio header
    EthernetAddress destination() const { return load_address(prologue_.data() + sizeof(VirtioHeader)); }
    EthernetAddress source() const { return load_address(prologue_.data() + sizeof(VirtioHeader) + 6); }
    std::span<u8 const, ethernet_size> ethernet() const { return std::span(prologue_).last<ethernet_size>(); }
    // The bytes after the Ethernet header, from its first one on, in pieces of at most `most` bytes. Not more may be
    // asked for than the frame has.
    Cursor body() const { return body_; }
    std::span<u8 const> next(Cursor& cursor, u32 most) const;
    // Copies as many bytes as `into` has room for.
    void copy(Cursor& cursor, std::span<u8> into) const;
    u32 body_size() const { return size_ - ethernet_size; }

    // Whether the sender has left the checksum at `checksum_at` (in the body) to be computed from `checksum_start` on.
    bool needs_checksum() const { return header_.flags != 0; }
    // The header for a receiver that takes the frame as it is.
    VirtioHeader const& header() const { return header_; }
    u32 checksum_at() const { return header_.checksum_start + header_.checksum_offset - ethernet_size; }
    // Computed when it is asked for first.
    u16 checksum();

    // Whether it is a TCP packet that is to be cut into segments for whoever takes no large ones. Then:
    bool is_large() const { return header_.gso_type != VirtioHeader::GSO_NONE; }
    bool is_ipv6() const { return header_.gso_type == VirtioHeader::GSO_TCPV6; }
    std::span<u8 const> headers() const {
        return std::span(headers_).first(header_.header_length);
    } // as begin() read them
    u32 ip_at() const { return ip_at_; } // in the headers

private:
    Verdict drop(Drop reason) {
        reason_ = reason;
        return Verdict::Dropped;
    }
    void begin_whole(std::span<u8 const> bytes);
    void read_prologue(u32 count);
    void take_header(VirtioHeader const& sent);
    bool is_good_header(u32 features) const;
    bool read_headers(u32 features);
    bool is_tcp_packet(); // finds ip_at_
    u32 most() const;     // bytes that the frame may have

    lib::SplitQueue::Chain chain_{};
    u8 const* ram_ = nullptr;
    std::array<u8, prologue_size> prologue_{};
    VirtioHeader header_{}; // as receivers get it
    Cursor body_{};
    u32 size_ = 0;
    u32 ip_at_ = 0;
    std::array<u8, max_headers> headers_{};
    Drop reason_ = Drop::BadHeader;
    std::optional<u16> checksum_{};
};

} // namespace network
