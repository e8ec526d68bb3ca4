// SPDX-License-Identifier: MIT
#pragma once
// A network with a router between guests and an outside, which a test plays.
#include "outside.hpp"
#include <network/arp.hpp>
#include <network/checksum.hpp>
#include <network/dhcp.hpp>
#include <network/router.hpp>
#include <network/wire.hpp>

namespace network_test {

using network::Ipv4Address;
using network::RouterDrop;
using network::Transport;

constexpr Ipv4Address ip(u32 a, u32 b, u32 c, u32 d) { return a << 24 | b << 16 | c << 8 | d; }

inline constexpr Ipv4Address router_inside = ip(10, 77, 0, 1), router_outside = ip(192, 0, 2, 10),
                             gateway = ip(192, 0, 2, 1), name_server = ip(192, 0, 2, 53), far = ip(198, 51, 100, 7),
                             near = ip(192, 0, 2, 99);
constexpr Ipv4Address address_of(u32 device) { return router_inside + 1 + device; }
inline constexpr Mac router_mac{0x02, 'r', 'o', 'u', 't', 0}, uplink_mac{0x52, 0x54, 0xaa, 0, 0, 1},
    gateway_mac{0x52, 0x54, 0x99, 0, 0, 2};

inline network::EthernetAddress number_of(Mac const& mac) { return network::load_address(mac.data()); }

// What a packet says that came out somewhere; its checksums have been checked.
struct Seen {
    Mac to, from;
    network::Ipv4 ip;
    Bytes payload;
    u16 source = 0, destination = 0; // ports, or an identifier in both
    Bytes data;                      // after the transport's header
};

struct PacketFields {
    Ipv4Address source, destination;
    Transport protocol = Transport::Udp;
    u16 source_port = 0, destination_port = 0; // ICMP: the first is the identifier
    u8 flags = 0;                              // of TCP, or the type of ICMP
    Bytes data{};
    u8 ttl = 64;
};

inline void put_checksum(Bytes& bytes, std::size_t at, network::Checksum const& sum) {
    u16 const value = sum.value();
    std::memcpy(bytes.data() + at, &value, 2);
}

// The sum of the pseudo header and of the transport's bytes.
inline network::Checksum sum_transport(Bytes const& frame, std::size_t payload_at) {
    network::Checksum sum;
    u32 const size = static_cast<u32>(frame.size() - payload_at);
    u8 const pseudo[] = {0, frame[23], static_cast<u8>(size >> 8), static_cast<u8>(size)};
    if (frame[23] != 1) {
        sum.add({frame.data() + 26, 8});
        sum.add(pseudo);
    }
    sum.add({frame.data() + payload_at, size});
    return sum;
}

inline constexpr std::size_t transport_at = 34;
constexpr std::size_t header_of(Transport protocol) { return protocol == Transport::Tcp ? 20 : 8; }
constexpr std::size_t sum_at(Transport protocol) {
    return transport_at + (protocol == Transport::Tcp ? 16U : protocol == Transport::Udp ? 6U : 2U);
}

inline Bytes make_packet(Mac const& to, Mac const& from, PacketFields const& fields) {
    std::size_t const header = header_of(fields.protocol);
    Bytes frame(transport_at + header + fields.data.size());
    network::put_ethernet(frame.data(), number_of(to), number_of(from), network::type_ipv4);
    network::put_ipv4(frame.data() + 14, {fields.source, fields.destination, static_cast<u8>(fields.protocol),
                                          static_cast<u32>(frame.size() - 14)});
    network::ChecksumChange ttl;
    ttl.store8(frame.data() + 22, 0, fields.ttl);
    ttl.apply(frame.data() + 24);
    u8* const at = frame.data() + transport_at;
    if (fields.protocol == Transport::Icmp) {
        at[0] = fields.flags;
        network::store_big16(at + 4, fields.source_port);
    } else {
        network::store_big16(at, fields.source_port);
        network::store_big16(at + 2, fields.destination_port);
        if (fields.protocol == Transport::Tcp)
            at[12] = 0x50, at[13] = fields.flags;
        else
            network::store_big16(at + 4, static_cast<u32>(header + fields.data.size()));
    }
    std::ranges::copy(fields.data, frame.begin() + static_cast<std::ptrdiff_t>(transport_at + header));
    put_checksum(frame, sum_at(fields.protocol), sum_transport(frame, transport_at));
    return frame;
}

// Fails the test if a checksum is wrong.
inline std::optional<Seen> read_packet(Bytes const& frame) {
    if (frame.size() < 34 || frame[12] != 8 || frame[13] != 0) return std::nullopt;
    auto const found = network::read_ipv4(std::span(frame).subspan(14));
    EXPECT_TRUE(found) << "the header is sound";
    if (!found) return std::nullopt;
    Seen seen{};
    std::copy_n(frame.begin(), 6, seen.to.begin());
    std::copy_n(frame.begin() + 6, 6, seen.from.begin());
    seen.ip = *found;
    Bytes const whole(frame.begin(), frame.begin() + 14 + found->size);
    seen.payload.assign(whole.begin() + transport_at, whole.end());
    auto const protocol = static_cast<Transport>(found->protocol);
    bool const has_sum = protocol != Transport::Udp || seen.payload[6] != 0 || seen.payload[7] != 0;
    if (has_sum) EXPECT_EQ(sum_transport(whole, transport_at).value(), 0) << "the transport's checksum is right";
    bool const is_icmp = protocol == Transport::Icmp;
    seen.source = network::load_big16(seen.payload.data() + (is_icmp ? 4 : 0));
    seen.destination = is_icmp ? seen.source : network::load_big16(seen.payload.data() + 2);
    seen.data.assign(seen.payload.begin() + static_cast<std::ptrdiff_t>(header_of(protocol)), seen.payload.end());
    return seen;
}

struct NatTest : NetworkTest {
    Outside device;

