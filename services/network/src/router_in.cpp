// SPDX-License-Identifier: MIT
// What comes to the router from outside.
#include <algorithm>
#include <network/router.hpp>

namespace network {

void Router::from_outside(std::span<u8> frame, u64 now) {
    now_ = now;
    EthernetAddress const to = load_address(frame.data());
    if (outside_mac_ == 0 || (to != outside_mac_ && to != ethernet_broadcast)) return; // the NIC takes every frame
    u16 const type = load_big16(frame.data() + 12);
    if (type == type_arp) return arp_outside(frame);
    if (type != type_ipv4) return;
    auto const ip = read_ipv4(frame.subspan(ip_at));
    if (!ip) return to == outside_mac_ ? drop(RouterDrop::Malformed) : void();
    Packet packet(frame.first(ip_at + ip->size), *ip, false);
    if (!ip->is_fragment && take_dhcp(packet)) return;
    if (known_.address == 0 || ip->destination != known_.address || to != outside_mac_) return;
    if (is_inside(ip->source) || is_ours(ip->source)) return drop(RouterDrop::Spoofed);
    if (ip->is_fragment) return drop(RouterDrop::Fragment);
    route_in(packet);
}

void Router::route_in(Packet& packet) {
    std::span<u8> const payload = packet.payload();
    if (static_cast<Transport>(packet.ip().protocol) == Transport::Icmp && payload.size() >= icmp_header) {
        u8 const type = payload[0];
        if (type == icmp_echo) {
            answer_echo(packet);
            return send_out(packet, nullptr);
        }
        if (type == icmp_unreachable || type == icmp_time_exceeded || type == icmp_parameter) return error_in(packet);
    }
    auto const ports = read_ports(packet.ip().protocol, payload);
    if (!ports) return drop(RouterDrop::NotSupported);
    if (packet.ip().ttl <= 1) return drop(RouterDrop::Expired);
    translate_in(packet, *ports);
}

void Router::translate_in(Packet& packet, Ports const& ports) {
    Connections& connections = *parts_.connections;
    bool const is_icmp = ports.protocol == Transport::Icmp;
    Connections::Station const from{packet.ip().source, is_icmp ? u16{0} : ports.source};
    u16 number = connections.find_from_outside(network_, ports.protocol, ports.destination, from, now_);
    if (number == Connections::none) {
        auto wanted = wanted_by_rule(ports, from);
        if (!wanted) wanted = connections.expected_from_outside(network_, ports.protocol, ports.destination, from);
        if (!wanted) return drop(RouterDrop::Unknown);
        number = connections.open(*wanted, now_);
        if (number == Connections::none) return drop(RouterDrop::TooMany);
    }
    connections.note(number, false, ports.tcp_flags, now_);
    auto const& record = connections.record(number);
    if (connections.is_relayed(number)) packet.set_source(parts_.entry->address, record.outside_port);
    packet.set_destination(record.inside, record.inside_port);
    packet.count_hop();
    send_in(Connections::device_of(number), packet);
}

// A connection begins with a SYN alone.
std::optional<Connections::Wanted> Router::wanted_by_rule(Ports const& ports, Connections::Station from) const {
    constexpr u8 kind = tcp_syn | tcp_ack | tcp_rst;
    if (ports.protocol == Transport::Tcp && (ports.tcp_flags & kind) != tcp_syn) return std::nullopt;
    u32 const count = std::min(parts_.entry->forward_count, lib::service::max_forwards);
    for (auto const& rule : std::span(parts_.entry->forwards).first(count)) {
        if (rule.protocol != ports.protocol || rule.outside_port != ports.destination) continue;
        auto const nic = std::ranges::find(inside_, rule.address, &Inside::address);
        if (rule.address == 0 || nic == inside_.end()) return std::nullopt; // its VM does not run
        return Connections::Wanted{.device = static_cast<u32>(nic - inside_.begin()),
                                   .protocol = rule.protocol,
                                   .inside_port = rule.inside_port,
                                   .outside = from,
                                   .router_port = rule.outside_port,
                                   .is_relayed = false};
    }
    return std::nullopt;
}

// An error about a packet of a guest: what it repeats gets the guest's address and port back. [rfc/5508] REQ-4
void Router::error_in(Packet& packet) {
    std::span<u8> const about = packet.payload().subspan(icmp_header);
    auto const inner = read_ipv4(about, true);
    if (!inner) return drop(RouterDrop::Malformed);
    std::span<u8> const rest = about.subspan(inner->header_size);
    auto const ports = read_ports(inner->protocol, rest, false);
    if (!ports || inner->source != known_.address) return drop(RouterDrop::Unknown);
    bool const is_icmp = ports->protocol == Transport::Icmp;
    Connections& connections = *parts_.connections;
    u16 const number = connections.find_from_outside(network_, ports->protocol, ports->source,
                                                     {inner->destination, is_icmp ? u16{0} : ports->destination}, now_);
    if (number == Connections::none) return drop(RouterDrop::Unknown);
    auto const& record = connections.record(number);
    ChecksumChange change;
    change.store32(about.data() + 12, record.inside);
    if (connections.is_relayed(number)) change.store32(about.data() + 16, parts_.entry->address);
    change.apply(about.data() + 10);
    if (is_icmp) {
        ChecksumChange identifier;
        identifier.store16(rest.data() + 4, record.inside_port);
        identifier.apply(rest.data() + 2);
    } else {
        store_big16(rest.data(), record.inside_port);
    }
    packet.sum_icmp();
    packet.set_destination_address(record.inside);
    if (packet.ip().ttl <= 1) return drop(RouterDrop::Expired);
    packet.count_hop();
    send_in(Connections::device_of(number), packet);
}

void Router::send_in(u32 device, Packet& packet) {
    put_ethernet(packet.frame().data(), inside_[device].mac, mac_, type_ipv4);
    parts_.ports->send_inside(device, packet.frame());
    parts_.statistics->received++;
}

// Addresses change places, which changes no sum.
void Router::answer_echo(Packet& packet) {
    u8* const header = packet.header().data();
    Ipv4 const& ip = packet.ip();
    store_big32(header + 12, ip.destination);
    store_big32(header + 16, ip.source);
    constexpr u32 ttl_at = 8, header_sum_at = 10, icmp_sum_at = 2;
    ChecksumChange hops;
    hops.store8(header + ttl_at, 0, 64);
    hops.apply(header + header_sum_at);
    u8* const icmp = packet.payload().data();
    ChecksumChange kind;
    kind.store8(icmp, 0, icmp_echo_reply);
    kind.apply(icmp + icmp_sum_at);
}

} // namespace network
