// SPDX-License-Identifier: MIT
// Addresses: those that the router gives to guests, and the one that it gets outside. ARP on both sides.
#include "nat_world.hpp"

using namespace network_test;

namespace {

using Kind = network::DhcpMessage::Kind;
using network::DhcpMessage;

constexpr Ipv4Address server = ip(192, 0, 2, 3);

std::optional<DhcpMessage> read(Bytes const& frame) {
    auto const seen = read_packet(frame);
    if (!seen || seen->ip.protocol != 17 || (seen->destination != 67 && seen->destination != 68)) return std::nullopt;
    return network::read_dhcp(seen->data);
}

struct DhcpTest : NatTest {
    // Inside: what the router answers.
    std::optional<DhcpMessage> ask(u32 guest, Kind kind, Ipv4Address requested = 0, Ipv4Address of = 0,
                                   Ipv4Address client = 0, bool wants_broadcast = false) {
        DhcpMessage message{};
        message.kind = kind;
        message.transaction = 77;
        message.mac = number_of(mac_of(guest));
        message.requested = requested;
        message.server = of;
        message.client = client;
        message.wants_broadcast = wants_broadcast;
        auto made = network::make_dhcp(
            message, {network::ethernet_broadcast, number_of(mac_of(guest)), network::ipv4_broadcast, client});
        drivers[guest]->count_received(); // what others have asked of all
        drivers[guest]->send({made.bytes.begin(), made.bytes.end()});
        world.run();
        auto const received = drivers[guest]->next();
        frame = received ? received->bytes : Bytes{};
        return received ? read(frame) : std::nullopt;
    }
    // Outside: the last message of the router.
    std::optional<DhcpMessage> asked() {
        for (; !device.sent.empty(); device.sent.erase(device.sent.begin()))
            if (auto const message = read(device.sent.front())) {
                device.sent.erase(device.sent.begin());
                return message;
            }
        return std::nullopt;
    }
    void answer(DhcpMessage const& to, Kind kind, Ipv4Address your = router_outside, u32 lease = 1000) {
        DhcpMessage message{};
        message.is_reply = true;
        message.kind = kind;
        message.transaction = to.transaction;
        message.mac = number_of(uplink_mac);
        message.your = your;
        message.server = server;
        message.mask = lib::ipv4_mask(24);
        message.router = gateway;
        message.name_server = name_server;
        message.lease_seconds = lease;
        auto made = network::make_dhcp(
            message, {number_of(uplink_mac), number_of(outside_station), network::ipv4_broadcast, server});
        come({made.bytes.begin(), made.bytes.end()});
        seconds(0); // at the router's deadline
    }
    void get_address(u32 lease = 1000) {
        auto const discover = asked();
        ASSERT_TRUE(discover);
        EXPECT_EQ(discover->kind, Kind::Discover);
        answer(*discover, Kind::Offer, router_outside, lease);
        auto const request = asked();
        ASSERT_TRUE(request);
        EXPECT_EQ(request->kind, Kind::Request);
        EXPECT_EQ(request->requested, router_outside);
        EXPECT_EQ(request->server, server);
        answer(*request, Kind::Ack, router_outside, lease);
        EXPECT_EQ(said().address, router_outside);
    }

    Bytes frame;
};

} // namespace

TEST_F(DhcpTest, EachGuestGetsItsOwnAddressEachTime) {
    add_guest(), add_guest();
    start_routed();
    for (u32 round = 0; round < 3; round++)
        for (u32 guest = 0; guest < 2; guest++) {
            auto const offer = ask(guest, Kind::Discover);
            ASSERT_TRUE(offer);
            EXPECT_EQ(offer->kind, Kind::Offer);
            EXPECT_EQ(offer->your, address_of(guest));
            auto const bound = ask(guest, Kind::Request, address_of(guest), router_inside);
            ASSERT_TRUE(bound);
            EXPECT_EQ(bound->kind, Kind::Ack);
            EXPECT_EQ(bound->your, address_of(guest));
            EXPECT_EQ(bound->mask, lib::ipv4_mask(24));
            EXPECT_EQ(bound->router, router_inside);
            EXPECT_EQ(bound->name_server, router_inside);
            EXPECT_EQ(bound->server, router_inside);
            EXPECT_EQ(bound->lease_seconds, 3600U);
            EXPECT_EQ(bound->transaction, 77U);
        }
    EXPECT_EQ(said().leases, 3U);
}

