// SPDX-License-Identifier: MIT
// Packets of guests through the router, and back.
#include "nat_world.hpp"
#include <set>

using namespace network_test;

namespace {

constexpr u8 syn = network::tcp_syn, ack = network::tcp_ack, fin = network::tcp_fin, rst = network::tcp_rst;
constexpr u16 mark = 1234;
Bytes const hello{'h', 'e', 'l', 'l', 'o'};

PacketFields udp(u32 guest, u16 port = 5000, Ipv4Address to = far, u16 to_port = mark) {
    return {address_of(guest), to, Transport::Udp, port, to_port, 0, hello};
}

} // namespace

TEST_F(NatTest, APacketGoesOutInTheRoutersNameAndTheAnswerComesBack) {
    add_guest();
    start_routed();
    for (Transport const protocol : {Transport::Udp, Transport::Tcp, Transport::Icmp}) {
        bool const is_icmp = protocol == Transport::Icmp;
        u8 const first = is_icmp ? network::icmp_echo : syn, second = is_icmp ? u8{0} : static_cast<u8>(syn | ack);
        send(0, {address_of(0), far, protocol, 5000, mark, first, hello});
        auto const went = out();
        ASSERT_TRUE(went);
        EXPECT_EQ(went->to, gateway_mac);
        EXPECT_EQ(went->from, uplink_mac);
        EXPECT_EQ(went->ip.source, router_outside);
        EXPECT_EQ(went->ip.destination, far);
        EXPECT_EQ(went->ip.ttl, 63);
        EXPECT_EQ(went->data, hello);
        if (!is_icmp) EXPECT_EQ(went->destination, mark);
        u16 const from = is_icmp ? went->source : mark, to = is_icmp ? u16{0} : went->source;
        send_from_outside({far, router_outside, protocol, from, to, second, hello});
        auto const came = in(0);
        ASSERT_TRUE(came);
        EXPECT_EQ(came->to, mac_of(0));
        EXPECT_EQ(came->from, router_mac);
        EXPECT_EQ(came->ip.source, far);
        EXPECT_EQ(came->ip.destination, address_of(0));
        EXPECT_EQ(came->destination, 5000);
        EXPECT_EQ(came->data, hello);
    }
    EXPECT_EQ(said().connections, 0U) << "counted once a second";
    seconds(1);
    EXPECT_EQ(said().connections, 4U);
}

TEST_F(NatTest, APortHasTheSameOneOutsideWhomeverItTalksTo) {
    add_guest(), add_guest();
    start_routed();
    send(0, udp(0));
    u16 const first = out()->source;
    send(0, udp(0, 5000, far + 1, 77));
    EXPECT_EQ(out()->source, first);
    send(0, udp(0, 5001));
    EXPECT_NE(out()->source, first);
    send(1, udp(1));
    EXPECT_NE(out()->source, first) << "another guest's port of the same number";
}

TEST_F(NatTest, NobodyElseOutsideReachesAPort) {
    add_guest();
    start_routed();
    send(0, udp(0));
    u16 const port = out()->source;
    send_from_outside({far + 1, router_outside, Transport::Udp, mark, port, 0, hello});
    EXPECT_FALSE(in(0));
    send_from_outside({far, router_outside, Transport::Udp, mark, static_cast<u16>(port ^ 1), 0, hello});
    EXPECT_FALSE(in(0));
    send_from_outside({far, router_outside, Transport::Tcp, mark, port, syn, hello});
    EXPECT_FALSE(in(0));
    EXPECT_EQ(dropped(RouterDrop::Unknown), 3U);
    send_from_outside({far, router_outside, Transport::Udp, 99, port, 0, hello});
    EXPECT_TRUE(in(0)) << "the same station by another port";
}

TEST_F(NatTest, ChecksumsThatAGuestLeftOutAreThereOutside) {
    add_guest();
    start_routed();
    for (Transport const protocol : {Transport::Udp, Transport::Tcp}) {
        PacketFields fields{address_of(0), far, protocol, 5000, mark, syn, hello};
        fields.data.push_back(3);
        Bytes frame = make_packet(router_mac, mac_of(0), fields);
        network::Checksum pseudo; // as Linux leaves it: that of the pseudo header, not inverted
        u8 const rest[] = {0, frame[23], 0, static_cast<u8>(frame.size() - transport_at)};
        pseudo.add({frame.data() + 26, 8});
        pseudo.add(rest);
        u16 const partial = static_cast<u16>(~pseudo.value());
        std::memcpy(frame.data() + sum_at(protocol), &partial, 2);
        drivers[0]->send(frame, {.flags = 1,
                                 .checksum_start = transport_at,
                                 .checksum_offset = static_cast<u16>(sum_at(protocol) - transport_at)});
        world.run();
        auto const went = out(); // which checks it
        ASSERT_TRUE(went);
        EXPECT_EQ(went->data, fields.data);
    }
}

