// SPDX-License-Identifier: MIT
// Frames between guests and the outside, by a device that takes and gives frames as net::NetDevice says.
#include "outside.hpp"

using namespace network_test;

namespace {

constexpr Mac outside = outside_station;

struct UplinkTest : NetworkTest {
    Outside device;

    void start_with_uplink(u32 network = 0) {
        world.start();
        world.instance->add_uplink(0, device, network);
        world.run();
    }
    void come(Bytes const& frame) {
        device.incoming.push_back(frame);
        world.events |= service::event_controller(0);
    }
    network::Statistics const& counts() { return world.instance->uplink(0).statistics(); }
};

} // namespace

TEST_F(UplinkTest, UnknownAddressesAndGroupsGoOut) {
    add(), add();
    start_with_uplink();
    Bytes const unknown = make_frame(outside, mac_of(0)), group = make_frame(broadcast, mac_of(1), 1514, 3);
    drivers[0]->send(unknown);
    world.run();
    drivers[1]->send(group);
    world.run();
    EXPECT_EQ(device.sent, (std::vector<Bytes>{unknown, group}));
    expect_received(*drivers[1], unknown);
    expect_received(*drivers[0], group);
}

TEST_F(UplinkTest, WhatIsKnownToBeHereDoesNotGoOut) {
    add(), add();
    start_with_uplink();
    learn_all();
    device.sent.clear();
    drivers[0]->send(make_frame(mac_of(1), mac_of(0)));
    world.run();
    EXPECT_TRUE(device.sent.empty());
}

TEST_F(UplinkTest, WhatIsKnownToBeOutsideGoesNowhereElse) {
    add(), add();
    start_with_uplink();
    come(make_frame(mac_of(0), outside));
    world.run();
    EXPECT_EQ(drivers[0]->count_received(), 1U);
    drivers[1]->count_received();
    Bytes const answer = make_frame(outside, mac_of(0));
    drivers[0]->send(answer);
    world.run();
    EXPECT_EQ(device.sent, std::vector<Bytes>{answer});
    EXPECT_EQ(drivers[1]->count_received(), 0U);
}

TEST_F(UplinkTest, FramesFromOutsideReachTheNetworkOfTheUplinkOnly) {
    add(0), add(1);
    start_with_uplink(1);
    Bytes const frame = make_frame(broadcast, outside, 300, 9);
    come(frame);
    world.run();
    expect_received(*drivers[1], frame);
    EXPECT_EQ(drivers[0]->count_received(), 0U);
}

TEST_F(UplinkTest, NobodyOutsideCanUseTheAddressOfANicHere) {
    add(), add();
    start_with_uplink();
    learn_all();
    come(make_frame(broadcast, mac_of(1)));
    come(make_frame(broadcast, {0x01, 0, 0x5e, 0, 0, 1}));
    world.run();
    EXPECT_EQ(counts()[Drop::Spoofed], 2U);
    device.sent.clear();
    for (auto const& driver : drivers)
        driver->count_received();
    drivers[0]->send(make_frame(mac_of(1), mac_of(0)));
    world.run();
    EXPECT_EQ(drivers[1]->count_received(), 1U) << "the NIC still has its address";
    EXPECT_TRUE(device.sent.empty());
}

TEST_F(UplinkTest, AddressesThatNoSwitchPassesOnStayWhereTheyAre) {
    add();
    start_with_uplink();
    Mac const pause{0x01, 0x80, 0xc2, 0, 0, 1}, beyond{0x01, 0x80, 0xc2, 0, 0, 0x10};
    drivers[0]->send(make_frame(pause, mac_of(0)));
    drivers[0]->send(make_frame(beyond, mac_of(0)));
    come(make_frame({0x01, 0x80, 0xc2, 0, 0, 0x0e}, outside));
    world.run();
    EXPECT_EQ(device.sent, std::vector<Bytes>{make_frame(beyond, mac_of(0))});
    EXPECT_EQ(drivers[0]->count_received(), 0U);
}

