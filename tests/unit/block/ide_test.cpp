// SPDX-License-Identifier: MIT
#include "ide_machine.hpp"

#include <numeric>

namespace ide_test {
namespace {

TEST_F(IdeTest, FindsADiskAndItsFacts) {
    start_with_disk(1'000'000'000);
    auto const& facts = ide->disks()[0];
    EXPECT_EQ(facts.sectors, 1'000'000'000U);
    EXPECT_EQ(facts.sector_size, 512U);
    EXPECT_TRUE(facts.has_write_cache);
    EXPECT_FALSE(facts.is_read_only);
    EXPECT_STREQ(facts.serial.data(), "SN-1234");
    EXPECT_STREQ(facts.model.data(), "A model of a disk");
    EXPECT_TRUE(fake.bus_master);
    EXPECT_FALSE(fake.has_line_raised(0));
    EXPECT_EQ(fake.master_status(0), 0x60);
    EXPECT_EQ(ide->deadline(), Controller::never);
}

TEST_F(IdeTest, FindsFourDisksInTheirOrder) {
    for (u32 i = 0; i < 4; i++)
        fake.drives[i / 2][i % 2] = FakeDrive::disk(1000 + i, i % 2 == 0);
    start();
    ASSERT_EQ(ide->disks().size(), 4U);
    for (u32 i = 0; i < 4; i++)
        EXPECT_EQ(ide->disks()[i].sectors, 1000 + i);
}

TEST_F(IdeTest, ReadsWhatItWroteInPiecesOfAnyEvenSize) {
    start_with_disk();
    std::iota(memory(buffer), memory(buffer) + 65536, u8{3});
    ASSERT_TRUE(submit(Operation::Write, 40, {{buffer + 2, 510}, {buffer + 0x1000, 2}, {buffer + 0x2000, 1024}}));
    EXPECT_EQ(take(), Status::Good);
    ASSERT_TRUE(submit(Operation::Read, 40, {{buffer + 0x20000, 1536}}));
    EXPECT_EQ(take(), Status::Good);
    EXPECT_EQ(std::memcmp(memory(buffer + 2), memory(buffer + 0x20000), 510), 0);
    EXPECT_EQ(std::memcmp(memory(buffer + 0x1000), memory(buffer + 0x20000 + 510), 2), 0);
    EXPECT_EQ(std::memcmp(memory(buffer + 0x2000), memory(buffer + 0x20000 + 512), 1024), 0);
    EXPECT_EQ(drive().commands, (std::vector<u8>{0xec, 0xca, 0xc8}));
}

TEST_F(IdeTest, AddressesOf28BitsUseTheShortCommandsAndOthersTheLongOnes) {
    start_with_disk(u64{1} << 33);
    struct {
        u64 sector;
        u32 size;
        u8 command;
    } const cases[] = {{(1U << 28) - 257, 131072, 0xca},
                       {(1U << 28) - 256, 131072, 0x35}, // the last sector has no address of 28 bits
                       {(1U << 28) - 1, 512, 0x35},
                       {1U << 28, 512, 0x35},
                       {(u64{1} << 33) - 256, 131072, 0x35}};
    for (auto const& one : cases) {
        drive().sectors.clear();
        ASSERT_TRUE(submit(Operation::Write, one.sector, {{buffer, one.size}}));
        EXPECT_EQ(take(), Status::Good);
        EXPECT_EQ(drive().commands.back(), one.command);
        EXPECT_EQ(drive().sectors.size(), one.size / 512);
        EXPECT_EQ(drive().sectors.begin()->first, one.sector);
    }
}

TEST_F(IdeTest, PiecesAreCutAt64KiB) {
    start_with_disk(1000, false);
    u32 const at = static_cast<u32>(buffer) + 0x10000 - 512;
    std::iota(memory(at), memory(at) + 131072, u8{9});
    ASSERT_TRUE(submit(Operation::Write, 0, {{at, 131072}}));
    EXPECT_EQ(take(), Status::Good);
    EXPECT_EQ(drive().sectors.size(), 256U);
    EXPECT_EQ(drive().sectors[255][511], *memory(at + 131071));
}

TEST_F(IdeTest, TheMostPiecesFitWhenEachIsCut) {
    start_with_disk();
    auto const limits = ide->limits();
    // All over the same boundary: a write may read memory twice.
    std::vector<Piece> pieces(limits.most_pieces, Piece{buffer + 0x10000 - 256, 512});
    ASSERT_LE(pieces.size() * 512, limits.most_bytes);
    ASSERT_TRUE(submit(Operation::Write, 0, pieces));
    EXPECT_EQ(take(), Status::Good);
    EXPECT_EQ(drive().sectors.size(), pieces.size());
}

TEST_F(IdeTest, EachDiskIsReachedInTurn) {
    for (u32 i = 0; i < 4; i++)
        fake.drives[i / 2][i % 2] = FakeDrive::disk(1000, true);
    start();
    for (u32 round = 0; round < 2; round++)
        for (u32 disk : {0U, 1U, 3U, 2U, 1U, 1U}) {
            *memory(buffer) = static_cast<u8>(0x40 + disk);
            ASSERT_TRUE(submit(Operation::Write, disk, {{buffer, 512}}, 100 + disk, disk));
            EXPECT_EQ(take(100 + disk), Status::Good);
        }
    for (u32 i = 0; i < 4; i++) {
        EXPECT_EQ(drive(i / 2, i % 2).sectors.size(), 1U);
        EXPECT_EQ(drive(i / 2, i % 2).sectors[i][0], 0x40 + i);
    }
}

TEST_F(IdeTest, FlushUsesTheCommandThatTheDriveHas) {
    auto const last = [this](u32 disk) {
        EXPECT_TRUE(submit(Operation::Flush, 0, {}, 7, disk));
        EXPECT_EQ(take(), Status::Good);
        return drive(0, disk).commands.back();
    };
    fake.drives[0][0] = FakeDrive::disk(1000, true);
    fake.drives[0][1] = FakeDrive::disk(1000, false);
    start();
    EXPECT_EQ(last(0), 0xea);
    EXPECT_EQ(last(1), 0xe7);
}

TEST_F(IdeTest, FlushOfADriveWithoutTheCommandEndsGood) {
    fake.drives[0][0] = FakeDrive::disk(1000, false);
    drive().identify[83] = 0;
    drive().identify[85] = 0;
    start();
    EXPECT_FALSE(ide->disks()[0].has_write_cache);
    ASSERT_TRUE(submit(Operation::Flush, 0, {}));
    EXPECT_EQ(ide->deadline(), 0U);
    EXPECT_EQ(take(), Status::Good);
    EXPECT_EQ(drive().commands.size(), 1U);
}

TEST_F(IdeTest, AFlushThatFailsEndsFailed) {
    start_with_disk();
    drive().bad_sector = 0;
    ASSERT_TRUE(submit(Operation::Flush, 0, {}));
    EXPECT_EQ(take(), Status::Failed);
}

TEST_F(IdeTest, ABusWithoutDrivesLeadsToReadyWithoutDisks) {
    for (u8 floating : {u8{0xff}, u8{0x7f}, u8{0}}) {
        fake.floating = floating;
        ide.reset();
        start(1'000);
        EXPECT_EQ(ide->state(), Controller::State::Ready);
        EXPECT_TRUE(ide->disks().empty());
        EXPECT_TRUE(fake.lines.empty());
    }
}

TEST_F(IdeTest, AtapiDrivesGetNoCommand) {
    fake.drives[0][0] = FakeDrive::disk(1000, true);
    fake.drives[0][1] = FakeDrive::atapi(false);
    fake.drives[1][0] = FakeDrive::atapi(false);
    start();
    EXPECT_EQ(ide->disks().size(), 1U);
    EXPECT_TRUE(drive(1, 0).commands.empty());
}

TEST_F(IdeTest, AnAtapiDriveThatIsReadyIsKnownByItsSignature) {
    fake.drives[1][0] = FakeDrive::atapi(true);
    start();
    EXPECT_EQ(ide->state(), Controller::State::Ready);
    EXPECT_TRUE(drive(1, 0).commands.empty());
}

TEST_F(IdeTest, AChannelWithoutRegistersIsLeftAlone) {
    fake.bar_sizes[0] = fake.bar_sizes[1] = 0;
    fake.drives[1][1] = FakeDrive::disk(1000, true);
    start();
    ASSERT_EQ(ide->disks().size(), 1U);
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    EXPECT_EQ(take(), Status::Good);
}

TEST_F(IdeTest, DrivesThatCannotBeUsedAreLeftOutWithALine) {
    struct {
        void (*change)(FakeDrive&);
        char const* line;
    } const cases[] = {
        {[](FakeDrive& d) { d.identify[49] = 1 << 9; }, "no DMA"},
        {[](FakeDrive& d) { d.identify[49] = 1 << 8; }, "no LBA"},
        {[](FakeDrive& d) { d.identify[0] = 0x8580; }, "not a disk"},
        {[](FakeDrive& d) { d.identify[100] = d.identify[101] = 0; }, "no sectors"},
        {[](FakeDrive& d) { d.identify[106] = 1 << 14 | 1 << 12, d.identify[117] = 2048; }, "512 bytes"},
        {[](FakeDrive& d) { d.identify[106] = 0x6000, d.identify[117] = 2048; }, "512 bytes"},
        {[](FakeDrive& d) { d.refuses_identify = true; }, "does not say what it is"},
        {[](FakeDrive& d) { d.keeps_data_request = true; }, "stays busy after a command"},
        {[](FakeDrive& d) { d.is_dead = true; }, "does not answer"},
        {[](FakeDrive& d) { d.stays_busy = true; }, "stays busy after a reset"},
    };
    for (auto const& one : cases) {
        fake.lines.clear();
        fake.drives[0][0] = FakeDrive::disk(1000, true);
        fake.drives[1][0] = FakeDrive::disk(2000, true);
        one.change(drive());
        ide.reset();
        start();
        EXPECT_EQ(ide->state(), Controller::State::Ready) << one.line;
        ASSERT_EQ(ide->disks().size(), 1U) << one.line;
        EXPECT_EQ(ide->disks()[0].sectors, 2000U);
        EXPECT_TRUE(fake.has_line(one.line)) << one.line;
    }
}

TEST_F(IdeTest, LongSectorsOf512BytesAreNothingSpecial) {
    fake.drives[0][0] = FakeDrive::disk(1000, true);
    drive().identify[106] = 0x6003; // eight of them are a physical one
    start();
    EXPECT_EQ(ide->disks().size(), 1U);
}

TEST_F(IdeTest, ControllersThatCannotBeUsedFail) {
    fake.bar_sizes[4] = 0;
    start();
    EXPECT_EQ(ide->failure(), "has no bus master");
    fake.bar_sizes[4] = 16;
    fake.shared_address = 4 * lib::GiB - 2048;
    ide.reset();
    start();
    EXPECT_EQ(ide->failure(), "got memory above 4 GiB");
    EXPECT_FALSE(fake.was_bus_master);
}

TEST_F(IdeTest, ATransferOfAnEarlierDriverIsStopped) {
    start_with_disk();
    fake.holds = true;
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    ASSERT_TRUE(fake.is_started(0));
    fake.set_bus_master(false); // as Mullion does when a service has died
    ide.reset();
    fake.holds = false;
    start();
    EXPECT_EQ(ide->state(), Controller::State::Ready);
    EXPECT_FALSE(fake.is_started(0));
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    EXPECT_EQ(take(), Status::Good);
}

// The fake measures the pauses of a reset.
TEST_F(IdeTest, EarlyCallsDoNotShortenTheStart) {
    fake.drives[0][0] = FakeDrive::disk(1000, true);
    ide.emplace(fake);
    for (; ide->state() == Controller::State::Starting && fake.now < 1000 * ticks; fake.now += 50)
        EXPECT_EQ(ends(), 0U);
    EXPECT_EQ(ide->disks().size(), 1U);
}

TEST_F(IdeTest, ACommandTakesFewAccesses) {
    start_with_disk();
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}})); // the first one selects its drive
    EXPECT_EQ(take(), Status::Good);
    u32 const before = fake.reads + fake.writes;
    ASSERT_TRUE(submit(Operation::Read, 0, {{buffer, 512}}));
    std::array<Ended, 32> ended{};
    EXPECT_EQ(ide->poll(fake.now, ended), 1U);
    EXPECT_LE(fake.reads + fake.writes - before, 12U);
}

} // namespace
} // namespace ide_test
