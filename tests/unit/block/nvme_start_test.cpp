// SPDX-License-Identifier: MIT
// How the driver of NVMe controllers finds its disks, and what it does with controllers that do not start.
#include "nvme_world.hpp"

namespace {

using namespace block_test;

void expect_ready(NvmeWorld& world) {
    ASSERT_TRUE(world.run_until(State::Ready)) << world.driver.failure();
    EXPECT_EQ(world.driver.disks().size(), world.ids.size());
    EXPECT_EQ(world.driver.deadline(), Controller::never);
}

void expect_failure(NvmeSetup const& setup, std::string_view why) {
    NvmeWorld world(setup);
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), why);
    EXPECT_EQ(world.driver.deadline(), Controller::never);
    EXPECT_FALSE(world.driver.submit({Operation::Flush, 0, 1, 0, {}}, world.fake.now));
    u32 const before = world.polls;
    world.poll();
    EXPECT_EQ(world.polls, before + 1);
    EXPECT_EQ(world.driver.state(), State::Failed);
}

void expect_works(NvmeWorld& world) {
    for (u32 i = 0; i < 8; i++)
        ASSERT_TRUE(world.submit_page(i % 2 == 0 ? Operation::Write : Operation::Read, i));
    ASSERT_TRUE(world.submit(Operation::Flush, 0, 0, {}));
    world.driver.ring();
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.good(), 9U);
}

TEST(NvmeStart, PollsAtDeadlinesSuffice) {
    NvmeWorld world;
    world.has_interrupts = false;
    expect_ready(world);
    EXPECT_LT(world.polls, 100U);
    EXPECT_LT(world.fake.now, 100 * ticks_per_millisecond);
    expect_works(world);
}

TEST(NvmeStart, PollsBeforeTheDeadlineDoNoHarm) {
    NvmeWorld world;
    for (u32 i = 0; i < 10'000 && world.driver.state() == State::Starting; i++) {
        world.fake.step();
        world.poll();
        world.fake.now += 10;
    }
    expect_ready(world);
    expect_works(world);
}

TEST(NvmeStart, FactsOfDisksAreTheNamespaces) {
    NvmeWorld world({.namespaces = {{.id = 1, .sectors = 100},
                                    {.id = 4, .sectors = 50, .exponent = 12},
                                    {.id = 9, .sectors = 7, .exponent = 11, .is_read_only = true}}});
    expect_ready(world);
    auto const disks = world.driver.disks();
    EXPECT_EQ(disks[0].sectors, 100U);
    EXPECT_EQ(disks[0].sector_size, 512U);
    EXPECT_FALSE(disks[0].is_read_only);
    EXPECT_TRUE(disks[0].has_write_cache);
    EXPECT_STREQ(disks[0].serial.data(), "serial ? number");
    EXPECT_STREQ(disks[0].model.data(), "A model that fills the field to its end.");
    EXPECT_EQ(disks[1].sectors, 50U);
    EXPECT_EQ(disks[1].sector_size, 4096U);
    EXPECT_EQ(disks[2].sector_size, 2048U);
    EXPECT_TRUE(disks[2].is_read_only);
}

TEST(NvmeStart, DiskWithoutWriteCacheSaysSo) {
    NvmeWorld world({.has_write_cache = false});
    expect_ready(world);
    EXPECT_FALSE(world.driver.disks()[0].has_write_cache);
}

TEST(NvmeStart, UnusableNamespacesAreLeftOut) {
    NvmeWorld world({.namespaces = {{.id = 1, .metadata = 8},
                                    {.id = 2, .exponent = 8},
                                    {.id = 3, .sectors = 64, .exponent = 13},
                                    {.id = 5, .sectors = 33},
                                    {.id = 6, .sectors = 0},
                                    {.id = 7, .is_refused = true},
                                    {.id = 8, .sectors = 34}}});
    expect_ready(world);
    ASSERT_EQ(world.driver.disks().size(), 2U);
    EXPECT_EQ(world.driver.disks()[0].sectors, 33U);
    EXPECT_EQ(world.driver.disks()[1].sectors, 34U);
    EXPECT_TRUE(world.has_logged("namespace 1 is left out"));
    ASSERT_TRUE(world.submit(Operation::Write, 1, 33, {{ram_begin + 512, 512}}));
    EXPECT_FALSE(world.submit(Operation::Write, 2, 0, {{ram_begin, 512}}));
    world.driver.ring();
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.good(), 1U);
}

