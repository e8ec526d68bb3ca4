// SPDX-License-Identifier: MIT
// Errors, lost commands and devices that do what they want.
#include "ide_machine.hpp"

#include <random>

namespace ide_test {
namespace {

using IdeRecovery = IdeTest;

TEST_F(IdeRecovery, ACommandUnderWayIsTheOnlyOne) {
    start_with_disk();
    fake.holds = true;
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}, 1));
    EXPECT_FALSE(submit(Operation::Read, 0, {{buffer, 512}}, 2));
    EXPECT_EQ(ends(), 0U);
    EXPECT_EQ(ide->deadline(), fake.now + 10'000 * ticks);
    fake.finish(0);
    std::array<Ended, 1> none{};
    EXPECT_EQ(poll(std::span(none).first(0)), 0U);
    EXPECT_FALSE(submit(Operation::Read, 0, {{buffer, 512}}, 2)) << "its end has not been taken";
    EXPECT_EQ(ide->deadline(), 0U);
    EXPECT_EQ(take(1), Status::Good);
    EXPECT_EQ(ide->deadline(), Controller::never);
    EXPECT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}, 2));
}

TEST_F(IdeRecovery, ABadSectorFailsItsCommandOnly) {
    start_with_disk();
    drive().bad_sector = 17;
    ASSERT_TRUE(submit(Operation::Read, 16, {{buffer, 1024}}));
    EXPECT_EQ(take(), Status::Failed);
    EXPECT_TRUE(fake.has_line("error 0x10"));
    ASSERT_TRUE(submit(Operation::Read, 18, {{buffer, 1024}}));
    EXPECT_EQ(take(), Status::Good);
    EXPECT_EQ(fake.resets, 2U) << "those of the start";
}

TEST_F(IdeRecovery, AnErrorOfTheBusMasterFailsTheCommand) {
    start_with_disk();
    fake.fails_transfers = true;
    ASSERT_TRUE(submit(Operation::Write, 0, {{buffer, 512}}));
    EXPECT_EQ(take(), Status::Failed);
    fake.fails_transfers = false;
    ASSERT_TRUE(submit(Operation::Write, 0, {{buffer, 512}}));
    EXPECT_EQ(take(), Status::Good);
}

// Bochs ends a read that its disk image refuses so: without an error, and with an active bus master.
TEST_F(IdeRecovery, ATransferOfTooFewBytesFailsTheCommand) {
    start_with_disk();
    fake.stops_short = true;
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    EXPECT_EQ(take(), Status::Failed);
    EXPECT_FALSE(fake.is_started(0));
}

TEST_F(IdeRecovery, CommandsThatBreakTheLimitsReachNoDevice) {
    start_with_disk(1000);
    std::vector<Piece> const wrong[] = {{{buffer + 1, 512}},
                                        {{buffer, 511}, {buffer, 513}},
                                        {{buffer, 510}},
                                        {{4 * lib::GiB, 512}},
                                        {{4 * lib::GiB - 256, 512}},
                                        {{buffer, 131072}, {buffer, 512}},
                                        std::vector<Piece>(1024, Piece{buffer, 2}),
                                        {}};
    for (auto const& pieces : wrong) {
        ASSERT_TRUE(submit(Operation::Write, 0, pieces));
        EXPECT_EQ(take(), Status::Failed);
    }
    for (u64 sector : {u64{1000}, u64{999}, ~u64{0}}) {
        ASSERT_TRUE(submit(Operation::Write, sector, {{buffer, 1024}}));
        EXPECT_EQ(take(), Status::Failed);
    }
    EXPECT_FALSE(submit(Operation::Read, 0, {{buffer, 512}}, 7, 1)) << "there is no such disk";
    EXPECT_EQ(drive().commands.size(), 1U);
}

TEST_F(IdeRecovery, ALostCommandEndsFailedAndTheControllerGoesOn) {
    start_with_disk();
    drive().is_dead = true;
    ASSERT_TRUE(submit(Operation::Write, 0, {{buffer, 512}}));
    fake.now += 10'000 * ticks - 1;
    EXPECT_EQ(ends(), 0U);
    fake.now++;
    EXPECT_EQ(take(), Status::Failed);
    EXPECT_FALSE(fake.bus_master);
    EXPECT_FALSE(fake.is_started(0));
    EXPECT_EQ(ide->state(), Controller::State::Starting);
    EXPECT_FALSE(submit(Operation::Read, 0, {{buffer, 512}}));
    drive().is_dead = false;
    start();
    EXPECT_EQ(ide->disks().size(), 1U);
    EXPECT_TRUE(fake.bus_master);
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    EXPECT_EQ(take(), Status::Good);
}

