// SPDX-License-Identifier: MIT
#include "e1000_world.hpp"

namespace net_test {

namespace {

class E1000Frames : public E1000Kinds {};
INSTANTIATE_TEST_SUITE_P(Kinds, E1000Frames, testing::Values(0, 1, 2, 3));

} // namespace

TEST_P(E1000Frames, FramesAreReceivedInOrderWithTheirContents) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    std::vector<Bytes> expected;
    for (u32 i = 0; i < 1000; i++) {
        expected.push_back(frame_of(60 + i * 37 % 1459, i));
        world.fake.incoming.push_back({.bytes = expected.back()});
        if (i % 7 == 6) ASSERT_TRUE(world.run([&] { return world.received.size() == expected.size(); }, 100));
    }
    ASSERT_TRUE(world.run([&] { return world.received.size() == expected.size(); }, 100));
    EXPECT_EQ(world.received, expected);
    EXPECT_EQ(world.fake.missed, 0U);
    EXPECT_EQ(world.driver.statistics().received, 1000U);
}

TEST_P(E1000Frames, AFullRingLosesFramesAndReceivesAgainAfterIt) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    for (u32 i = 0; i < 200; i++)
        world.fake.incoming.push_back({.bytes = frame_of(64, i)});
    ASSERT_TRUE(world.run([&] { return world.fake.incoming.empty() && world.received.size() == 127; }, 100));
    EXPECT_EQ(world.fake.missed, 73U);
    world.fake.incoming.push_back({.bytes = frame_of(1518, 9)});
    ASSERT_TRUE(world.run([&] { return world.received.size() == 128; }, 100));
    EXPECT_EQ(world.received.back(), frame_of(1518, 9));
}

TEST_P(E1000Frames, FramesInRoomsAreSentInOrder) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    std::vector<Bytes> expected;
    for (u32 i = 0; i < 1000; i++) {
        expected.push_back(frame_of(60 + i * 37 % 1459, i));
        ASSERT_TRUE(world.send_room(expected.back())) << i;
        if (i % 11 != 10) continue;
        world.driver.ring();
        world.fake.step();
    }
    world.driver.ring();
    ASSERT_TRUE(world.run([&] { return world.fake.sent.size() == expected.size(); }, 100));
    EXPECT_EQ(world.fake.sent, expected);
    world.pass(1'500);
    EXPECT_EQ(world.driver.statistics().sent, 1000U);
}

