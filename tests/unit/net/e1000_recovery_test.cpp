// SPDX-License-Identifier: MIT
#include "e1000_world.hpp"

namespace net_test {

namespace {

class E1000Recovery : public E1000Kinds {};
INSTANTIATE_TEST_SUITE_P(Kinds, E1000Recovery, testing::Values(0, 1, 2, 3));

} // namespace

TEST_P(E1000Recovery, ADeviceThatHangsIsResetAndTagsComeBack) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    world.fake.hangs = true;
    ASSERT_TRUE(world.send_pieces(frame_of(100, 1), 77, 2, 0));
    ASSERT_TRUE(world.send_room(frame_of(100, 2)));
    world.driver.ring();
    ASSERT_TRUE(world.run([&] { return world.fake.resets == 2; }, 2'100));
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.ended, std::vector<u32>{77});
    EXPECT_TRUE(world.has_logged("it hangs; it is reset"));
    EXPECT_EQ(world.driver.statistics().lost, 2U);
    EXPECT_EQ(world.driver.statistics().resets, 1U);
    ASSERT_TRUE(world.send_room(frame_of(100, 3)));
    world.driver.ring();
    world.fake.incoming.push_back({.bytes = frame_of(90, 4)});
    ASSERT_TRUE(world.run([&] { return world.received.size() == 1; }, 100));
    EXPECT_EQ(world.fake.sent.back(), frame_of(100, 3));
}

TEST_P(E1000Recovery, TooManyResetsInARowAreItsEnd) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    for (u32 i = 0; i < 10 && world.driver.state() != State::Failed; i++) {
        ASSERT_TRUE(world.run([&] { return world.driver.state() == State::Ready && world.driver.has_link(); }));
        world.fake.hangs = true;
        ASSERT_TRUE(world.send_pieces(frame_of(100, i), i, 1, 0));
        world.driver.ring();
        ASSERT_TRUE(world.run([&] { return world.ended.size() == i + 1; }, 3'000));
    }
    EXPECT_EQ(world.driver.failure(), "has been reset too often without sending a frame");
    EXPECT_EQ(world.driver.statistics().resets, net::E1000::most_resets);
}

TEST(E1000Link, ADeviceThatIsPausedByTheOtherSideIsResetAndNeverFails) {
    E1000World world;
    ASSERT_TRUE(world.start());
    world.fake.is_paused = true;
    for (u32 i = 0; i < 8; i++) {
        ASSERT_TRUE(world.start());
        ASSERT_TRUE(world.send_pieces(frame_of(100, i), i, 1, 0));
        world.driver.ring();
        ASSERT_TRUE(world.run([&] { return world.ended.size() == i + 1; }, 3'000));
    }
    EXPECT_NE(world.driver.state(), State::Failed);
    EXPECT_LE(world.fake.lines.size(), 12U);
}

TEST_P(E1000Recovery, AChangeOfTheLinkIsNoticed) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    world.fake.set_link(false);
    ASSERT_TRUE(world.run([&] { return !world.driver.has_link(); }, uses_interrupts() ? 1 : 1'100));
    EXPECT_TRUE(world.has_logged("the link is down"));
    EXPECT_TRUE(world.driver.frame_room().empty());
    EXPECT_FALSE(world.send_pieces(frame_of(100, 1), 1, 1, 0));
    world.fake.set_link(true);
    ASSERT_TRUE(world.run([&] { return world.driver.has_link(); }, uses_interrupts() ? 1 : 1'100));
    EXPECT_TRUE(world.send_room(frame_of(100, 1)));
    EXPECT_EQ(world.fake.resets, 1U);
}

TEST(E1000Link, FramesThatWaitForALinkAreGivenUp) {
    E1000World world;
    ASSERT_TRUE(world.start());
    world.fake.set_link(false);
    ASSERT_TRUE(world.send_pieces(frame_of(100, 1), 9, 1, 0));
    world.driver.ring();
    EXPECT_TRUE(world.run([&] { return world.ended.size() == 1; }, 2'100));
    EXPECT_TRUE(world.has_logged("it could send nothing for too long"));
}

TEST(E1000Link, ALinkThatFlapsFillsNoLog) {
    E1000World world;
    ASSERT_TRUE(world.start());
    for (u32 i = 0; i < 100; i++) {
        world.fake.set_link(i % 2 == 1);
        ASSERT_TRUE(world.run([&] { return world.driver.has_link() == (i % 2 == 1); }, 10));
    }
    EXPECT_LE(world.fake.lines.size(), 6U);
    world.fake.incoming.push_back({.bytes = frame_of(90, 4)});
    EXPECT_TRUE(world.run([&] { return world.received.size() == 1; }, 100));
}

TEST(E1000Polled, IsCalledOftenWhileFramesComeAndSeldomOtherwise) {
    E1000World world({.chip = Chip::I82540}, false);
    ASSERT_TRUE(world.start());
    world.pass(100);
    u32 before = world.polls;
    world.pass(1'000);
    EXPECT_LE(world.polls - before, 510U);
    before = world.polls;
    for (u32 i = 0; i < 100; i++) {
        world.fake.incoming.push_back({.bytes = frame_of(90, i)});
        ASSERT_TRUE(world.run([&] { return world.received.size() == i + 1; }, i == 0 ? 3 : 1));
    }
    EXPECT_GE(world.polls - before, 100U);
}

TEST(E1000Polled, IsCalledSoonAfterAFrameWasSent) {
    E1000World world({.chip = Chip::I82540}, false);
    ASSERT_TRUE(world.start());
    world.pass(100);
    ASSERT_TRUE(world.send_room(frame_of(90, 1)));
    EXPECT_LE(world.driver.deadline(), world.fake.now + 200);
}

TEST(E1000Interrupts, OneThatSendsMessagesIsCalledOnceASecondOnly) {
    E1000World world;
    ASSERT_TRUE(world.start());
    u32 const before = world.polls;
    world.pass(10'000);
    EXPECT_LE(world.polls - before, 11U);
}

TEST_P(E1000Recovery, TheNextInstanceStartsFromWhateverTheLastOneLeft) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.send_room(frame_of(90, 1)));
    world.fake.set_bus_master(false); // ring 0 does that
    net::E1000 next(world.fake, uses_interrupts());
    std::array<u32, 4> sent{};
    for (u32 i = 0; i < 1000 && next.state() == State::Starting; i++) {
        world.fake.now = std::max(world.fake.now + 1, next.deadline());
        next.poll(world.fake.now, false, sent);
    }
    EXPECT_EQ(next.state(), State::Ready);
    EXPECT_TRUE(next.has_link());
}

} // namespace net_test