TEST_F(NatTest, ALargeFrameIsCutOnItsWayOut) {
    add_guest(large_frames);
    start_routed();
    send(0, {address_of(0), far, Transport::Tcp, 5000, mark, syn});
    device.sent.clear();
    Bytes data(1800);
    for (std::size_t i = 0; i < data.size(); i++)
        data[i] = static_cast<u8>(i * 11);
    Bytes const frame = make_packet(router_mac, mac_of(0), {address_of(0), far, Transport::Tcp, 5000, mark, ack, data});
    drivers[0]->send(frame, {.flags = 1, .gso_type = 1, .gso_size = 700, .checksum_start = 34, .checksum_offset = 16});
    world.run();
    ASSERT_EQ(device.sent.size(), 3U);
    Bytes all;
    for (Bytes const& part : device.sent) {
        auto const seen = read_packet(part);
        ASSERT_TRUE(seen);
        EXPECT_EQ(seen->ip.source, router_outside);
        all.insert(all.end(), seen->data.begin(), seen->data.end());
    }
    EXPECT_EQ(all, data);
}

TEST_F(NatTest, UdpWithoutAChecksumStaysWithout) {
    add_guest();
    start_routed();
    Bytes frame = make_packet(router_mac, mac_of(0), udp(0));
    frame[40] = frame[41] = 0;
    drivers[0]->send(frame);
    world.run();
    auto const went = out();
    ASSERT_TRUE(went);
    EXPECT_EQ(went->payload[6] + went->payload[7], 0);
}

TEST_F(NatTest, ARuleLeadsToAGuest) {
    add_guest(), add_guest();
    forward(Transport::Tcp, 8080, 1, 80);
    start_routed();
    PacketFields const first{far, router_outside, Transport::Tcp, 4000, 8080, syn};
    send_from_outside(first);
    EXPECT_FALSE(in(0));
    auto const came = in(1);
    ASSERT_TRUE(came);
    EXPECT_EQ(came->ip.source, far);
    EXPECT_EQ(came->source, 4000);
    EXPECT_EQ(came->destination, 80);
    send(1, {address_of(1), far, Transport::Tcp, 80, 4000, static_cast<u8>(syn | ack)});
    auto const went = out();
    ASSERT_TRUE(went);
    EXPECT_EQ(went->source, 8080);
    send_from_outside({far, router_outside, Transport::Tcp, 4000, 8080, ack, hello});
    EXPECT_EQ(in(1)->data, hello);
    send_from_outside({far, router_outside, Transport::Tcp, 4001, 8080, ack, hello});
    EXPECT_FALSE(in(1)) << "no connection begins so";
    send_from_outside({far, router_outside, Transport::Udp, 4000, 8080, 0, hello});
    EXPECT_FALSE(in(1));
}