TEST(NvmeStart, FormatsBeyondTheSixteenthAreFound) {
    NvmeWorld world({.namespaces = {{.id = 1, .exponent = 12, .format = 0},
                                    {.id = 2, .exponent = 9, .format = 15},
                                    {.id = 3, .exponent = 10, .format = 16},
                                    {.id = 4, .exponent = 11, .format = 63}}});
    expect_ready(world);
    ASSERT_EQ(world.driver.disks().size(), 4U);
    EXPECT_EQ(world.driver.disks()[0].sector_size, 4096U);
    EXPECT_EQ(world.driver.disks()[1].sector_size, 512U);
    EXPECT_EQ(world.driver.disks()[2].sector_size, 1024U);
    EXPECT_EQ(world.driver.disks()[3].sector_size, 2048U);
}

TEST(NvmeStart, NamespaceThatIsListedTwiceIsOneDisk) {
    NvmeWorld world({.namespaces = {{.id = 3}, {.id = 3}, {.id = 4}}});
    ASSERT_TRUE(world.run_until(State::Ready));
    EXPECT_EQ(world.driver.disks().size(), 1U);
    EXPECT_TRUE(world.has_logged("out of order"));
}

TEST(NvmeStart, NumberOfEveryNamespaceIsNoDisk) {
    NvmeWorld world({.namespaces = {{.id = 3}, {.id = ~0U}}});
    ASSERT_TRUE(world.run_until(State::Ready));
    EXPECT_EQ(world.driver.disks().size(), 1U);
    EXPECT_TRUE(world.has_logged("out of order"));
}

TEST(NvmeStart, NamespacesBeyondTheMostAreLeftOut) {
    NvmeSetup setup{.namespaces = {}};
    for (u32 i = 0; i < 12; i++)
        setup.namespaces.push_back({.id = 2 * i + 1, .sectors = 10 + i});
    NvmeWorld world(setup);
    ASSERT_TRUE(world.run_until(State::Ready));
    ASSERT_EQ(world.driver.disks().size(), block::Nvme::max_namespaces);
    EXPECT_EQ(world.driver.disks()[7].sectors, 17U);
    EXPECT_TRUE(world.has_logged("more namespaces"));
}

TEST(NvmeStart, ControllerWithoutNamespacesIsReadyWithoutDisks) {
    NvmeWorld world({.namespaces = {}});
    expect_ready(world);
    EXPECT_FALSE(world.submit(Operation::Flush, 0, 0, {}));
}

TEST(NvmeStart, ControllerWithoutListIsAskedForEachNumber) {
    NvmeWorld world({.namespaces = {{.id = 2}, {.id = 5, .exponent = 12}}, .has_list = false});
    expect_ready(world);
    expect_works(world);
}

TEST(NvmeStart, SmallQueuesAndWideDoorbellsAreUsed) {
    for (u32 const entries : {2U, 3U, 17U, 64U, 65U, 65536U}) {
        for (u32 const stride : {0U, 1U, 7U, 15U}) {
            SCOPED_TRACE(std::to_string(entries) + " entries, stride " + std::to_string(stride));
            NvmeWorld world({.queue_entries = entries, .stride = stride, .bar_size = lib::MiB});
            expect_ready(world);
            EXPECT_EQ(world.driver.limits().depth, std::min(entries, block::Nvme::entries) - 1);
            for (u32 i = 0; i < 200; i++) {
                while (!world.submit_page(Operation::Write, i)) {
                    world.driver.ring();
                    world.turn();
                    world.fake.now += 5;
                }
            }
            world.driver.ring();
            ASSERT_TRUE(world.drain());
            EXPECT_EQ(world.good(), 200U);
        }
    }
}

TEST(NvmeStart, LimitFollowsMdts) {
    for (u32 const mdts : {0U, 1U, 2U, 6U, 7U, 8U, 31U, 32U, 255U}) {
        NvmeWorld world({.mdts = mdts});
        expect_ready(world);
        u32 const most = mdts == 0 || mdts > 7 ? 512U * 1024 : 4096U << mdts;
        EXPECT_EQ(world.driver.limits().most_bytes, most);
        EXPECT_EQ(world.driver.limits().most_pieces, most / 4096 + 1);
    }
}

TEST(NvmeStart, ControllerThatFirmwareLeftOnIsStoppedFirst) {
    for (Left const left : {Left::Ready, Left::Starting, Left::Stopping}) {
        NvmeWorld world({.left = left});
        expect_ready(world);
        EXPECT_EQ(world.fake.starts, 1U);
        expect_works(world);
    }
}

