// SPDX-License-Identifier: MIT
// What becomes of commands when an NVMe controller misbehaves: each ends exactly once, and a reset brings it back.
#include "nvme_world.hpp"

namespace {

using namespace block_test;

constexpr u64 io_limit = u64{block::Nvme::io_seconds} * 1000 * ticks_per_millisecond;

struct NvmeFaults : testing::Test {
    NvmeWorld world;

    void SetUp() override { ASSERT_TRUE(world.run_until(State::Ready)); }
    void submit(u32 count) {
        for (u32 i = 0; i < count; i++)
            ASSERT_TRUE(world.submit_page(i % 2 == 0 ? Operation::Write : Operation::Read, i));
        world.driver.ring();
    }
    // It has been reset once since, and works.
    void expect_recovery(u32 starts = 2) {
        ASSERT_TRUE(world.run_until(State::Ready));
        EXPECT_EQ(world.fake.starts, starts);
        ASSERT_EQ(world.driver.disks().size(), 1U);
        world.ends.clear();
        submit(20);
        ASSERT_TRUE(world.drain());
        EXPECT_EQ(world.good(), 20U);
        EXPECT_EQ(world.driver.deadline(), Controller::never);
    }
};

TEST_F(NvmeFaults, LostCommandTimesOut) {
    world.fake.lost = 1;
    u64 const begin = world.fake.now;
    submit(10);
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.ends.size(), 10U);
    EXPECT_EQ(world.failed(), 1U);
    EXPECT_GE(world.ends.back().at, begin + io_limit);
    EXPECT_LE(world.ends.back().at, begin + io_limit + ticks_per_millisecond);
    EXPECT_TRUE(world.has_logged("a command took too long; it is reset"));
    expect_recovery();
}

TEST_F(NvmeFaults, CommandsUnderWayAtAResetFailAtOnce) {
    world.fake.holds_back = true;
    submit(63);
    EXPECT_FALSE(world.submit_page(Operation::Read, 0));
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.failed(), 63U);
    EXPECT_EQ(world.driver.state(), State::Starting);
    EXPECT_FALSE(world.fake.is_bus_master());
    EXPECT_FALSE(world.submit_page(Operation::Read, 0));
    world.fake.holds_back = false;
    expect_recovery();
}

TEST_F(NvmeFaults, DisksStayDuringARecovery) {
    world.fake.holds_back = true;
    submit(1);
    ASSERT_TRUE(world.drain());
    world.fake.holds_back = false;
    while (world.driver.state() == State::Starting) {
        ASSERT_EQ(world.driver.disks().size(), 1U);
        EXPECT_EQ(world.driver.disks()[0].sectors, 2048U);
        world.turn();
        world.fake.now = std::max(world.fake.now + 1, std::min(world.driver.deadline(), world.fake.now + 1000));
    }
    expect_recovery();
}

// A command for the disk of before would otherwise reach another one.
TEST_F(NvmeFaults, OtherDisksAfterAResetAreAFailure) {
    world.fake.holds_back = true;
    submit(3);
    ASSERT_TRUE(world.drain());
    world.fake.setup.namespaces[0].sectors = 1000;
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "has other disks after a reset");
    ASSERT_EQ(world.driver.disks().size(), 1U);
    EXPECT_EQ(world.driver.disks()[0].sectors, 2048U);
}

TEST(NvmeFaultsOfNamespaces, DiskThatAResetHidesIsAFailure) {
    NvmeWorld world({.namespaces = {{.id = 1}, {.id = 2}}});
    ASSERT_TRUE(world.run_until(State::Ready));
    world.fake.lost = 1;
    ASSERT_TRUE(world.submit(Operation::Flush, 1, 0, {}));
    world.driver.ring();
    ASSERT_TRUE(world.drain());
    world.fake.setup.namespaces[0].is_refused = true;
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "has other disks after a reset");
    EXPECT_EQ(world.driver.disks().size(), 2U);
}

TEST_F(NvmeFaults, LostCommandsEndThoughTheRoomIsSmall) {
    for (u32 const room : {1U, 2U, 5U}) {
        world.ends.clear();
        world.fake.holds_back = true;
        submit(63);
        world.room = room;
        // One poll per deadline, though each says that there is more.
        world.run([&] { return world.driver.state() != State::Ready; });
        world.fake.holds_back = false;
        while (world.driver.state() != State::Ready || !world.fake.live.empty()) {
            world.fake.step();
            world.poll();
            world.fake.now += ticks_per_millisecond;
            if (world.driver.state() == State::Ready && world.submit_page(Operation::Read, 1)) break;
            ASSERT_LT(world.polls, 5000U);
        }
        EXPECT_EQ(world.ends.size(), 63U);
        world.room = 64;
        world.driver.ring();
        ASSERT_TRUE(world.drain());
        expect_recovery(world.fake.starts);
    }
}

TEST_F(NvmeFaults, EndsThatArrivedBeforeTheLimitCountThoughTheRoomIsSmall) {
    world.fake.eager = true;
    submit(40);
    world.fake.step();
    world.room = 1;
    world.fake.now += io_limit + 5;
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.good(), 40U);
    EXPECT_EQ(world.fake.starts, 1U);
}

TEST_F(NvmeFaults, EndOfAnUnknownCommandIsAReset) {
    world.fake.wrong_ids = 1;
    submit(12);
    ASSERT_TRUE(world.drain(1000));
    EXPECT_EQ(world.ends.size(), 12U);
    EXPECT_GE(world.failed(), 1U);
    EXPECT_TRUE(world.has_logged("it ended a command that nobody gave it; it is reset"));
    expect_recovery();
}