TEST_F(IdeRecovery, TheEndOfALostCommandWaitsForRoom) {
    start_with_disk();
    drive().is_dead = true;
    ASSERT_TRUE(submit(Operation::Write, 0, {{buffer, 512}}));
    fake.now += 10'000 * ticks;
    std::array<Ended, 1> none{};
    EXPECT_EQ(poll(std::span(none).first(0)), 0U);
    EXPECT_EQ(ide->deadline(), 0U);
    EXPECT_EQ(take(), Status::Failed);
}

TEST_F(IdeRecovery, TheFourthResetInARowFails) {
    start_with_disk();
    drive().is_dead = true;
    for (u32 i = 0; i < 4; i++) {
        ASSERT_EQ(ide->state(), Controller::State::Ready);
        ASSERT_TRUE(submit(Operation::Flush, 0, {}, i));
        fake.now += block::Ide::flush_seconds * u64{1'000} * ticks - 1;
        std::array<Ended, 1> ended{};
        EXPECT_EQ(poll(ended), 0U);
        fake.now++;
        EXPECT_EQ(take(i), Status::Failed);
        start();
    }
    EXPECT_EQ(ide->state(), Controller::State::Failed);
    EXPECT_EQ(ide->failure(), "has been reset too often without a command that succeeded");
    EXPECT_FALSE(fake.bus_master);
    EXPECT_EQ(ide->deadline(), Controller::never);
    EXPECT_FALSE(submit(Operation::Flush, 0, {}));
}

TEST_F(IdeRecovery, ASuccessForgetsTheResetsBefore) {
    start_with_disk();
    for (u32 i = 0; i < 10; i++) {
        fake.loses_interrupts = true;
        ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}, i));
        fake.now += 10'000 * ticks;
        EXPECT_EQ(take(i), Status::Failed);
        fake.loses_interrupts = false;
        start();
        ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}, 50));
        EXPECT_EQ(take(50), Status::Good);
    }
}

TEST_F(IdeRecovery, ADriveThatDoesNotComeBackFailsAloneAndTheLastOneTheController) {
    fake.drives[0][0] = FakeDrive::disk(1000, true);
    fake.drives[1][0] = FakeDrive::disk(1000, true);
    start();
    for (u32 disk = 0; disk < 2; disk++) {
        drive(disk).is_dead = drive(disk).stays_busy = true;
        ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}, 1, disk));
        fake.now += 10'000 * ticks;
        EXPECT_EQ(take(1), Status::Failed);
        start();
        if (disk == 1) break;
        ASSERT_EQ(ide->state(), Controller::State::Ready);
        EXPECT_EQ(ide->disks().size(), 2U);
        EXPECT_TRUE(fake.has_line("drive 0 of channel 0 is left out"));
        ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}, 2, 0));
        EXPECT_EQ(take(2), Status::Failed);
        ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}, 3, 1));
        EXPECT_EQ(take(3), Status::Good);
    }
    EXPECT_EQ(ide->failure(), "has lost all its disks");
}

TEST_F(IdeRecovery, AnInterruptOfAnIdleChannelIsTakenBack) {
    start_with_disk();
    fake.drives[1][0] = FakeDrive::disk(1000, true);
    fake.raise(1);
    fake.raise(0);
    EXPECT_EQ(ends(), 0U);
    EXPECT_FALSE(fake.has_line_raised(0) || fake.has_line_raised(1));
    fake.holds = true;
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    fake.raise(1);
    EXPECT_EQ(ends(), 0U);
    EXPECT_FALSE(fake.has_line_raised(1));
    fake.finish(0);
    EXPECT_EQ(take(), Status::Good);
}