TEST_P(E1000Frames, PiecesAreSentAndTheirTagsComeBackOnceInOrder) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    world.room = 3;
    std::vector<Bytes> expected;
    std::vector<u32> tags;
    for (u32 i = 0; i < 300; i++) {
        bool const is_room = i % 4 == 3;
        expected.push_back(frame_of(100 + i, i));
        ASSERT_TRUE(is_room ? world.send_room(expected.back())
                            : world.send_pieces(expected.back(), 5000 + i, 1 + i % 9, i % 64 * 2048));
        if (!is_room) tags.push_back(5000 + i);
        if (i % 5 != 4) continue;
        world.driver.ring();
        ASSERT_TRUE(world.run([&] { return world.ended.size() == tags.size(); }, 1'100));
    }
    EXPECT_EQ(world.ended, tags);
    EXPECT_EQ(world.fake.sent, expected);
}

TEST(E1000Sending, AShortFrameInARoomIsPaddedWithZeroes) {
    E1000World world;
    ASSERT_TRUE(world.start());
    for (u32 i = 0; i < 200; i++) { // fills the rooms with something else first
        world.send_room(frame_of(1518, i));
        world.driver.ring();
        world.fake.step();
    }
    world.fake.sent.clear();
    ASSERT_TRUE(world.send_room(frame_of(20, 3)));
    world.driver.ring();
    world.fake.step();
    Bytes expected = frame_of(20, 3);
    expected.resize(60);
    ASSERT_EQ(world.fake.sent.size(), 1U);
    EXPECT_EQ(world.fake.sent[0], expected);
}

TEST(E1000Sending, NoMoreIsTakenThanThereIsRoomFor) {
    E1000World world;
    ASSERT_TRUE(world.start());
    u32 rooms = 0;
    while (world.send_room(frame_of(64, rooms)))
        rooms++;
    EXPECT_EQ(rooms, net::E1000::room_count);
    world.driver.ring();
    world.fake.step();
    u32 frames = 0;
    while (world.send_pieces(frame_of(64, frames), frames, 4, frames * 64))
        frames++;
    EXPECT_EQ(frames, (net::E1000::transmit_count - 1) / 4);
    world.driver.ring();
    EXPECT_TRUE(world.run([&] { return world.ended.size() == frames; }, 100));
}

TEST(E1000Sending, PiecesThatMakeNoFrameAreRefused) {
    E1000World world;
    ASSERT_TRUE(world.start());
    EXPECT_FALSE(world.driver.transmit({}, 1, 0));
    std::array<Piece, 40> pieces;
    pieces.fill({ram_begin, 20});
    EXPECT_FALSE(world.driver.transmit(pieces, 1, 0));
    EXPECT_FALSE(world.driver.transmit(std::array{Piece{ram_begin, 16}}, 1, 0));
    EXPECT_FALSE(world.driver.transmit(std::array{Piece{ram_begin, 1519}}, 1, 0));
    EXPECT_FALSE(world.driver.transmit(std::array{Piece{ram_begin, 100}, Piece{ram_begin, 0}}, 1, 0));
    EXPECT_FALSE(world.driver.transmit(std::array{Piece{ram_begin, ~0U}, Piece{ram_begin, 100}}, 1, 0));
    EXPECT_EQ(world.driver.statistics().lost, 0U);
}

TEST(E1000Sending, RoomsNeedNoInterrupt) {
    E1000World world;
    ASSERT_TRUE(world.start());
    u32 const before = world.fake.interrupts;
    for (u32 i = 0; i < 50; i++) {
        ASSERT_TRUE(world.send_room(frame_of(64, i)));
        world.driver.ring();
        world.fake.step();
    }
    EXPECT_EQ(world.fake.interrupts, before);
}

TEST_P(E1000Frames, BadFramesAreDropped) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    for (u8 const error : std::array<u8, 5>{0x01, 0x02, 0x04, 0x10, 0x80})
        world.fake.incoming.push_back({.bytes = frame_of(64, 1), .errors = error});
    world.fake.incoming.push_back({.bytes = frame_of(64, 1), .is_split = true});
    world.fake.incoming.push_back({.bytes = frame_of(64, 1), .forged_length = 2049});
    world.fake.incoming.push_back({.bytes = frame_of(64, 1), .forged_length = 0xffff});
    world.fake.incoming.push_back({.bytes = frame_of(13, 1)});
    world.fake.incoming.push_back({.bytes = frame_of(64, 2), .errors = 0x60}); // checksums of IP and TCP
    ASSERT_TRUE(world.run([&] { return !world.received.empty(); }, 100));
    EXPECT_EQ(world.received, std::vector<Bytes>{frame_of(64, 2)});
    EXPECT_EQ(world.driver.statistics().bad, 10U);
}

TEST(E1000Receiving, FramesOfOneTurnAreGivenBackByOneWrite) {
    E1000World world;
    ASSERT_TRUE(world.start());
    for (u32 i = 0; i < 10; i++)
        world.fake.incoming.push_back({.bytes = frame_of(64, i)});
    world.fake.step();
    std::array<u32, 1> sent{};
    world.driver.poll(world.fake.now, world.fake.take_interrupt(), sent);
    u32 const before = world.fake.reg(0x2818);
    world.take_frames();
    EXPECT_EQ(world.fake.reg(0x2818), before);
    world.driver.ring();
    EXPECT_EQ(world.fake.reg(0x2818), (before + 10) % net::E1000::receive_count);
}

TEST_P(E1000Frames, ADeviceThatCallsEveryDescriptorDoneHoldsNobodyUp) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    for (u32 i = 0; i < net::E1000::receive_count; i++) {
        world.fake.shared_bytes()[i * 16 + 8] = 64;
        world.fake.shared_bytes()[i * 16 + 12] = 3;
    }
    world.takes_frames = false;
    u32 count = 0;
    while (!world.driver.next_frame().empty()) {
        ASSERT_LT(count++, net::E1000::receive_count);
        for (u32 i = 0; i < net::E1000::receive_count; i++)
            world.fake.shared_bytes()[i * 16 + 12] = 3;
    }
    EXPECT_EQ(count, net::E1000::receive_count - 1);
}

} // namespace net_test