TEST_F(NatTest, APortOfARuleIsGivenToNobodyElse) {
    add_guest();
    for (u32 i = 0; i < service::max_forwards; i++)
        forward(Transport::Udp, static_cast<u16>(40'000 + i), 0, static_cast<u16>(1 + i));
    start_routed();
    std::set<u16> ports;
    for (u16 i = 0; i < 500; i++) {
        send(0, udp(0, static_cast<u16>(5000 + i)));
        u16 const port = out()->source;
        EXPECT_TRUE(ports.insert(port).second);
        EXPECT_TRUE(port >= network::Connections::first_port);
        EXPECT_FALSE(port >= 40'000 && port < 40'000 + service::max_forwards);
    }
}

TEST_F(NatTest, AGuestMayHaveSoManyConnectionsAndTakesNoneFromOthers) {
    add_guest(), add_guest();
    start_routed();
    device.rooms_left = 10'000;
    // UDP that was answered is in use.
    auto const use = [&](u32 guest, u32 number) {
        send(guest, udp(guest, static_cast<u16>(5000 + number / 4), far + number % 4));
        auto const went = out();
        if (!went) return false;
        send_from_outside({far + number % 4, router_outside, Transport::Udp, mark, went->source});
        return in(guest).has_value();
    };
    for (u32 i = 1; i < network::Connections::per_device; i++) {
        EXPECT_TRUE(use(0, i));
        drivers[0]->add_buffers(1);
    }
    EXPECT_TRUE(use(0, 4000)) << "that of know_gateway() has no answer, and makes room";
    drivers[0]->add_buffers(1);
    EXPECT_FALSE(use(0, 4001));
    EXPECT_EQ(dropped(RouterDrop::TooMany), 1U);
    EXPECT_TRUE(use(1, 1));
    EXPECT_EQ(world.instance->connections().count_of_device(0), network::Connections::per_device);
    seconds(301);
    know_gateway();
    EXPECT_TRUE(use(0, 4001));
}

TEST_F(NatTest, ConnectionsEndWhenNothingComes) {
    add_guest();
    start_routed();
    struct Case {
        Transport protocol;
        u64 seconds;
        bool is_open;
    };
    for (Case const& one : {Case{Transport::Udp, 300, false},
                            {Transport::Icmp, 60, false},
                            {Transport::Tcp, 240, false},
                            {Transport::Tcp, 7440, true}}) {
        u16 const port = one.is_open ? 5001 : 5000;
        bool const is_icmp = one.protocol == Transport::Icmp;
        know_gateway();
        send(0, {address_of(0), far, one.protocol, port, mark, is_icmp ? network::icmp_echo : syn});
        auto const went = out();
        ASSERT_TRUE(went);
        PacketFields answer{far, router_outside, one.protocol, mark, went->source, 0};
        if (is_icmp) answer.source_port = went->source;
        if (one.is_open) {
            answer.flags = syn | ack;
            send_from_outside(answer);
            EXPECT_TRUE(in(0));
        }
        answer.flags = one.protocol == Transport::Tcp ? ack : 0;
        seconds(one.seconds);
        send_from_outside(answer);
        EXPECT_TRUE(in(0)) << one.seconds;
        seconds(one.seconds + 1);
        send_from_outside(answer);
        EXPECT_FALSE(in(0)) << one.seconds;
    }
}

TEST_F(NatTest, ATcpConnectionThatBothCloseOrOneResetsEndsSoon) {
    add_guest();
    start_routed();
    for (u16 const port : {u16{5000}, u16{5001}}) {
        send(0, {address_of(0), far, Transport::Tcp, port, mark, syn});
        u16 const outside = out()->source;
        send_from_outside({far, router_outside, Transport::Tcp, mark, outside, static_cast<u8>(syn | ack)});
        if (port == 5000) {
            send(0, {address_of(0), far, Transport::Tcp, port, mark, static_cast<u8>(fin | ack)});
            send_from_outside({far, router_outside, Transport::Tcp, mark, outside, static_cast<u8>(fin | ack)});
        } else {
            send_from_outside({far, router_outside, Transport::Tcp, mark, outside, rst});
        }
        while (in(0))
            ;
        seconds(241);
        send_from_outside({far, router_outside, Transport::Tcp, mark, outside, ack});
        EXPECT_FALSE(in(0));
    }
}

TEST_F(NatTest, AForgedResetDoesNotEndAConnection) {
    add_guest();
    start_routed();
    send(0, {address_of(0), far, Transport::Tcp, 5000, mark, syn});
    u16 const outside = out()->source;
    send_from_outside({far, router_outside, Transport::Tcp, mark, outside, static_cast<u8>(syn | ack)});
    send_from_outside({far, router_outside, Transport::Tcp, mark, outside, rst});
    send(0, {address_of(0), far, Transport::Tcp, 5000, mark, ack, hello});
    seconds(3600);
    drivers[0]->count_received();
    send_from_outside({far, router_outside, Transport::Tcp, mark, outside, ack, hello});
    EXPECT_TRUE(in(0));
}

TEST_F(NatTest, ConnectionsGoOnAfterADeath) {
    add_guest(), add_guest();
    forward(Transport::Tcp, 8080, 1, 80);
    start_routed();
    send(0, udp(0));
    u16 const port = out()->source;
    send_from_outside({far, router_outside, Transport::Tcp, 4000, 8080, syn});
    EXPECT_TRUE(in(1));
    start_instance();
    send_from_outside({far, router_outside, Transport::Udp, mark, port, 0, hello});
    EXPECT_TRUE(in(0));
    send_from_outside({far, router_outside, Transport::Tcp, 4000, 8080, ack, hello});
    EXPECT_TRUE(in(1));
    know_gateway();
    send(0, udp(0));
    EXPECT_EQ(out()->source, port);
    EXPECT_EQ(world.instance->connections().count(0), 3U);
}

TEST_F(NatTest, WhatTheLastInstanceRuinedIsForgotten) {
    add_guest(), add_guest();
    start_routed();
    send(0, udp(0));
    send(0, udp(0, 5001));
    auto& records = world.routing->connections;
    records[0][0].router_port = records[0][1].router_port; // two ports at one
    records[0][2].inside = far;
    records[1][0] = records[0][1]; // another guest's
    records[1][1].state = static_cast<service::ConnectionState>(77);
    start_instance();
    EXPECT_EQ(world.instance->connections().count_of_device(0), 1U);
    EXPECT_EQ(world.instance->connections().count_of_device(1), 0U);
}

TEST_F(NatTest, WhatCannotBeRoutedIsDroppedAndCounted) {
    add_guest();
    start_routed();
    auto const expect = [&](RouterDrop reason, Bytes const& frame) {
        u64 const before = dropped(reason);
        drivers[0]->send(frame);
        world.run();
        EXPECT_EQ(dropped(reason), before + 1) << static_cast<u32>(reason);
        EXPECT_TRUE(device.sent.empty());
    };
    auto const packet = [&](PacketFields const& fields) { return make_packet(router_mac, mac_of(0), fields); };
    PacketFields other = udp(0);
    other.source = address_of(1);
    expect(RouterDrop::Spoofed, packet(other));
    expect(RouterDrop::NoRoute, packet(udp(0, 5000, address_of(5))));
    expect(RouterDrop::NoRoute, packet(udp(0, 5000, ip(224, 0, 0, 1))));
    expect(RouterDrop::NoRoute, packet(udp(0, 5000, router_outside)));
    expect(RouterDrop::Unknown, packet({address_of(0), far, Transport::Tcp, 5000, mark, ack}));
    Bytes fragment = packet(udp(0));
    network::ChecksumChange change;
    change.store16(fragment.data() + 20, 0x2000);
    change.apply(fragment.data() + 24);
    expect(RouterDrop::Fragment, fragment);
    Bytes damaged = packet(udp(0));
    damaged[16]++;
    expect(RouterDrop::Malformed, damaged);
    drivers[0]->count_received(); // ICMP tells it of some
}

TEST_F(NatTest, AGuestIsToldThatItsPacketExpiredOrFoundNoRoute) {
    add_guest();
    start_instance(); // there is no DHCP server outside
    drivers[0]->count_received();
    send(0, udp(0));
    auto const unreachable = in(0);
    ASSERT_TRUE(unreachable);
    EXPECT_EQ(unreachable->payload[0], network::icmp_unreachable);
    EXPECT_EQ(unreachable->ip.source, router_inside);
    EXPECT_EQ(dropped(RouterDrop::NoRoute), 1U);
    PacketFields old = udp(0);
    old.ttl = 1;
    send(0, old);
    EXPECT_EQ(in(0)->payload[0], network::icmp_time_exceeded);
    EXPECT_EQ(dropped(RouterDrop::Expired), 1U);
}

TEST_F(NatTest, AnErrorFromOutsideReachesTheGuestThatItIsAbout) {
    add_guest();
    start_routed();
    for (Transport const protocol : {Transport::Udp, Transport::Icmp}) {
        bool const is_icmp = protocol == Transport::Icmp;
        send(0, {address_of(0), far, protocol, 5000, mark, is_icmp ? network::icmp_echo : u8{0}, hello});
        ASSERT_EQ(device.sent.size(), 1U);
        Bytes const went = device.sent[0];
        u16 const from = is_icmp ? network::load_big16(went.data() + 38) : network::load_big16(went.data() + 34);
        device.sent.clear();
        Bytes const about(went.begin() + 14, went.begin() + 14 + 28);
        send_from_outside(
            {ip(203, 0, 113, 1), router_outside, Transport::Icmp, 0, 0, network::icmp_unreachable, about});
        auto const came = in(0);
        ASSERT_TRUE(came);
        EXPECT_EQ(came->ip.source, ip(203, 0, 113, 1));
        EXPECT_EQ(came->ip.destination, address_of(0));
        auto const inner = network::read_ipv4(came->data, true);
        ASSERT_TRUE(inner);
        EXPECT_EQ(inner->source, address_of(0));
        EXPECT_EQ(network::load_big16(came->data.data() + 20 + (is_icmp ? 4 : 0)), 5000);
        EXPECT_EQ(network::sum_of(std::span(came->data).first(20)), 0);
        Bytes other = about;
        network::store_big16(other.data() + 20 + (is_icmp ? 4 : 0), from ^ 1U);
        send_from_outside({far, router_outside, Transport::Icmp, 0, 0, network::icmp_unreachable, other});
        EXPECT_FALSE(in(0));
    }
}

TEST_F(NatTest, AnErrorOfAGuestGoesOutInTheRoutersName) {
    add_guest();
    start_routed();
    send(0, udp(0));
    u16 const port = out()->source;
    send_from_outside({far, router_outside, Transport::Udp, mark, port, 0, hello});
    auto const received = drivers[0]->next();
    ASSERT_TRUE(received);
    Bytes const about(received->bytes.begin() + 14, received->bytes.begin() + 14 + 28);
    send(0, {address_of(0), far, Transport::Icmp, 0, 0, network::icmp_unreachable, about});
    auto const went = out();
    ASSERT_TRUE(went);
    EXPECT_EQ(went->ip.source, router_outside);
    auto const inner = network::read_ipv4(went->data, true);
    EXPECT_EQ(inner->destination, router_outside);
    EXPECT_EQ(network::load_big16(went->data.data() + 22), port);
}

TEST_F(NatTest, NamesAreAskedInTheRoutersName) {
    add_guest();
    start_routed();
    send(0, udp(0, 5000, router_inside, 53));
    auto const asked = out();
    ASSERT_FALSE(asked) << "the server is in the outside network, and its MAC is asked first";
    answer_arp(name_server, outside_station);
    auto const went = out();
    ASSERT_TRUE(went);
    EXPECT_EQ(went->ip.source, router_outside);
    EXPECT_EQ(went->ip.destination, name_server);
    EXPECT_EQ(went->destination, 53);
    send_from_outside({name_server, router_outside, Transport::Udp, 53, went->source, 0, hello});
    auto const came = in(0);
    ASSERT_TRUE(came);
    EXPECT_EQ(came->ip.source, router_inside);
    EXPECT_EQ(came->source, 53);
    EXPECT_EQ(came->destination, 5000);
    send_from_outside({far, router_outside, Transport::Udp, 53, went->source, 0, hello});
    EXPECT_FALSE(in(0)) << "a forged answer";
}

TEST_F(NatTest, TheRouterAnswersPingOnBothSides) {
    add_guest();
    start_routed();
    send(0, {address_of(0), router_inside, Transport::Icmp, 7, 0, network::icmp_echo, hello});
    auto const inside = in(0);
    ASSERT_TRUE(inside);
    EXPECT_EQ(inside->ip.source, router_inside);
    EXPECT_EQ(inside->payload[0], network::icmp_echo_reply);
    EXPECT_EQ(inside->data, hello);
    send_from_outside({far, router_outside, Transport::Icmp, 7, 0, network::icmp_echo, hello});
    EXPECT_EQ(out()->payload[0], network::icmp_echo_reply);
}

TEST_F(NatTest, OtherFramesDoNotLeaveTheNetwork) {
    add_guest(), add_guest();
    start_routed();
    drivers[0]->send(make_frame(broadcast, mac_of(0), 60, 1, 0x86dd));
    drivers[0]->send(make_frame(mac_of(1), mac_of(0)));
    drivers[0]->send(make_frame(outside_station, mac_of(0)));
    world.run();
    EXPECT_EQ(drivers[1]->count_received(), 3U);
    EXPECT_TRUE(device.sent.empty());
    come(make_frame(broadcast, outside_station, 60, 1, 0x86dd));
    come(make_frame(mac_of(0), outside_station));
    EXPECT_FALSE(drivers[0]->next());
}