TEST_F(IdeRecovery, AnInterruptBeforeTheEndIsNoEnd) {
    start_with_disk();
    fake.holds = true;
    for (Operation operation : {Operation::Read, Operation::Write, Operation::Flush}) {
        ASSERT_TRUE(submit(operation, 0,
                           operation == Operation::Flush ? std::vector<Piece>{} : std::vector<Piece>{{buffer, 512}}));
        fake.raise(0);
        EXPECT_EQ(ends(), 0U);
        EXPECT_EQ(ends(), 0U);
        fake.finish(0);
        EXPECT_EQ(take(), Status::Good);
    }
}

TEST_F(IdeRecovery, ADriveThatIsBusyWhenItIsSelectedLeadsToAReset) {
    fake.drives[0][0] = FakeDrive::disk(1000, true);
    fake.drives[0][1] = FakeDrive::disk(1000, true);
    start();
    drive(0, 0).is_dead = true; // or its fake would forbid the access
    drive(0, 0).status = BSY;
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    EXPECT_EQ(take(), Status::Failed);
    EXPECT_TRUE(fake.has_line("busy without a command"));
    start();
    EXPECT_EQ(ide->state(), Controller::State::Ready);
}

// A device whose registers read as anything.
class Noise final : public block::Function {
public:
    explicit Noise(u32 seed) : random_(seed) {}
    u32 read(u32, u32 offset, u32 width) override {
        reads++;
        u32 const value = static_cast<u32>(random_()) & (width == 2 ? 0xffff : 0xff);
        if (width == 2) return value;
        // Often what the driver waits for, or it would never come far.
        if (random_() % 2 == 0) return offset == 4 || offset == 5 ? 0 : offset == 2 ? 0x54 : 0x50;
        return random_() % 4 == 0 ? 0x58 : value;
    }
    void write(u32, u32, u32, u32) override {}
    u64 bar_size(u32) const override { return 16; }
    u32 configuration(u32) override { return 0; }
    void set_bus_master(bool) override {}
    void log(std::string_view) override {}
    Shared shared() override { return {memory_, 0x1000}; }
    u64 ticks_per_millisecond() const override { return ticks; }
    u32 reads = 0;

private:
    std::mt19937 random_;
    std::vector<u8> memory_ = std::vector<u8>(lib::page_size); // not one byte more
};

TEST(IdeNoise, EveryCommandEndsOnceAndEveryWaitEnds) {
    u32 commands = 0, ready = 0;
    for (u32 seed = 0; seed < 300; seed++) {
        Noise noise(seed);
        block::Ide ide(noise);
        u64 now = 0;
        std::optional<u32> under_way;
        for (u32 i = 0; i < 3000 && ide.state() != Controller::State::Failed; i++) {
            std::array<Ended, 2> ended{};
            u32 const before = noise.reads;
            u32 const count = ide.poll(now, ended);
            ASSERT_LE(noise.reads - before, 300U);
            ASSERT_LE(count, 1U);
            if (count == 1) {
                ASSERT_EQ(ended[0].tag, under_way);
                under_way.reset();
            }
            if (ide.state() == Controller::State::Ready && ide.disks().empty()) break;
            Piece const piece{0x10000, 512};
            u32 const disk = ide.disks().empty() ? 0 : i % static_cast<u32>(ide.disks().size());
            bool const is_taken =
                ide.submit({i % 3 == 0 ? Operation::Flush : Operation::Write, disk, i, 0, {&piece, 1}}, now);
            ASSERT_TRUE(!is_taken || !under_way);
            if (is_taken) {
                under_way = i;
                commands++;
            }
            now = std::max(now + ticks,
                           ide.deadline() == Controller::never ? now : std::min(ide.deadline(), now + 2000 * ticks));
        }
        // The last command and the last reset, too.
        for (u32 i = 0; i < 200 && (under_way || ide.state() == Controller::State::Starting);
             i++, now += 10'000 * ticks) {
            std::array<Ended, 1> ended{};
            if (ide.poll(now, ended) == 1) under_way.reset();
        }
        EXPECT_FALSE(under_way.has_value());
        EXPECT_NE(ide.state(), Controller::State::Starting);
        ready += ide.state() == Controller::State::Ready ? 1 : 0;
    }
    EXPECT_GT(commands, 100U);
    EXPECT_GT(ready, 0U);
}

} // namespace
} // namespace ide_test