TEST_F(UplinkTest, AChecksumThatTheSenderLeftOutIsThereOutside) {
    add();
    start_with_uplink();
    Bytes frame = make_frame(outside, mac_of(0), 101, 5);
    frame[50] = frame[51] = 0;
    drivers[0]->send(frame, {.flags = 1, .checksum_start = 34, .checksum_offset = 16});
    world.run();
    ASSERT_EQ(device.sent.size(), 1U);
    u32 sum = 0; // of everything from 34 on, with the checksum itself: all ones
    for (std::size_t i = 34; i < 101; i++)
        sum += i % 2 == 0 ? device.sent[0][i] * 256U : device.sent[0][i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    EXPECT_EQ(sum, 0xffffU);
    device.sent[0][50] = device.sent[0][51] = 0;
    EXPECT_EQ(device.sent[0], frame);
}

TEST_F(UplinkTest, FramesOfImpossibleSizesAreDropped) {
    add();
    start_with_uplink();
    for (std::size_t const size : std::array<std::size_t, 4>{13, 1515, 1600, 2048})
        come(make_frame(broadcast, outside, size));
    Bytes const tagged = make_frame(broadcast, outside, 1518, 1, 0x8100);
    come(tagged);
    world.run();
    EXPECT_EQ(counts()[Drop::BadSize], 4U);
    expect_received(*drivers[0], tagged);
}

TEST_F(UplinkTest, WithoutALinkOrRoomFramesAreLostAndGuestsGoOn) {
    add();
    start_with_uplink();
    device.is_up = false;
    drivers[0]->send(make_frame(broadcast, mac_of(0)));
    world.run();
    device.is_up = true;
    device.rooms_left = 1;
    drivers[0]->send(make_frame(broadcast, mac_of(0)));
    drivers[0]->send(make_frame(broadcast, mac_of(0)));
    world.run();
    EXPECT_EQ(counts()[Drop::NotReady], 1U);
    EXPECT_EQ(counts()[Drop::NoBuffer], 1U);
    EXPECT_EQ(device.sent.size(), 1U);
    EXPECT_EQ(drivers[0]->tx.device_index(), 3U);
}

TEST_F(UplinkTest, MoreFramesThanTheDeviceHasBuffersComeThrough) {
    add(0, all_offloads, 0);
    start_with_uplink();
    for (u32 i = 0; i < 1000; i++)
        come(make_frame(mac_of(0), outside));
    u32 const turns = world.run();
    EXPECT_TRUE(device.incoming.empty());
    EXPECT_EQ(counts().sent_frames, 1000U);
    EXPECT_GT(turns, 10U) << "a flood from outside does not keep the service from its events";
}

TEST_F(UplinkTest, TheDeviceIsCalledAtItsDeadlineAndAfterItsInterrupts) {
    add();
    start_with_uplink();
    EXPECT_EQ(device.polls, 1U);
    EXPECT_EQ(world.instance->deadline(), world.now + 500);
    world.turn();
    EXPECT_EQ(device.polls, 1U);
    world.now += 500;
    world.turn();
    EXPECT_EQ(device.polls, 2U);
    EXPECT_EQ(device.interrupts, 0U);
    world.events = service::event_controller(0);
    world.turn();
    EXPECT_EQ(device.interrupts, 1U);
}

TEST_F(UplinkTest, ADeviceThatFailedIsReportedOnce) {
    add();
    start_with_uplink();
    u32 const before = world.lines;
    device.now_state = net::NetDevice::State::Failed;
    for (u32 i = 0; i < 3; i++) {
        world.now += 500;
        world.turn();
    }
    EXPECT_EQ(world.lines, before + 1);
}

TEST_F(UplinkTest, TheStateOfTheLinkIsSaid) {
    add();
    start_with_uplink();
    EXPECT_EQ(counts().link, service::LinkState::Up);
    auto const state_after_poll = [&] {
        world.now = device.next_deadline;
        world.turn();
        return counts().link;
    };
    device.is_up = false;
    EXPECT_EQ(state_after_poll(), service::LinkState::Down);
    device.now_state = net::NetDevice::State::Starting;
    EXPECT_EQ(state_after_poll(), service::LinkState::Unknown);
    device.now_state = net::NetDevice::State::Failed;
    EXPECT_EQ(state_after_poll(), service::LinkState::Failed);
}

TEST_F(UplinkTest, TheNextInstanceGoesOnCounting) {
    add();
    start_with_uplink();
    come(make_frame(mac_of(0), outside, 100));
    world.run();
    start_with_uplink();
    come(make_frame(mac_of(0), outside, 100));
    world.run();
    EXPECT_EQ(counts().sent_frames, 2U);
    EXPECT_EQ(counts().sent_bytes, 200U);
    EXPECT_EQ(world.statistics(0).received_frames, 2U);
}

TEST_F(UplinkTest, WithoutAnUplinkNothingWaitsForATime) {
    add();
    start();
    EXPECT_EQ(world.instance->deadline(), service::no_deadline);
}
