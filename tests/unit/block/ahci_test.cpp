// SPDX-License-Identifier: MIT
#include "ahci_fake.hpp"

#include <cstring>
#include <numeric>

namespace ahci_test {
namespace {

using block::Controller;
using block::Ended;
using block::Operation;
using block::Piece;
using block::Status;

constexpr u64 buffer = FakeAhci::ram_begin + 0x100000;

class AhciTest : public testing::Test {
protected:
    FakeAhci fake;
    std::optional<block::Ahci> ahci;
    std::map<u32, Status> ends;

    // Takes all ends there are, and checks that each command ends once.
    void poll() {
        std::array<Ended, 3> ended{};
        for (u32 count = 3; count == 3;) {
            u32 const before = fake.reads;
            count = ahci->poll(fake.now, ended);
            EXPECT_LE(fake.reads - before, 300U);
            for (Ended const& end : std::span(ended).first(count))
                EXPECT_TRUE(ends.emplace(end.tag, end.status).second) << "command " << end.tag << " ended twice";
        }
    }
    template <typename Predicate> bool run_until(Predicate is_reached, u64 most_milliseconds = 100'000) {
        u64 const end = fake.now + most_milliseconds * ticks;
        for (;;) {
            poll();
            if (is_reached()) return true;
            if (fake.now >= end || ahci->deadline() == Controller::never) return false;
            EXPECT_GE(ahci->deadline(), fake.now);
            fake.now = std::max(fake.now, std::min(ahci->deadline(), end));
        }
    }
    void start() {
        ahci.emplace(fake);
        EXPECT_TRUE(run_until([&] { return ahci->state() != Controller::State::Starting; }));
    }
    void start_with(FakeDisk disk) {
        fake.disks[1] = std::move(disk);
        start();
        ASSERT_EQ(ahci->state(), Controller::State::Ready);
        ASSERT_EQ(ahci->disks().size(), 1U);
    }
    bool submit(u32 tag, Operation operation, u64 sector = 0, std::vector<Piece> pieces = {{buffer, 512}},
                u32 disk = 0) {
        if (operation == Operation::Flush) pieces.clear();
        return ahci->submit({operation, disk, tag, sector, pieces}, fake.now);
    }
    bool write_one(u32 tag, u64 sector = 0, u32 disk = 0) {
        bool const taken = submit(tag, Operation::Write, sector, {{buffer, 512}}, disk);
        ahci->ring();
        return taken;
    }
    Status take(u32 tag) {
        poll();
        EXPECT_TRUE(ends.contains(tag));
        Status const status = ends.contains(tag) ? ends[tag] : Status::Failed;
        ends.erase(tag);
        return status;
    }
    bool has_recovered() {
        return run_until([&] {
            if (!submit(999, Operation::Read)) return false;
            ahci->ring();
            return take(999) == Status::Good;
        });
    }
    FakeDisk& disk(u32 port = 1) { return *fake.disks[port]; }
    u8* memory(u64 address) { return &fake.ram.at(address - FakeAhci::ram_begin); }
};

TEST_F(AhciTest, FindsADiskAndItsFacts) {
    start_with(FakeDisk::disk(1'000'000'000'000));
    auto const& facts = ahci->disks()[0];
    EXPECT_EQ(facts.sectors, 1'000'000'000'000U);
    EXPECT_EQ(facts.sector_size, 512U);
    EXPECT_TRUE(facts.has_write_cache);
    EXPECT_STREQ(facts.serial.data(), "SN-1234");
    EXPECT_STREQ(facts.model.data(), "A model of a disk");
    EXPECT_EQ(ahci->limits().depth, 32U);
    EXPECT_EQ(ahci->deadline(), Controller::never);
}

TEST_F(AhciTest, LeavesOtherThingsThanDisksAlone) {
    fake.disks[0] = FakeDisk::disk(1000);
    disk(0).signature = atapi;
    fake.disks[2] = FakeDisk::disk(1000);
    disk(2).stays_busy = true;
    fake.disks[3] = FakeDisk::disk(1000);
    disk(3).refuses_identify = true;
    fake.disks[4] = FakeDisk::disk(1000);
    disk(4).is_dead = true;
    start_with(FakeDisk::disk(2000));
    EXPECT_EQ(ahci->disks()[0].sectors, 2000U);
    EXPECT_TRUE(disk(0).commands.empty());
    EXPECT_TRUE(fake.has_line("port 3: left out: it does not say what it is"));
    EXPECT_TRUE(fake.has_line("port 4: left out: it does not answer"));
}

TEST_F(AhciTest, UsesFourDisksAtMost) {
    for (u32 i = 0; i < 6; i++)
        fake.disks[i] = FakeDisk::disk(1000 + i, i % 2 == 0 ? 0 : 8);
    start();
    ASSERT_EQ(ahci->disks().size(), 4U);
    for (u32 i = 0; i < 4; i++)
        EXPECT_EQ(ahci->disks()[i].sectors, 1000 + i);
    EXPECT_EQ(ahci->limits().depth, 18U);
    for (u32 i = 0; i < 4; i++)
        EXPECT_TRUE(write_one(i, i, i));
    for (u32 i = 0; i < 4; i++)
        EXPECT_EQ(take(i), Status::Good);
}

TEST_F(AhciTest, WithoutDisksItIsReady) {
    start();
    EXPECT_EQ(ahci->state(), Controller::State::Ready);
    EXPECT_TRUE(ahci->disks().empty());
    EXPECT_LT(fake.now, 1'000 * ticks);
}

TEST_F(AhciTest, ReadsWhatItWroteInPiecesOfAnyEvenSize) {
    for (u32 const depth : {0U, 4U, 32U}) {
        for (u32 const size : {512U, 4096U}) {
            SCOPED_TRACE(depth + size);
            start_with(FakeDisk::disk(1'000'000'000'000, depth, size));
            EXPECT_EQ(ahci->disks()[0].sector_size, size);
            std::iota(memory(buffer), memory(buffer) + 65536, static_cast<u8>(depth));
            u64 const sector = 0x89'abcd'ef01;
            ASSERT_TRUE(submit(1, Operation::Write, sector,
                               {{buffer + 2, 510}, {buffer + 0x1000, 2}, {buffer + 0x2000, 7680}}));
            ahci->ring();
            EXPECT_TRUE(fake.has_interrupt());
            EXPECT_EQ(take(1), Status::Good);
            EXPECT_FALSE(fake.has_interrupt());
            ASSERT_TRUE(submit(2, Operation::Read, sector, {{buffer + 0x20000, 8192}}));
            ahci->ring();
            EXPECT_EQ(take(2), Status::Good);
            EXPECT_EQ(std::memcmp(memory(buffer + 2), memory(buffer + 0x20000), 510), 0);
            EXPECT_EQ(std::memcmp(memory(buffer + 0x1000), memory(buffer + 0x20000 + 510), 2), 0);
            EXPECT_EQ(std::memcmp(memory(buffer + 0x2000), memory(buffer + 0x20000 + 512), 7680), 0);
            EXPECT_EQ(disk().commands.back(), depth == 0 ? 0x25 : 0x60);
            fake.bus_master = false;
        }
    }
}

TEST_F(AhciTest, AsManyCommandsAreUnderWayAsTheQueueHasRoomFor) {
    for (u32 const depth : {0U, 1U, 5U, 32U}) {
        start_with(FakeDisk::disk(1000, depth));
        fake.holds = true;
        u32 count = 0;
        while (submit(count, Operation::Write, count))
            count++;
        EXPECT_EQ(count, std::max(depth, 1U));
        ahci->ring();
        fake.finish(1, 0xaaaa'aaaa);
        poll();
        EXPECT_EQ(ends.size(), count / 2);
        fake.finish(1);
        poll();
        EXPECT_EQ(ends.size(), count);
        ends.clear();
        fake.holds = fake.bus_master = false;
    }
}

TEST_F(AhciTest, AFlushWaitsForQueuedCommandsAndLaterOnesWaitForIt) {
    start_with(FakeDisk::disk(1000));
    fake.holds = true;
    EXPECT_TRUE(write_one(1));
    EXPECT_TRUE(submit(2, Operation::Flush));
    ahci->ring();
    EXPECT_FALSE(write_one(3));
    EXPECT_FALSE(submit(3, Operation::Flush));
    fake.finish(1);
    EXPECT_EQ(take(1), Status::Good);
    EXPECT_FALSE(write_one(3));
    EXPECT_NE(fake.under_way(1), 0U) << "the flush begins by itself";
    fake.finish(1);
    EXPECT_EQ(take(2), Status::Good);
    EXPECT_EQ(disk().commands, (std::vector<u8>{0xec, 0x61, 0xea}));
    EXPECT_TRUE(write_one(3));
}

TEST_F(AhciTest, AnErrorFailsWhatIsUnderWayAndTheDiskComesBack) {
    for (u32 const depth : {0U, 32U}) {
        start_with(FakeDisk::disk(1000, depth));
        for (u32 i = 0; i < 6; i++) { // an answer of the disk does not count as a fault
            disk().bad_sector = 500;
            EXPECT_TRUE(write_one(1, 500));
            EXPECT_EQ(take(1), Status::Failed);
            disk().bad_sector = {};
            EXPECT_FALSE(write_one(2));
            EXPECT_TRUE(run_until([&] { return write_one(2, 1); }));
            fake.now++;
            EXPECT_EQ(take(2), Status::Good);
        }
        fake.bus_master = false;
    }
}

TEST_F(AhciTest, BadSectorsAloneDoNotKillADisk) {
    start_with(FakeDisk::disk(1000));
    disk().bad_sector = 500;
    for (u32 i = 0; i < 10; i++) {
        EXPECT_TRUE(run_until([&] { return write_one(1, 500); }));
        EXPECT_EQ(take(1), Status::Failed);
    }
    EXPECT_TRUE(has_recovered());
}

TEST_F(AhciTest, AFaultFailsAllCommandsOfThatDiskOnly) {
    fake.disks[3] = FakeDisk::disk(1000);
    fake.disks[1] = FakeDisk::disk(1000);
    start();
    fake.holds = true;
    for (u32 i = 0; i < 3; i++)
        EXPECT_TRUE(write_one(i, i, 0) && write_one(10 + i, i, 1));
    EXPECT_TRUE(submit(3, Operation::Flush));
    fake.fail(1, IFS);
    poll();
    EXPECT_EQ(ends.size(), 4U);
    for (auto const& [tag, status] : ends) {
        EXPECT_LT(tag, 4U);
        EXPECT_EQ(status, Status::Failed);
    }
    ends.clear();
    fake.finish(3);
    for (u32 i = 0; i < 3; i++)
        EXPECT_EQ(take(10 + i), Status::Good);
    fake.holds = false;
    EXPECT_TRUE(has_recovered());
}

TEST_F(AhciTest, ACommandThatNeverEndsFailsAndTheDiskIsGivenUpInTheEnd) {
    start_with(FakeDisk::disk(1000));
    disk().is_dead = true;
    EXPECT_TRUE(write_one(1));
    u64 const before = fake.now;
    EXPECT_TRUE(run_until([&] { return ends.contains(1); }));
    EXPECT_GE(fake.now - before, 10'000 * ticks);
    EXPECT_EQ(take(1), Status::Failed);
    EXPECT_TRUE(run_until([&] { return write_one(2); }));
    EXPECT_EQ(take(2), Status::Failed);
    EXPECT_TRUE(fake.has_line("given up"));
    EXPECT_EQ(fake.link_resets, block::Ahci::most_recoveries);
    EXPECT_EQ(ahci->deadline(), Controller::never);
}

TEST_F(AhciTest, ACommandThatIsRungAfterAPollHasATimeLimit) {
    start_with(FakeDisk::disk(1000));
    disk().is_dead = true;
    EXPECT_TRUE(submit(1, Operation::Read));
    poll();
    ahci->ring();
    EXPECT_LE(ahci->deadline(), fake.now + 10'000 * ticks);
    EXPECT_TRUE(run_until([&] { return ends.contains(1); }));
}

TEST_F(AhciTest, APortThatDoesNotStopIsStoppedWithTheController) {
    start_with(FakeDisk::disk(1000));
    fake.holds = true;
    EXPECT_TRUE(write_one(1));
    fake.never_stops = true;
    fake.fail(1, IFS);
    poll();
    EXPECT_TRUE(ends.empty()) << "the port may still write to memory";
    EXPECT_TRUE(run_until([&] { return !ends.empty(); }));
    EXPECT_FALSE(fake.bus_master);
    EXPECT_EQ(take(1), Status::Failed);
    fake.never_stops = fake.holds = false;
    EXPECT_TRUE(has_recovered());
    EXPECT_EQ(fake.resets, 2U);
}

TEST_F(AhciTest, AnotherDiskInItsPlaceIsNotUsed) {
    start_with(FakeDisk::disk(1000));
    fake.fail(1, 1U << 22);
    disk().identify = FakeDisk::disk(1001).identify;
    poll();
    EXPECT_TRUE(run_until([&] { return write_one(1); }));
    EXPECT_EQ(take(1), Status::Failed);
    EXPECT_TRUE(fake.has_line("another disk is there"));
}

TEST_F(AhciTest, AControllerThatIsGoneFailsAllCommands) {
    start_with(FakeDisk::disk(1000));
    fake.holds = true;
    for (u32 i = 0; i < 5; i++)
        EXPECT_TRUE(write_one(i));
    fake.is_gone = true;
    poll();
    EXPECT_EQ(ahci->state(), Controller::State::Failed);
    for (u32 i = 0; i < 5; i++)
        EXPECT_EQ(take(i), Status::Failed);
    EXPECT_FALSE(write_one(7));
    EXPECT_FALSE(fake.bus_master);
}

TEST_F(AhciTest, FailsWithoutAResetAndWithoutTheRightMemory) {
    fake.never_resets = true;
    start();
    EXPECT_EQ(ahci->failure(), "does not come back from a reset");
    EXPECT_LT(fake.now, 1'100 * ticks);
    EXPECT_FALSE(fake.was_bus_master);
    fake.never_resets = false;
    fake.capabilities &= 0x7fff'ffff;
    fake.shared_address = u64{1} << 32;
    start();
    EXPECT_EQ(ahci->failure(), "got memory above 4 GiB");
    fake.is_gone = true;
    start();
    EXPECT_EQ(ahci->failure(), "does not answer");
}

TEST_F(AhciTest, AControllerOf32BitsGetsNoHighAddresses) {
    fake.capabilities &= 0x3fff'ffff; // nor has it queues
    start_with(FakeDisk::disk(1000));
    EXPECT_EQ(ahci->limits().highest_address, 0xffff'ffffU);
    EXPECT_EQ(ahci->limits().depth, 1U);
    EXPECT_TRUE(submit(1, Operation::Write, 0, {{0xffff'ff00, 512}}));
    EXPECT_EQ(take(1), Status::Failed);
    EXPECT_TRUE(write_one(2));
    EXPECT_EQ(take(2), Status::Good);
}

TEST_F(AhciTest, CommandsThatBreakTheLimitsReachNoDisk) {
    start_with(FakeDisk::disk(1000));
    std::vector<std::vector<Piece>> const wrong = {{},
                                                   {{buffer, 511}},
                                                   {{buffer + 1, 512}},
                                                   {{buffer, 0x80002}},
                                                   {{buffer, 0x80000}, {buffer, 512}},
                                                   {{buffer, 0}},
                                                   std::vector<Piece>(121, Piece{buffer, 512})};
    for (auto const& pieces : wrong) {
        EXPECT_TRUE(submit(1, Operation::Read, 0, pieces));
        EXPECT_EQ(take(1), Status::Failed);
    }
    EXPECT_TRUE(submit(1, Operation::Read, 999, {{buffer, 1024}}));
    EXPECT_EQ(take(1), Status::Failed);
    EXPECT_TRUE(submit(1, Operation::Read, ~u64{0}));
    EXPECT_EQ(take(1), Status::Failed);
    EXPECT_TRUE(submit(1, Operation::Read, 0, std::vector<Piece>(120, Piece{buffer, 512})));
    ahci->ring();
    EXPECT_EQ(take(1), Status::Good);
    EXPECT_EQ(disk().commands.size(), 2U);
}

} // namespace
} // namespace ahci_test
