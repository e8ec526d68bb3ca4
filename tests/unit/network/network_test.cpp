// SPDX-License-Identifier: MIT
// Which frames arrive where, which are dropped, and what drivers hear of it.
#include "nics.hpp"

namespace {

using namespace network_test;

TEST_F(NetworkTest, FrameArrivesAsItWasSent) {
    Driver &a = add(), &b = add();
    start();
    Bytes const frame = make_frame(mac_of(1), mac_of(0), 100, 3);
    a.send(frame);
    world.run();
    auto const received = b.next();
    ASSERT_TRUE(received);
    EXPECT_EQ(received->bytes, frame);
    EXPECT_EQ(received->buffers, 1);
    EXPECT_EQ(received->offload.flags, 0);
    EXPECT_FALSE(b.next());
    ASSERT_TRUE(a.tx.has_used());
    auto const used = a.tx.next_used();
    EXPECT_EQ(used.id, 0U);
    EXPECT_EQ(used.written, 0U);
    EXPECT_FALSE(a.rx.has_used());
    EXPECT_EQ(world.statistics(0).sent_frames, 1U);
    EXPECT_EQ(world.statistics(0).sent_bytes, 100U);
    EXPECT_EQ(world.statistics(1).received_frames, 1U);
    EXPECT_EQ(world.statistics(1).received_bytes, 100U);
    EXPECT_EQ(world.interrupts[0][transmit], 1U);
    EXPECT_EQ(world.interrupts[1][receive], 1U);
    EXPECT_EQ(world.interrupts[0][receive] + world.interrupts[1][transmit], 0U);
}

TEST_F(NetworkTest, EverySizeOfAFrameArrives) {
    Driver &a = add(), &b = add();
    start();
    for (u32 size = 14; size <= 1514; size++) {
        b.add_buffers(1);
        Bytes const frame = make_frame(mac_of(1), mac_of(0), size, static_cast<u8>(size));
        a.send(frame);
        world.run();
        a.tx.next_used();
        ASSERT_NO_FATAL_FAILURE(expect_received(b, frame)) << size;
    }
}

TEST_F(NetworkTest, FramesArriveInTheirOrder) {
    Driver &a = add(), &b = add(0, all_offloads, 64);
    start();
    for (u32 i = 0; i < 200; i += 25) {
        for (u32 j = i; j < i + 25; j++)
            a.send(make_frame(mac_of(1), mac_of(0), 60 + j, static_cast<u8>(j)));
        world.run();
        for (u32 j = i; j < i + 25; j++) {
            ASSERT_NO_FATAL_FAILURE(expect_received(b, make_frame(mac_of(1), mac_of(0), 60 + j, static_cast<u8>(j))));
            EXPECT_EQ(a.tx.next_used().id, j % 64);
        }
        b.add_buffers(25);
    }
    EXPECT_EQ(world.interrupts[1][receive], 8U); // one for each batch
    EXPECT_EQ(world.interrupts[0][transmit], 8U);
}

TEST_F(NetworkTest, FrameCutAnywhereArrives) {
    Driver &a = add(), &b = add();
    start();
    Bytes const frame = make_frame(mac_of(1), mac_of(0), 90, 5);
    for (u32 first = 0; first < 50; first++)
        for (u32 second : {0U, 1U, 3U, 20U, 52U}) {
            b.add_buffers(1);
            u64 const at = Driver::transmit_at, elsewhere = at + 0x1000, end = at + 0x2000;
            u32 const size = a.put_frame(at, frame, {});
            a.guest.put_bytes(elsewhere, a.guest.get_bytes(at + first, second));
            a.guest.put_bytes(end, a.guest.get_bytes(at + first + second, size - first - second));
            a.tx.add({{at, first, false}, {elsewhere, second, false}, {end, size - first - second, false}});
            world.ring(0);
            world.run();
            a.tx.next_used();
            ASSERT_NO_FATAL_FAILURE(expect_received(b, frame)) << first << ' ' << second;
        }
    EXPECT_EQ(world.misuses[0], 0U);
}

TEST_F(NetworkTest, UnknownDestinationAndGroupsAreFlooded) {
    add(), add(), add();
    start();
    for (Mac const& to : {mac_of(9), broadcast, Mac{0x33, 0x33, 0, 0, 0, 1}}) {
        Bytes const frame = make_frame(to, mac_of(0));
        drivers[0]->send(frame);
        world.run();
        expect_received(*drivers[1], frame);
        expect_received(*drivers[2], frame);
        EXPECT_FALSE(drivers[0]->next());
    }
}

TEST_F(NetworkTest, KnownDestinationAloneGetsTheFrame) {
    add(), add(), add();
    start();
    learn_all();
    Bytes const frame = make_frame(mac_of(2), mac_of(0));
    drivers[0]->send(frame);
    world.run();
    expect_received(*drivers[2], frame);
    EXPECT_FALSE(drivers[1]->next());
    EXPECT_EQ(world.interrupts[1][receive], 0U);
}

TEST_F(NetworkTest, DestinationThatWasSilentForLongIsFloodedAgain) {
    add(), add(), add();
    start();
    learn_all();
    world.now += 300 * World::second + 1;
    drivers[0]->send(make_frame(mac_of(2), mac_of(0)));
    world.run();
    EXPECT_TRUE(drivers[1]->next());
    EXPECT_TRUE(drivers[2]->next());
}

TEST_F(NetworkTest, NetworksAreApart) {
    add(1), add(2), add(1), add(2);
    start();
    Bytes const frame = make_frame(broadcast, mac_of(0)), direct = make_frame(mac_of(1), mac_of(0));
    learn_all();
    drivers[0]->send(frame);
    drivers[0]->send(direct); // that NIC is known, but not here
    world.run();
    EXPECT_EQ(drivers[2]->count_received(), 2U);
    EXPECT_EQ(drivers[1]->count_received() + drivers[3]->count_received(), 0U);
}

TEST_F(NetworkTest, NicThatIsPluggedElsewhereIsInThatNetworkOnly) {
    add(1), add(1), add(2);
    start();
    learn_all();
    world.board->devices[1].network = 2;
    world.change_board();
    world.run();
    drivers[0]->send(make_frame(mac_of(1), mac_of(0)));
    drivers[2]->send(make_frame(broadcast, mac_of(2)));
    world.run();
    ASSERT_NO_FATAL_FAILURE(expect_received(*drivers[1], make_frame(broadcast, mac_of(2))));
    EXPECT_FALSE(drivers[1]->next());
}

TEST_F(NetworkTest, SourceThatIsNotTheNicsIsDropped) {
    Driver &a = add(), &b = add();
    start();
    for (Mac const& from : {mac_of(1), mac_of(7), broadcast, Mac{}})
        a.send(make_frame(broadcast, from));
    world.run();
    EXPECT_FALSE(b.next());
    EXPECT_EQ(world.dropped(0, Drop::Spoofed), 4U);
    EXPECT_EQ(world.statistics(0).sent_frames, 0U);
    EXPECT_EQ(a.tx.device_index(), 4);        // given back all the same
    b.send(make_frame(mac_of(0), mac_of(1))); // nobody learned that NIC 1 were elsewhere
    world.run();
    EXPECT_TRUE(a.next());
}

TEST_F(NetworkTest, FramesOfWrongSizeAreDropped) {
    Driver &a = add(), &b = add();
    start();
    for (std::size_t size = 0; size < 14; size++)
        a.send(make_frame(mac_of(1), mac_of(0), size));
    a.send(make_frame(mac_of(1), mac_of(0), 1515));
    a.send(make_frame(mac_of(1), mac_of(0), 1519, 0, 0x8100));
    world.run();
    EXPECT_EQ(world.dropped(0, Drop::BadSize), 16U);
    EXPECT_FALSE(b.next());
    a.send(make_frame(mac_of(1), mac_of(0), 1518, 0, 0x8100)); // with a VLAN tag
    world.run();
    EXPECT_TRUE(b.next());
    EXPECT_EQ(a.tx.device_index(), 17);
    EXPECT_EQ(world.misuses[0], 0U);
}

TEST_F(NetworkTest, FullReceiverLosesFramesAndStallsNobody) {
    Driver& a = add();
    Driver &slow = add(0, all_offloads, 3), &quick = add();
    start();
    for (u32 i = 0; i < 10; i++)
        a.send(make_frame(broadcast, mac_of(0)));
    world.run();
    EXPECT_EQ(a.tx.device_index(), 10);
    EXPECT_EQ(quick.count_received(), 10U);
    EXPECT_EQ(slow.count_received(), 3U);
    EXPECT_EQ(world.dropped(1, Drop::NoBuffer), 7U);
    slow.add_buffers(1); // without a doorbell
    a.send(make_frame(broadcast, mac_of(0)));
    world.run();
    EXPECT_EQ(slow.count_received(), 1U);
}

TEST_F(NetworkTest, ReceiverThatHasNotStartedLosesFrames) {
    Driver &a = add(), &b = add();
    b.rx.stop();
    start();
    a.send(make_frame(mac_of(1), mac_of(0)));
    world.run();
    EXPECT_EQ(world.dropped(1, Drop::NotReady), 1U);
    EXPECT_EQ(a.tx.device_index(), 1);
}

TEST_F(NetworkTest, EventIndexSaysForWhichFrameTheDriverWaits) {
    Driver &a = add(), &b = add(0, all_offloads, 32, Driver::usual_buffer, true);
    start();
    b.guest.put<u16>(b.rx.used_event(), 2); // for the third
    for (u32 i = 0; i < 5; i++) {
        a.send(make_frame(mac_of(1), mac_of(0)));
        world.run();
        EXPECT_EQ(world.interrupts[1][receive], i < 2 ? 0U : 1U);
    }
}

TEST_F(NetworkTest, DriverThatWantsNoInterruptGetsNone) {
    Driver &a = add(), &b = add();
    start();
    a.guest.put<u16>(a.tx.available(), 1); // NO_INTERRUPT
    b.guest.put<u16>(b.rx.available(), 1);
    a.send(make_frame(mac_of(1), mac_of(0)));
    world.run();
    EXPECT_TRUE(b.next());
    EXPECT_EQ(world.interrupts[0][transmit] + world.interrupts[1][receive], 0U);
}

TEST_F(NetworkTest, DoorbellIsAskedForFramesAndNotForBuffers) {
    Driver &a = add(0, all_offloads, 8, Driver::usual_buffer, true), &b = add();
    start();
    EXPECT_EQ(a.guest.get<u16>(a.tx.avail_event()), 0);
    EXPECT_EQ(a.guest.get<u16>(a.rx.avail_event()), 0xffff); // was passed before the first one
    EXPECT_EQ(b.guest.get<u16>(b.rx.used()), 1);             // NO_NOTIFY
    EXPECT_EQ(b.guest.get<u16>(b.tx.used()), 0);
    for (u32 i = 0; i < 5; i++)
        a.send(make_frame(mac_of(1), mac_of(0)));
    world.run();
    EXPECT_EQ(a.guest.get<u16>(a.tx.avail_event()), 5);
}

TEST_F(NetworkTest, FrameOfADriverThatSawNoNeedToRingIsSent) {
    Driver &a = add(0, all_offloads, 8, Driver::usual_buffer, true), &b = add(0, all_offloads, 64);
    start();
    for (u32 i = 0; i < 40; i++)
        a.send(make_frame(mac_of(1), mac_of(0), 1514));
    world.turn();
    ASSERT_TRUE(world.has_more); // the NIC's turn has ended
    EXPECT_EQ(a.guest.get<u16>(a.tx.avail_event()), 0);
    a.send(make_frame(mac_of(1), mac_of(0)));
    world.events = 0; // without a doorbell
    world.run();
    EXPECT_EQ(b.count_received(), 41U);
}

TEST_F(NetworkTest, EndlessSenderDoesNotHoldUpAnother) {
    Driver &flood = add(), &other = add(), &sink = add(0, all_offloads, 64);
    start();
    learn_all();
    u32 const before = flood.tx.available_index;
    for (u32 i = 0; i < 64; i++)
        flood.send(make_frame(mac_of(9), mac_of(0), 1514));
    other.send(make_frame(mac_of(2), mac_of(1)));
    world.turn();
    EXPECT_TRUE(world.has_more);
    EXPECT_LT(flood.tx.device_index(), before + 64);
    EXPECT_EQ(other.tx.device_index(), 2); // with the one of learn_all()
    EXPECT_EQ(world.statistics(1).sent_frames, 2U);
    (void)sink;
}

TEST_F(NetworkTest, TurnOfSixteenFloodingNicsIsBounded) {
    for (u32 i = 0; i < 16; i++)
        add(0, all_offloads, 64);
    start();
    for (auto const& driver : drivers)
        for (u32 i = 0; i < 64; i++)
            driver->send(make_frame(broadcast, mac_of(driver->device), 1514));
    u64 copies = 0;
    world.turn();
    for (u32 i = 0; i < 16; i++)
        copies += world.statistics(i).received_frames + world.dropped(i, Drop::NoBuffer);
    // The last frame of each of the four NICs that came to their turn may go beyond.
    EXPECT_LE(copies, network::Network::turn_budget / network::Network::frame_cost + 4 * 15);
    EXPECT_GT(copies, 100U);
    world.run();
    for (auto const& driver : drivers)
        EXPECT_EQ(driver->tx.device_index(), 64);
}

TEST_F(NetworkTest, IndicesWrapAround) {
    Driver &a = add(), &b = add(0, all_offloads, 64);
    start();
    for (u32 i = 0; i < 70'000; i += 50) {
        for (u32 j = 0; j < 50; j++)
            a.send(make_frame(mac_of(1), mac_of(0), 60, static_cast<u8>(j)));
        world.run();
        for (u32 j = 0; j < 50; j++)
            a.tx.next_used();
        ASSERT_EQ(b.count_received(), 50U);
        ASSERT_FALSE(a.tx.has_used());
        b.add_buffers(50);
    }
    EXPECT_EQ(world.misuses[0] + world.misuses[1], 0U);
}

TEST_F(NetworkTest, StopIsAnsweredInTheSameTurn) {
    Driver &a = add(), &b = add();
    start();
    a.send(make_frame(mac_of(1), mac_of(0)));
    a.rx.stop();
    a.tx.stop();
    world.board->devices[0].stops = 3;
    world.turn();
    EXPECT_EQ(world.answers[0], std::vector<u32>{3});
    EXPECT_FALSE(b.next());
    world.start(); // the next instance does not know that it was answered
    world.run();
    EXPECT_EQ(world.answers[0], (std::vector<u32>{3, 3}));
    a.start();
    a.send(make_frame(mac_of(1), mac_of(0)));
    world.run();
    EXPECT_TRUE(b.next());
    EXPECT_EQ(world.answers[0].size(), 2U);
}

TEST_F(NetworkTest, NicThatIsGoneIsTouchedNoMore) {
    Driver &a = add(), &b = add();
    start();
    learn_all();
    service::DeviceEntry const entry = std::exchange(world.board->devices[1], service::DeviceEntry{});
    a.send(make_frame(mac_of(1), mac_of(0)));
    b.send(make_frame(mac_of(0), mac_of(1)));
    world.change_board();
    world.run();
    EXPECT_EQ(b.rx.device_index(), 0);
    EXPECT_EQ(a.rx.device_index(), 0);
    world.board->devices[1] = entry; // it comes back
    world.change_board();
    world.run();
    EXPECT_TRUE(a.next());
    EXPECT_EQ(world.misuses[1], 0U);
}

} // namespace
