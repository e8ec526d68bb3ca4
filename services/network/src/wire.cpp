// SPDX-License-Identifier: MIT
#include <network/checksum.hpp>
#include <network/wire.hpp>

namespace network {

void store_address(u8* to, EthernetAddress address) {
    lib::store(to, static_cast<u32>(address));
    lib::store(to + 4, static_cast<u16>(address >> 32));
}

void put_ethernet(u8* frame, EthernetAddress to, EthernetAddress from, u16 type) {
    store_address(frame, to);
    store_address(frame + 6, from);
    store_big16(frame + 12, type);
}

u16 sum_of(std::span<u8 const> bytes) {
    Checksum sum;
    sum.add(bytes);
    return sum.value();
}

std::optional<Ipv4> read_ipv4(std::span<u8 const> packet, bool may_be_cut) {
    if (packet.size() < smallest_ipv4_header || packet[0] >> 4 != 4) return std::nullopt;
    u8 const* const at = packet.data();
    Ipv4 ip{};
    ip.header_size = (at[0] & 15) * 4U;
    ip.size = load_big16(at + 2);
    if (ip.header_size < smallest_ipv4_header || ip.size < ip.header_size) return std::nullopt;
    if (packet.size() < ip.header_size || (!may_be_cut && packet.size() < ip.size)) return std::nullopt;
    // What ICMP repeats is as a router on the way had it. [rfc/5508] REQ-3
    if (!may_be_cut && sum_of(packet.first(ip.header_size)) != 0) return std::nullopt;
    constexpr u16 more_fragments = 0x2000, offset = 0x1fff;
    ip.is_fragment = (load_big16(at + 6) & (more_fragments | offset)) != 0;
    ip.ttl = at[8];
    ip.protocol = at[9];
    ip.source = load_big32(at + 12);
    ip.destination = load_big32(at + 16);
    return ip;
}

void put_ipv4(u8* packet, Ipv4Fields const& fields) {
    constexpr u8 version_and_size = 0x45, ttl = 64;
    packet[0] = version_and_size;
    packet[1] = 0;
    store_big16(packet + 2, fields.size);
    store_big16(packet + 4, fields.identification);
    store_big16(packet + 6, 0);
    packet[8] = ttl;
    packet[9] = fields.protocol;
    store_big16(packet + 10, 0);
    store_big32(packet + 12, fields.source);
    store_big32(packet + 16, fields.destination);
    lib::store(packet + 10, sum_of({packet, smallest_ipv4_header}));
}

std::optional<Ports> read_ports(u8 protocol, std::span<u8 const> payload, bool is_whole) {
    constexpr u32 least = 8; // of each of them, and what ICMP repeats at least [rfc/792]
    if (payload.size() < least) return std::nullopt;
    u8 const* const at = payload.data();
    auto const transport = static_cast<Transport>(protocol);
    if (transport == Transport::Icmp) {
        if (at[0] != icmp_echo && at[0] != icmp_echo_reply) return std::nullopt;
        u16 const identifier = load_big16(at + 4);
        return Ports{transport, identifier, identifier, 0};
    }
    Ports ports{transport, load_big16(at), load_big16(at + 2), 0};
    if (ports.source == 0 || ports.destination == 0) return std::nullopt;
    if (transport == Transport::Udp) {
        if (is_whole && (load_big16(at + 4) < udp_header || load_big16(at + 4) > payload.size())) return std::nullopt;
        return ports;
    }
    if (transport != Transport::Tcp) return std::nullopt;
    if (!is_whole) return ports;
    if (payload.size() < smallest_tcp_header) return std::nullopt;
    u32 const header = at[12] / 16 * 4U;
    if (header < smallest_tcp_header || header > payload.size()) return std::nullopt;
    ports.tcp_flags = at[13];
    return ports;
}

void ChecksumChange::store8(u8* at, u32 other, u32 value) {
    u8* const word = at - other;
    take_out(word, 2);
    *at = static_cast<u8>(value);
    put_in(word, 2);
}

u16 ChecksumChange::folded(u32 sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<u16>((sum & 0xffff) + (sum >> 16));
}

void ChecksumChange::apply(u8* checksum) const {
    u32 const old = 0xffffU - lib::load<u16>(checksum);
    lib::store(checksum, static_cast<u16>(0xffff - folded(old + sum_)));
}

void ChecksumChange::apply_to_partial(u8* checksum) const {
    lib::store(checksum, folded(lib::load<u16>(checksum) + sum_));
}

} // namespace network
