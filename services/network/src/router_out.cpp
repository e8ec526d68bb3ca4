// SPDX-License-Identifier: MIT
// What guests send to the router.
#include <algorithm>
#include <network/dhcp_server.hpp>
#include <network/router.hpp>

namespace network {
namespace {

constexpr u16 name_port = 53; // [rfc/1035] 4.2
constexpr u8 net_unreachable = 0;

bool is_icmp_error(u8 type) { return type == icmp_unreachable || type == icmp_time_exceeded || type == icmp_parameter; }

// Whether what the virtio header says fits what the copy has: the guest may have changed it in between.
bool is_consistent(Frame const& original, Ipv4 const& ip, std::span<u8 const> payload) {
    if (!original.needs_checksum()) return true;
    u32 const transport = ip_at + ip.header_size;
    if (ip.is_fragment || original.header().checksum_start != transport) return false;
    auto const protocol = static_cast<Transport>(ip.protocol);
    constexpr u32 udp_sum = 6, tcp_sum = 16;
    u32 const offset = original.header().checksum_offset;
    if (protocol == Transport::Udp) return !original.is_large() && offset == udp_sum && payload.size() >= udp_header;
    if (protocol != Transport::Tcp || offset != tcp_sum || payload.size() < smallest_tcp_header) return false;
    return !original.is_large() || original.headers().size() == transport + payload[12] / 16 * 4U;
}

} // namespace

void Router::from_inside(u32 device, std::span<u8> frame, Frame const& original, u64 now) {
    now_ = now;
    u16 const type = load_big16(frame.data() + 12);
    bool const is_to_us = load_address(frame.data()) == mac_;
    if (type == type_arp) return arp_inside(device, frame);
    if (type != type_ipv4) return;
    auto const ip = read_ipv4(frame.subspan(ip_at));
    if (!ip || (original.is_large() && frame.size() != ip_at + ip->size) ||
        !is_consistent(original, *ip, frame.subspan(ip_at + ip->header_size, ip->size - ip->header_size)))
        return is_to_us ? drop(RouterDrop::Malformed) : void();
    Packet packet(frame.first(ip_at + ip->size), *ip, original.needs_checksum());
    if (ip->destination == ipv4_broadcast || ip->destination == parts_.entry->address)
        return serve(device, packet, original);
    if (is_to_us) route_out(device, packet, original);
}

void Router::arp_inside(u32 device, std::span<u8 const> frame) {
    auto const message = read_arp(frame.subspan(Frame::ethernet_size));
    Inside const& nic = inside_[device];
    if (!message || message->operation != ArpMessage::request || message->target != parts_.entry->address) return;
    if (message->sender != nic.address && message->sender != 0) return drop(RouterDrop::Spoofed);
    auto const answer = make_arp({ArpMessage::reply, mac_, parts_.entry->address, message->sender, nic.mac}, nic.mac);
    parts_.ports->send_inside(device, answer);
}

// Packets to the router itself, and to all: DHCP, names, and ping.
void Router::serve(u32 device, Packet& packet, Frame const& original) {
    Ipv4 const& ip = packet.ip();
    std::span<u8> const payload = packet.payload();
    bool const is_to_us = ip.destination == parts_.entry->address;
    if (ip.is_fragment) return is_to_us ? drop(RouterDrop::Fragment) : void();
    bool const is_udp = static_cast<Transport>(ip.protocol) == Transport::Udp;
    if (is_udp && payload.size() >= udp_header && load_big16(payload.data() + 2) == DhcpMessage::server_port)
        return dhcp_inside(device, payload.subspan(udp_header));
    if (!is_to_us) return;
    if (ip.source != inside_[device].address) return drop(RouterDrop::Spoofed);
    auto const ports = read_ports(ip.protocol, payload);
    if (!ports) return drop(RouterDrop::NotSupported);
    if (ports->protocol == Transport::Icmp) {
        if (payload[0] != icmp_echo) return drop(RouterDrop::Unknown);
        answer_echo(packet);
        return send_in(device, packet);
    }
    if (ports->destination != name_port) {
        constexpr u8 port_unreachable = 3;
        drop(RouterDrop::Unknown);
        return refuse(device, packet, icmp_unreachable, port_unreachable);
    }
    translate_out(device, packet,
                  {.device = device,
                   .protocol = ports->protocol,
                   .inside_port = ports->source,
                   .outside = {known_.name_server, name_port},
                   .router_port = 0,
                   .is_relayed = true},
                  original);
}

void Router::dhcp_inside(u32 device, std::span<u8 const> udp) {
    auto const asked = read_dhcp(udp);
    if (!asked) return drop(RouterDrop::Malformed);
    Inside const& nic = inside_[device];
    bool has_bound = false;
    auto const answer = answer_dhcp(
        *asked, {nic.address, nic.mac, parts_.entry->address, parts_.entry->prefix_length, mac_}, has_bound);
    if (has_bound) parts_.statistics->leases |= 1U << device;
    if (answer) parts_.ports->send_inside(device, answer->bytes);
}

void Router::route_out(u32 device, Packet& packet, Frame const& original) {
    Ipv4 const& ip = packet.ip();
    if (ip.source != inside_[device].address) return drop(RouterDrop::Spoofed);
    if (is_inside(ip.destination) || !lib::is_ipv4_of_a_station(ip.destination) || is_ours(ip.destination))
        return drop(RouterDrop::NoRoute);
    if (ip.is_fragment) return drop(RouterDrop::Fragment);
    if (ip.ttl <= 1) {
        drop(RouterDrop::Expired);
        return refuse(device, packet, icmp_time_exceeded, 0);
    }
    std::span<u8> const payload = packet.payload();
    bool const is_icmp = static_cast<Transport>(ip.protocol) == Transport::Icmp;
    if (is_icmp && payload.size() >= icmp_header && is_icmp_error(payload[0])) return error_out(device, packet);
    auto const ports = read_ports(ip.protocol, payload);
    if (!ports || (is_icmp && payload[0] != icmp_echo)) return drop(RouterDrop::NotSupported);
    translate_out(device, packet,
                  {.device = device,
                   .protocol = ports->protocol,
                   .inside_port = ports->source,
                   .outside = {ip.destination, is_icmp ? u16{0} : ports->destination},
                   .router_port = rule_port(ports->protocol, ip.source, ports->source),
                   .is_relayed = false},
                  original);
}

// The port outside by which a rule leads to this one; 0: none does.
u16 Router::rule_port(Transport protocol, Ipv4Address address, u16 port) const {
    u32 const count = std::min(parts_.entry->forward_count, lib::service::max_forwards);
    for (auto const& rule : std::span(parts_.entry->forwards).first(count))
        if (rule.protocol == protocol && rule.address == address && rule.inside_port == port) return rule.outside_port;
    return 0;
}

void Router::translate_out(u32 device, Packet& packet, Connections::Wanted wanted, Frame const& original) {
    if (known_.address == 0 || wanted.outside.address == 0 || outside_mac_ == 0) {
        drop(RouterDrop::NoRoute);
        return refuse(device, packet, icmp_unreachable, net_unreachable);
    }
    auto const ports = read_ports(packet.ip().protocol, packet.payload());
    Connections& connections = *parts_.connections;
    u16 number = connections.find(wanted, now_);
    if (number == Connections::none) {
        constexpr u8 kind = tcp_syn | tcp_ack | tcp_rst;
        if (wanted.protocol == Transport::Tcp && (ports->tcp_flags & kind) != tcp_syn) return drop(RouterDrop::Unknown);
        number = connections.open(wanted, now_);
        if (number == Connections::none) return drop(RouterDrop::TooMany);
    }
    connections.note(number, true, ports->tcp_flags, now_);
    u16 const router_port = connections.record(number).router_port;
    if (wanted.is_relayed) packet.set_destination(wanted.outside.address, wanted.outside.port);
    packet.set_source(known_.address, router_port);
    packet.count_hop();
    send_out(packet, &original);
}

// An error that a guest tells of a packet that came to it: it goes back as if it were the router's. [rfc/5508] REQ-5
void Router::error_out(u32 device, Packet& packet) {
    std::span<u8> const about = packet.payload().subspan(icmp_header);
    auto const inner = read_ipv4(about, true);
    if (!inner) return drop(RouterDrop::Malformed);
    std::span<u8> const rest = about.subspan(inner->header_size);
    auto const ports = read_ports(inner->protocol, rest, false);
    if (!ports || ports->protocol == Transport::Icmp || inner->destination != inside_[device].address)
        return drop(RouterDrop::Unknown);
    u16 const number = parts_.connections->find({.device = device,
                                                 .protocol = ports->protocol,
                                                 .inside_port = ports->destination,
                                                 .outside = {inner->source, ports->source}},
                                                now_);
    if (number == Connections::none || known_.address == 0) return drop(RouterDrop::Unknown);
    ChecksumChange change;
    change.store32(about.data() + 16, known_.address);
    change.apply(about.data() + 10);
    store_big16(rest.data() + 2, parts_.connections->record(number).router_port);
    packet.sum_icmp();
    packet.set_source_address(known_.address);
    packet.count_hop();
    send_out(packet, nullptr);
}

// Tells the guest why its packet goes no further; about errors nothing is told. [rfc/1812] 4.3.2
void Router::refuse(u32 device, Packet& packet, u8 type, u8 code) {
    constexpr u32 told = 8; // bytes after the header [rfc/792]
    Ipv4 const& ip = packet.ip();
    bool const is_icmp = static_cast<Transport>(ip.protocol) == Transport::Icmp;
    if (packet.payload().size() < told || (is_icmp && packet.payload()[0] != icmp_echo)) return;
    constexpr u32 most = ip_at + smallest_ipv4_header + icmp_header + 60 + told;
    std::array<u8, most> frame{};
    u32 const about = ip.header_size + told, size = smallest_ipv4_header + icmp_header + about;
    put_ethernet(frame.data(), inside_[device].mac, mac_, type_ipv4);
    put_ipv4(frame.data() + ip_at, {parts_.entry->address, ip.source, static_cast<u8>(Transport::Icmp), size});
    u8* const icmp = frame.data() + ip_at + smallest_ipv4_header;
    icmp[0] = type;
    icmp[1] = code;
    std::ranges::copy(packet.frame().subspan(ip_at, about), icmp + icmp_header);
    lib::store(icmp + 2, sum_of({icmp, icmp_header + about}));
    parts_.ports->send_inside(device, std::span(frame).first(ip_at + size));
}

void Router::send_out(Packet& packet, Frame const* original) {
    Ipv4Address const to = load_big32(packet.header().data() + 16);
    bool const is_near = ((to ^ known_.address) & lib::ipv4_mask(known_.prefix_length)) == 0;
    Ipv4Address const next = is_near ? to : known_.gateway;
    if (next == 0) return drop(RouterDrop::NoRoute);
    auto const [mac, must_ask] = arp_->find(next, now_);
    if (must_ask) ask_for(next);
    bool const is_large = original != nullptr && original->is_large();
    if (!mac) return wait_for(next, packet, is_large);
    put_ethernet(packet.frame().data(), *mac, outside_mac_, type_ipv4);
    parts_.ports->send_outside(network_, packet.frame(), packet.has_partial_checksum() ? original : nullptr);
    parts_.statistics->sent++;
}

} // namespace network