TEST_F(DhcpTest, AnotherAddressIsRefusedAndARenewalAnswered) {
    add_guest();
    start_routed();
    EXPECT_EQ(ask(0, Kind::Request, address_of(1))->kind, Kind::Nak);
    EXPECT_EQ(ask(0, Kind::Request, 0, 0, address_of(0))->kind, Kind::Ack);
    EXPECT_FALSE(ask(0, Kind::Request, address_of(0), server)) << "it has chosen another server";
    EXPECT_EQ(ask(0, Kind::Inform, 0, 0, address_of(0))->your, 0U);
    EXPECT_FALSE(ask(0, Kind::Release, 0, router_inside, address_of(0)));
    EXPECT_FALSE(ask(0, Kind::Decline, address_of(0), router_inside));
    EXPECT_EQ(ask(0, Kind::Discover)->your, address_of(0));
    Mac const mac = mac_of(0);
    EXPECT_TRUE(std::equal(mac.begin(), mac.end(), frame.begin()));
    ask(0, Kind::Discover, 0, 0, 0, true);
    EXPECT_TRUE(std::equal(broadcast.begin(), broadcast.end(), frame.begin()));
}

TEST_F(DhcpTest, TheRouterGetsItsAddressAndUsesIt) {
    add_guest();
    start_instance();
    get_address();
    EXPECT_EQ(said().gateway, gateway);
    EXPECT_EQ(said().name_server, name_server);
    know_gateway();
    send(0, {address_of(0), far, Transport::Udp, 5000, 1234});
    EXPECT_EQ(out()->ip.source, router_outside);
}

TEST_F(DhcpTest, AServerThatNeverAnswersIsAskedAfterLongerAndLongerPauses) {
    add_guest();
    start_instance();
    EXPECT_TRUE(asked());
    u32 count = 0;
    std::vector<u64> at;
    for (u64 second = 1; second <= 600; second++) {
        seconds(1);
        if (auto const message = asked()) {
            EXPECT_EQ(message->kind, Kind::Discover);
            count++;
            at.push_back(second);
        }
    }
    ASSERT_GE(at.size(), 5U);
    EXPECT_LE(count, 14U);
    EXPECT_GE(at[0], 3U);
    EXPECT_GE(at[4] - at[3], 50U);
    EXPECT_EQ(said().address, 0U);
}

TEST_F(DhcpTest, ALeaseIsRenewedAndOneThatNobodyRenewsEnds) {
    add_guest();
    start_instance();
    get_address();
    seconds(499);
    EXPECT_FALSE(asked());
    seconds(2);
    auto const renewal = asked();
    ASSERT_TRUE(renewal);
    EXPECT_EQ(renewal->kind, Kind::Request);
    EXPECT_EQ(renewal->client, router_outside);
    answer(*renewal, Kind::Ack);
    seconds(499);
    EXPECT_FALSE(asked());
    for (u32 i = 0; i < 510; i++)
        seconds(1);
    EXPECT_EQ(said().address, 0U);
    Kind last = Kind::None;
    while (auto const message = asked())
        last = message->kind;
    EXPECT_EQ(last, Kind::Discover);
}

TEST_F(DhcpTest, TheNextInstanceGoesOnWithTheLease) {
    add_guest();
    start_instance();
    get_address();
    start_instance();
    EXPECT_EQ(said().address, router_outside);
    EXPECT_FALSE(asked());
    seconds(501);
    EXPECT_TRUE(asked());
}