TEST_F(NvmeFaults, SecondEndOfACommandIsAReset) {
    world.fake.doubled = 1;
    submit(12);
    ASSERT_TRUE(world.drain(1000));
    EXPECT_EQ(world.ends.size(), 12U);
    EXPECT_TRUE(world.has_logged("it ended a command that nobody gave it; it is reset"));
    expect_recovery();
}

TEST_F(NvmeFaults, FatalErrorEndsCommandsWithinASecond) {
    world.fake.fatal = true;
    u64 const begin = world.fake.now;
    submit(12);
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.failed(), 12U);
    EXPECT_LE(world.fake.now, begin + 1001 * ticks_per_millisecond);
    EXPECT_TRUE(world.has_logged("it reports a fatal error; it is reset"));
    expect_recovery();
}

TEST_F(NvmeFaults, CommandThatTakesLongIsNotDisturbedByLooks) {
    world.fake.holds_back = true;
    submit(3);
    ASSERT_FALSE(world.drain(29'000));
    world.fake.holds_back = false;
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.good(), 3U);
    EXPECT_EQ(world.fake.starts, 1U);
}

TEST_F(NvmeFaults, RingAfterAResetIsSilent) {
    world.fake.holds_back = true;
    submit(1);
    world.fake.now += io_limit;
    ASSERT_TRUE(world.submit_page(Operation::Read, 1)); // which the device does not hear of
    ASSERT_EQ(world.poll(), 2U);
    EXPECT_EQ(world.failed(), 2U);
    world.driver.ring();
    world.fake.holds_back = false;
    expect_recovery();
}

TEST_F(NvmeFaults, DeviceThatGoesAwayFails) {
    submit(12);
    world.fake.gone = true;
    u64 const begin = world.fake.now;
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.failed(), 12U);
    EXPECT_LE(world.fake.now, begin + 1001 * ticks_per_millisecond);
    EXPECT_EQ(world.driver.state(), State::Failed);
    EXPECT_EQ(world.driver.failure(), "is gone");
    EXPECT_EQ(world.driver.deadline(), Controller::never);
    EXPECT_EQ(world.driver.disks().size(), 1U);
}

TEST_F(NvmeFaults, ControllerThatDoesNotStopAnyMoreFails) {
    submit(12);
    world.fake.holds_back = world.fake.setup.never_stops = true;
    ASSERT_TRUE(world.drain());
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "does not stop");
}

// Also: nothing is left to do after the last commands have ended.
TEST_F(NvmeFaults, TooManyResetsAreAFailure) {
    world.fake.holds_back = true;
    for (u32 i = 1; i <= block::Nvme::most_resets + 1; i++) {
        submit(5);
        ASSERT_TRUE(world.drain());
        EXPECT_EQ(world.failed(), i * 5);
        ASSERT_TRUE(world.run([&] { return world.driver.state() != State::Starting; }));
    }
    EXPECT_EQ(world.driver.state(), State::Failed);
    EXPECT_EQ(world.driver.failure(), "has been reset too often without a command that succeeded");
    EXPECT_EQ(world.driver.deadline(), Controller::never);
}

TEST_F(NvmeFaults, FailureEndsCommandsThoughTheRoomIsSmall) {
    world.fake.holds_back = true;
    for (u32 i = 0; i <= block::Nvme::most_resets; i++) {
        submit(40);
        world.room = 1;
        ASSERT_TRUE(world.drain());
        world.room = 64;
        ASSERT_TRUE(world.run([&] { return world.driver.state() != State::Starting; }));
    }
    EXPECT_EQ(world.driver.state(), State::Failed);
    EXPECT_EQ(world.failed(), 40U * (block::Nvme::most_resets + 1));
    EXPECT_EQ(world.driver.deadline(), Controller::never);
}

TEST_F(NvmeFaults, CommandThatSucceedsClearsTheCountOfResets) {
    for (u32 i = 0; i < 3 * block::Nvme::most_resets; i++) {
        world.fake.holds_back = true;
        submit(5);
        ASSERT_TRUE(world.drain());
        world.fake.holds_back = false;
        expect_recovery(i + 2);
    }
}

TEST_F(NvmeFaults, FaultsInARecoveryAreTriedAgain) {
    world.fake.holds_back = true;
    submit(5);
    ASSERT_TRUE(world.drain());
    world.fake.holds_back = false;
    world.fake.lost_admin = 1;
    world.fake.wrong_admin_ids = 1;
    expect_recovery(4);
}

// An instance of the service that died leaves the controller with commands under way.
TEST(NvmeSuccessor, SecondDriverTakesTheControllerOver) {
    NvmeWorld world;
    ASSERT_TRUE(world.run_until(State::Ready));
    world.fake.holds_back = true;
    for (u32 i = 0; i < 30; i++)
        ASSERT_TRUE(world.submit_page(Operation::Write, i));
    world.driver.ring();
    for (u32 i = 0; i < 20; i++)
        world.turn();
    world.fake.set_bus_master(false);
    world.fake.holds_back = false;
    world.fake.live.clear();
    block::Nvme second(world.fake);
    std::array<block::Ended, 64> ended;
    for (u32 i = 0; i < 1000 && second.state() == State::Starting; i++) {
        world.fake.step();
        EXPECT_EQ(second.poll(world.fake.now, ended), 0U);
        world.fake.now += ticks_per_millisecond;
    }
    EXPECT_EQ(second.state(), State::Ready) << second.failure();
    EXPECT_EQ(world.fake.starts, 2U);
}

} // namespace
