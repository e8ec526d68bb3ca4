// SPDX-License-Identifier: MIT
#pragma once
// Messages of DHCP. [rfc/2131] 2, [rfc/2132]
#include <network/wire.hpp>

namespace network {

struct DhcpMessage {
    enum class Kind : u8 {
        None = 0,
        Discover = 1,
        Offer = 2,
        Request = 3,
        Decline = 4,
        Ack = 5,
        Nak = 6,
        Release = 7,
        Inform = 8,
    };
    static constexpr u16 server_port = 67, client_port = 68;
    // Of a frame with such a message, and of the message alone: 300 bytes at least, as old servers want it.
    static constexpr u32 size = 300, frame_size = ip_at + smallest_ipv4_header + udp_header + size;

    bool is_reply;
    Kind kind;
    u32 transaction;
    bool wants_broadcast;
    Ipv4Address client, your; // ciaddr, yiaddr
    Ipv4Address relay;        // giaddr
    EthernetAddress mac;      // chaddr
    // Options; 0: not there.
    Ipv4Address requested, server, mask, router, name_server;
    u32 lease_seconds, renew_seconds, rebind_seconds;
};
// `udp`: what UDP carries.
std::optional<DhcpMessage> read_dhcp(std::span<u8 const> udp);

struct DhcpFrame {
    std::array<u8, DhcpMessage::frame_size> bytes;
    std::span<u8> all() { return bytes; }
};
struct DhcpRoute {
    EthernetAddress to, from;
    Ipv4Address destination, source;
};
DhcpFrame make_dhcp(DhcpMessage const& message, DhcpRoute const& route);

} // namespace network