TEST(NvmeStart, ControllerThatFirmwareCouldNotStartGetsAnotherChance) {
    NvmeWorld world({.left = Left::NeverReady});
    expect_ready(world);
    expect_works(world);
    EXPECT_GE(world.fake.now, 2000 * ticks_per_millisecond);
}

TEST(NvmeStart, WaitsAreAsLongAsTheControllerSays) {
    NvmeWorld slow({.time_limit = 40, .start_ms = 19'900, .stop_ms = 19'900, .left = Left::Ready});
    expect_ready(slow);
    expect_failure({.time_limit = 2, .start_ms = 1'100}, "does not start");
    NvmeWorld least({.time_limit = 0, .start_ms = 900});
    expect_ready(least);
}

TEST(NvmeStart, UnusableControllersFail) {
    expect_failure({.never_ready = true}, "does not start");
    expect_failure({.never_stops = true, .left = Left::Ready}, "does not stop");
    expect_failure({.has_nvm = false}, "does not have the NVM command set");
    expect_failure({.smallest_page = 1}, "does not have pages of 4 KiB");
    expect_failure({.queue_entries = 1}, "has queues of one entry");
    expect_failure({.shared_size = 0x40000}, "got too little memory");
    for (u64 const size : {0x1004ULL, 0x1000ULL, 0x20ULL, 4ULL, 0ULL})
        expect_failure({.bar_size = size}, "has too few registers");
    expect_failure({.stride = 10}, "has too few registers");
}

TEST(NvmeStart, RefusalOfAQueueIsAFailure) {
    for (u8 const opcode : {u8{0x01}, u8{0x05}, u8{0x09}, u8{0x06}})
        expect_failure({.refused_admin = opcode}, "refused a command of its start");
}

TEST(NvmeStart, DeviceThatIsGoneFails) {
    NvmeWorld absent;
    absent.fake.gone = true;
    ASSERT_TRUE(absent.run_until(State::Failed));
    EXPECT_EQ(absent.driver.failure(), "does not answer");
    // At each time of its start.
    for (u64 when = 0; when < 60; when++) {
        NvmeWorld world({.left = Left::Ready});
        world.run([&] { return world.fake.now >= when * ticks_per_millisecond; });
        if (world.driver.state() == State::Ready) break;
        world.fake.gone = true;
        ASSERT_TRUE(world.run_until(State::Failed)) << when;
        EXPECT_TRUE(world.driver.failure() == "is gone" || world.driver.failure() == "does not answer");
    }
}

TEST(NvmeStart, CommandsWithoutAnswersAreTriedAgain) {
    for (u32 lost = 1; lost <= 4; lost++) {
        NvmeWorld world;
        world.fake.lost_admin = lost;
        ASSERT_TRUE(world.run([&] { return world.driver.state() != State::Starting; }));
        EXPECT_EQ(world.driver.state(), lost <= block::Nvme::most_resets ? State::Ready : State::Failed);
        EXPECT_GE(world.fake.now, lost * block::Nvme::admin_seconds * 1000 * ticks_per_millisecond);
        EXPECT_EQ(world.fake.starts, std::min(lost + 1, block::Nvme::most_resets + 1));
    }
}

TEST(NvmeStart, AnswersToOtherCommandsAreTriedAgain) {
    for (u32 wrong = 1; wrong <= 4; wrong++) {
        NvmeWorld world;
        world.fake.wrong_admin_ids = wrong;
        ASSERT_TRUE(world.run([&] { return world.driver.state() != State::Starting; }));
        EXPECT_EQ(world.driver.state(), wrong <= block::Nvme::most_resets ? State::Ready : State::Failed);
    }
}

TEST(NvmeStart, FatalErrorsAreTriedAgainThreeTimes) {
    NvmeWorld once;
    once.fake.fatal = true; // a start of its own clears it
    ASSERT_TRUE(once.run([&] { return once.driver.state() != State::Starting; }));
    NvmeWorld always;
    always.fake.is_fatal_after_start = true;
    ASSERT_TRUE(always.run_until(State::Failed));
    EXPECT_EQ(always.fake.starts, block::Nvme::most_resets + 1);
    EXPECT_EQ(always.driver.failure(), "has been reset too often without a command that succeeded");
}

} // namespace
