// SPDX-License-Identifier: MIT
#pragma once
// Headers of ARP, IPv4, ICMP, UDP and TCP as they stand in a frame. Nothing here reads beyond what was checked before:
// the comment of each function says what that is.
#include <lib/ipv4.hpp>
#include <lib/memory.hpp>
#include <network/frame.hpp>
#include <optional>

namespace network {

// As the network writes them.
inline u16 load_big16(u8 const* from) { return __builtin_bswap16(lib::load<u16>(from)); }
inline u32 load_big32(u8 const* from) { return __builtin_bswap32(lib::load<u32>(from)); }
inline void store_big16(u8* to, u32 value) { lib::store(to, __builtin_bswap16(static_cast<u16>(value))); }
inline void store_big32(u8* to, u32 value) { lib::store(to, __builtin_bswap32(value)); }

using Ipv4Address = u32;
using Transport = lib::service::Transport;
inline constexpr EthernetAddress ethernet_broadcast = 0xffff'ffff'ffff;
inline constexpr Ipv4Address ipv4_broadcast = 0xffff'ffff;
inline constexpr u16 type_ipv4 = 0x0800, type_arp = 0x0806; // [ieee/802.1q] 9.6
inline constexpr u32 ip_at = Frame::ethernet_size;          // in a frame without a tag
inline constexpr u32 smallest_ipv4_header = 20, udp_header = 8, smallest_tcp_header = 20, icmp_header = 8;

void store_address(u8* to, EthernetAddress address); // 6 bytes
void put_ethernet(u8* frame, EthernetAddress to, EthernetAddress from, u16 type);

// An IPv4 header that was checked. [rfc/791] 3.1
struct Ipv4 {
    u32 header_size;
    u32 size; // of the packet, the header included
    u8 protocol, ttl;
    bool is_fragment;
    Ipv4Address source, destination;
};
// `packet`: from its header on, perhaps with padding after it. Nothing: it makes no sense, its header does not match
// its checksum, or it has less than `size` bytes. Of a part of a packet, as ICMP repeats one, only the first is
// checked.
std::optional<Ipv4> read_ipv4(std::span<u8 const> packet, bool may_be_cut = false);
// Writes a header of smallest_ipv4_header bytes with its checksum. `size`: with the header.
struct Ipv4Fields {
    Ipv4Address source, destination;
    u8 protocol;
    u32 size;
    u16 identification = 0;
};
void put_ipv4(u8* packet, Ipv4Fields const& fields);
// The checksum of ICMP, over all of it; as it is to be stored.
u16 sum_of(std::span<u8 const> bytes);

// What a packet's transport says, checked: the ports, or the identifier of an ICMP query as both.
struct Ports {
    Transport protocol;
    u16 source, destination;
    u8 tcp_flags;
};
inline constexpr u8 tcp_fin = 0x01, tcp_syn = 0x02, tcp_rst = 0x04, tcp_ack = 0x10; // [rfc/9293] 3.1
inline constexpr u8 icmp_echo_reply = 0, icmp_unreachable = 3, icmp_echo = 8, icmp_time_exceeded = 11,
                    icmp_parameter = 12; // [rfc/792]
// `payload`: of the IP packet. `is_whole`: false for what ICMP repeats, of which 8 bytes are enough.
std::optional<Ports> read_ports(u8 protocol, std::span<u8 const> payload, bool is_whole = true);

// Changes bytes and a checksum that covers them, without reading the rest. [rfc/1624] 3, equation 3
class ChecksumChange {
public:
    void store16(u8* at, u32 value) { // big-endian
        take_out(at, 2);
        store_big16(at, value);
        put_in(at, 2);
    }
    void store32(u8* at, u32 value) {
        take_out(at, 4);
        store_big32(at, value);
        put_in(at, 4);
    }
    void store8(u8* at, u32 other, u32 value); // `other`: 0 if `at` is the first byte of a word, else 1
    // Of a whole checksum, and of one of which only the part of the pseudo header is there, not inverted.
    void apply(u8* checksum) const;
    void apply_to_partial(u8* checksum) const;

private:
    void take_out(u8 const* at, u32 size) {
        for (u32 i = 0; i < size; i += 2)
            sum_ += 0xffffU - lib::load<u16>(at + i);
    }
    void put_in(u8 const* at, u32 size) {
        for (u32 i = 0; i < size; i += 2)
            sum_ += lib::load<u16>(at + i);
    }
    static u16 folded(u32 sum);

    u32 sum_ = 0;
};

} // namespace network