TEST_F(DhcpTest, AnotherAddressOutsideEndsAllConnections) {
    add_guest();
    start_instance();
    get_address();
    know_gateway();
    send(0, {address_of(0), far, Transport::Udp, 5000, 1234});
    EXPECT_NE(world.instance->connections().count(0), 0U);
    seconds(501);
    answer(*asked(), Kind::Nak);
    EXPECT_EQ(said().address, 0U);
    EXPECT_EQ(world.instance->connections().count(0), 0U);
}

TEST_F(DhcpTest, AForeignAnswerIsIgnored) {
    add_guest();
    start_instance();
    auto discover = asked();
    ASSERT_TRUE(discover);
    discover->transaction++;
    answer(*discover, Kind::Offer);
    answer(*discover, Kind::Ack);
    EXPECT_FALSE(asked());
    EXPECT_EQ(said().address, 0U);
}

TEST_F(DhcpTest, AnAddressOfTheNetworkInsideIsNotUsed) {
    add_guest();
    start_instance();
    answer(*asked(), Kind::Offer, router_inside + 100);
    u32 const lines = world.lines;
    answer(*asked(), Kind::Ack, router_inside + 100);
    EXPECT_EQ(said().address, 0U);
    EXPECT_EQ(world.lines, lines + 1);
}

TEST_F(NatTest, ArpIsAnsweredForTheRoutersAddressesOnly) {
    add_guest();
    start_routed();
    auto const ask = [&](Ipv4Address sender, Ipv4Address target) {
        auto const made = network::make_arp({1, number_of(mac_of(0)), sender, target, 0}, network::ethernet_broadcast);
        drivers[0]->send({made.begin(), made.end()});
        world.run();
        auto const received = drivers[0]->next();
        return received ? network::read_arp(std::span(received->bytes).subspan(14)) : std::nullopt;
    };
    auto const answer = ask(address_of(0), router_inside);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->sender_mac, number_of(router_mac));
    EXPECT_EQ(answer->sender, router_inside);
    EXPECT_FALSE(ask(address_of(0), address_of(1)));
    EXPECT_FALSE(ask(address_of(1), router_inside)) << "in another's name";
    EXPECT_EQ(dropped(RouterDrop::Spoofed), 1U);
    auto const outside =
        network::make_arp({1, number_of(outside_station), near, router_outside, 0}, network::ethernet_broadcast);
    come({outside.begin(), outside.end()});
    ASSERT_EQ(device.sent.size(), 1U);
    EXPECT_EQ(network::read_arp(std::span(device.sent[0]).subspan(14))->sender_mac, number_of(uplink_mac));
}

TEST_F(NatTest, PacketsWaitForTheNextStationAndNobodyElseAnswersForIt) {
    add_guest();
    be_static();
    start_instance();
    for (u16 i = 0; i < 6; i++)
        send(0, {address_of(0), far, Transport::Udp, static_cast<u16>(5000 + i), 1234});
    ASSERT_EQ(device.sent.size(), 1U) << "one question";
    EXPECT_EQ(network::read_arp(std::span(device.sent[0]).subspan(14))->target, gateway);
    device.sent.clear();
    EXPECT_EQ(dropped(RouterDrop::Unresolved), 2U) << "four may wait";
    answer_arp(near, outside_station);
    EXPECT_TRUE(device.sent.empty());
    answer_arp(gateway, gateway_mac);
    EXPECT_EQ(device.sent.size(), 4U);
    for (Bytes const& frame : device.sent)
        EXPECT_EQ(read_packet(frame)->to, gateway_mac);
    seconds(20);
    answer_arp(gateway, outside_station);
    device.sent.clear();
    send(0, {address_of(0), far, Transport::Udp, 5000, 1234});
    EXPECT_EQ(out()->to, gateway_mac) << "nobody had asked again";
}