    NatTest() {
        device.mac = uplink_mac;
        service::RouterEntry& entry = router();
        entry.is_present = 1;
        entry.address = router_inside;
        entry.prefix_length = 24;
        std::ranges::copy(router_mac, entry.mac);
        world.board->seed[0] = 0x1234'5678'9abc'def0;
    }
    service::RouterEntry& router() { return world.board->routers[0]; }
    service::RouterStatistics& said() { return world.counts->routers[0]; }
    u64 dropped(RouterDrop reason) { return said().dropped[static_cast<u32>(reason)]; }
    void be_static() {
        router().outside_address = router_outside;
        router().outside_prefix_length = 24;
        router().gateway = gateway;
        router().name_server = name_server;
    }
    void forward(Transport protocol, u16 outside_port, u32 to, u16 inside_port) {
        router().forwards[router().forward_count++] = {protocol, address_of(to), outside_port, inside_port};
    }
    Driver& add_guest(u32 features = all_offloads) {
        Driver& driver = add(0, features);
        world.board->devices[driver.device].address = address_of(driver.device);
        return driver;
    }
    void start_instance() {
        world.start();
        device.sent.clear();
        device.under_way.clear();
        world.instance->add_uplink(0, device, 0);
        world.run();
    }
    // With a static address, and a gateway whose MAC is known.
    void start_routed() {
        be_static();
        start_instance();
        know_gateway();
    }
    void know_gateway() {
        drivers[0]->send(make_packet(router_mac, mac_of(0), {address_of(0), far, Transport::Udp, 9, 9}));
        world.run();
        answer_arp(gateway, gateway_mac);
        device.sent.clear();
    }
    void come(Bytes const& frame) {
        device.incoming.push_back(frame);
        world.events |= service::event_controller(0);
        world.run();
    }
    void answer_arp(Ipv4Address station, Mac const& mac) {
        auto const frame = network::make_arp({2, number_of(mac), station, router_outside, number_of(uplink_mac)},
                                             number_of(uplink_mac));
        come({frame.begin(), frame.end()});
    }
    void send(u32 guest, PacketFields const& fields) {
        drivers[guest]->send(make_packet(router_mac, mac_of(guest), fields));
        world.run();
    }
    void send_from_outside(PacketFields const& fields) { come(make_packet(uplink_mac, gateway_mac, fields)); }
    // What has gone out, the last of it.
    std::optional<Seen> out() {
        if (device.sent.empty()) return std::nullopt;
        auto const seen = read_packet(device.sent.back());
        device.sent.clear();
        return seen;
    }
    std::optional<Seen> in(u32 guest) {
        auto const received = drivers[guest]->next();
        return received ? read_packet(received->bytes) : std::nullopt;
    }
    void seconds(u64 count) {
        world.now += count * World::second;
        world.events |= service::event_controller(0);
        world.run();
    }
};

} // namespace network_test
