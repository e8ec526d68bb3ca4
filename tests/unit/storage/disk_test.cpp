// SPDX-License-Identifier: MIT
// Requests for a part of a machine's disk: how they become commands, and what becomes of those that cannot.
#include "disks.hpp"

#include <gtest/gtest.h>

namespace {

using namespace storage_test;

[[maybe_unused]] bool const reports = [] {
    on_broken_promise = [](char const* what) { ADD_FAILURE() << what; };
    return true;
}();

constexpr u64 header_at = 0x8000, status_at = 0x8800, data_at = 0x1'0000;
constexpr u64 part_begin = 64 * lib::KiB, part_size = lib::MiB;

struct DiskTest : testing::Test {
    DiskWorld machine;
    World& world = machine.world;
    MachineDisk disk;
    Guest& guest;
    Driver driver;

    explicit DiskTest(u32 sector_size = 512, u64 bounce = 16 * lib::KiB)
        : machine(bounce), disk(2 * lib::MiB / sector_size, sector_size), guest(world.add_disk(8, false, 1, 0x4'0000)),
          driver(world, 0, 0, 64) {
        machine.disks = {&disk};
        machine.use_disk(0, part_begin, part_size, 0x8000);
        for (std::size_t i = 0; i < disk.bytes.size(); i++)
            disk.bytes[i] = number(i);
        driver.start();
    }
    FakeController& controller() { return *machine.controller; }
    static u8 number(u64 at) { return static_cast<u8>(at / 256 * 7 + at); }
    void start() {
        world.start();
        world.run();
    }
    void add(u32 slot, u32 type, u64 first, std::vector<Buffer> const& data) {
        std::vector<Buffer> chain = {{header_at + slot * u64{16}, 16, false}};
        chain.insert(chain.end(), data.begin(), data.end());
        chain.push_back({status_at + slot, 1, true});
        driver.put_header(header_at + slot * u64{16}, type, first);
        guest.put<u8>(status_at + slot, untouched);
        driver.add(chain);
        driver.ring();
    }
    u8 status(u32 slot = 0) { return guest.get<u8>(status_at + slot); }
    // Serves one request of one buffer, and returns its status.
    u8 serve(u32 type, u64 first, u32 size, u64 at = data_at) {
        add(0, type, first, size == 0 ? std::vector<Buffer>{} : std::vector<Buffer>{{at, size, type == IN}});
        machine.settle();
        if (!driver.has_used()) return untouched;
        written = driver.next_used().written;
        return status();
    }
    u32 written = 0;
    bool disk_is_untouched() {
        for (std::size_t i = 0; i < disk.bytes.size(); i++)
            if (disk.bytes[i] != number(i)) return false;
        return true;
    }
    bool is_read(u64 at, u64 first, u64 size) {
        return std::memcmp(guest.bytes() + at, disk.bytes.data() + part_begin + first * sector, size) == 0;
    }
};

TEST_F(DiskTest, ReadComesFromThePart) {
    start();
    EXPECT_EQ(serve(IN, 3, 4096), OK);
    EXPECT_EQ(written, 4097U);
    EXPECT_TRUE(is_read(data_at, 3, 4096));
    EXPECT_EQ(controller().commands, 1U);
    EXPECT_TRUE(disk_is_untouched());
    EXPECT_EQ(world.interrupts[0][0], 1U);
}

TEST_F(DiskTest, WriteGoesToThePartAndNowhereElse) {
    start();
    guest.fill(data_at, 0xee, 1024);
    EXPECT_EQ(serve(OUT, part_size / sector - 2, 1024), OK);
    EXPECT_EQ(written, 1U);
    for (std::size_t i = 0; i < disk.bytes.size(); i++) {
        bool const is_written = i >= part_begin + part_size - 1024 && i < part_begin + part_size;
        ASSERT_EQ(disk.bytes[i], is_written ? 0xee : number(i)) << i;
    }
}

TEST_F(DiskTest, NothingBeyondThePartIsReached) {
    start();
    for (u32 const type : {IN, OUT}) {
        EXPECT_EQ(serve(type, part_size / sector, 512), IOERR);
        EXPECT_EQ(written, type == IN ? 0U : 1U);
        EXPECT_EQ(serve(type, part_size / sector - 1, 1024), IOERR);
        EXPECT_EQ(serve(type, (~u64{0} - part_begin / sector) + 1, 512), IOERR);
    }
    EXPECT_EQ(controller().commands, 0U);
}

TEST_F(DiskTest, LongRequestIsCutIntoCommandsThatRunTogether) {
    start();
    add(0, IN, 0, {{data_at, 0x3'0000, true}});
    world.run();
    EXPECT_GT(controller().under_way.size(), 1U);
    machine.settle();
    EXPECT_EQ(status(), OK);
    EXPECT_EQ(driver.next_used().written, 0x3'0001U);
    EXPECT_TRUE(is_read(data_at, 0, 0x3'0000));
    EXPECT_LE(controller().largest, controller().now_limits.most_bytes);
}

TEST_F(DiskTest, OddBuffersGoThroughTheBounceMemory) {
    start();
    add(0, IN, 5, {{data_at + 1, 4096, true}});
    add(1, IN, 20, {{data_at + 0x2002, 300, true}, {data_at + 0x3000, 212, true}});
    machine.settle();
    EXPECT_TRUE(is_read(data_at + 1, 5, 4096));
    EXPECT_TRUE(is_read(data_at + 0x2002, 20, 300));
    for (u32 i = 0; i < 212; i++)
        ASSERT_EQ(guest.get<u8>(data_at + 0x3000 + i), disk.bytes[part_begin + 20 * sector + 300 + i]);
    EXPECT_EQ(status(0), OK);
    EXPECT_EQ(status(1), OK);
    EXPECT_EQ(driver.next_used().written, 4097U);
    EXPECT_EQ(driver.next_used().written, 513U);
}

TEST_F(DiskTest, BounceMemoryHasOneUserAndNobodyIsForgotten) {
    start();
    for (u32 i = 0; i < 16; i++)
        add(i, i % 2 == 0 ? IN : OUT, i * u64{32}, {{data_at + i * u64{0x2000} + 3, 0x1000, i % 2 == 0}});
    world.run();
    EXPECT_EQ(controller().under_way.size(), 1U);
    machine.settle();
    for (u32 i = 0; i < 16; i++) {
        EXPECT_EQ(status(i), OK);
        EXPECT_TRUE(is_read(data_at + i * u64{0x2000} + 3, i * u64{32}, 0x1000)) << i;
    }
}

TEST_F(DiskTest, WithoutBounceMemoryOddBuffersFail) {
    world.connect = [this](storage::Controllers& controllers) {
        machine.controller = std::make_unique<FakeController>(machine.space, machine.disks);
        controllers.add(0, controller(), {});
    };
    start();
    EXPECT_EQ(serve(IN, 5, 4096, data_at + 1), IOERR);
    EXPECT_EQ(serve(IN, 5, 4096), OK);
}

TEST_F(DiskTest, MemoryBeyondTheHighestAddressGoesThroughTheBounceMemory) {
    machine.prepare = [](FakeController& made) { made.now_limits.highest_address = 0x1000'0000; };
    start();
    EXPECT_EQ(serve(IN, 5, 4096), OK);
    EXPECT_TRUE(is_read(data_at, 5, 4096));
}

TEST_F(DiskTest, MemoryThatDevicesDoNotReachIsAnError) {
    service::DeviceEntry& entry = world.board->devices[0];
    for (u32 i = 0; i < entry.ram_piece_count; i++)
        if (entry.pieces[i].base == data_at) entry.pieces[i].size = 0x1000;
    start();
    EXPECT_EQ(serve(IN, 5, 4096), OK);
    for (u64 const at : {data_at + 1, data_at + 512, data_at + 0x1000, data_at + 0x7f00}) {
        EXPECT_EQ(serve(IN, 5, 4096, at), IOERR);
        EXPECT_EQ(written, 0U);
    }
}

TEST_F(DiskTest, FlushIsForADiskWithACache) {
    start();
    EXPECT_EQ(serve(FLUSH, 0, 0), OK);
    EXPECT_EQ(controller().flushes, 1U);
    disk.facts.has_write_cache = false;
    start();
    EXPECT_EQ(serve(FLUSH, 0, 0), OK);
    EXPECT_EQ(controller().flushes, 0U);
}

TEST_F(DiskTest, ZeroesAreWrittenAndNothingIsDiscarded) {
    start();
    guest.put<u64>(data_at, 7);
    guest.put<u64>(data_at + 8, 600);
    guest.put<u64>(data_at + 16, 1024);
    guest.put<u64>(data_at + 24, 1);
    EXPECT_EQ(serve(WRITE_ZEROES, 0, 32), OK);
    for (std::size_t i = 0; i < disk.bytes.size(); i++) {
        u64 const at = (i - part_begin) / sector;
        bool const is_zero = i >= part_begin && ((at >= 7 && at < 607) || at == 1024);
        ASSERT_EQ(disk.bytes[i], is_zero ? 0 : number(i)) << i;
    }
    EXPECT_EQ(serve(DISCARD, 0, 16), UNSUPP);
    guest.put<u64>(data_at + 8, lib::max_cleared_sectors + 1);
    EXPECT_EQ(serve(WRITE_ZEROES, 0, 16), IOERR);
}

TEST_F(DiskTest, FailureOfOneCommandFailsTheRequestWhenAllHaveEnded) {
    start();
    add(0, IN, 0, {{data_at, 0x3'0000, true}});
    world.run();
    std::size_t const count = controller().under_way.size();
    ASSERT_GT(count, 1U);
    controller().end(1, false);
    machine.interrupt();
    world.run();
    EXPECT_FALSE(driver.has_used());
    EXPECT_EQ(controller().under_way.size(), count - 1); // no more begin
    machine.settle();
    EXPECT_EQ(status(), IOERR);
    EXPECT_EQ(driver.next_used().written, 0U);
    add(1, OUT, 0, {{data_at, 512, false}});
    world.run();
    controller().end(0, false);
    world.run();
    EXPECT_EQ(status(1), untouched); // nobody has asked the controller yet
    machine.interrupt();
    world.run();
    EXPECT_EQ(status(1), IOERR);
    EXPECT_EQ(driver.next_used().written, 1U);
}

TEST_F(DiskTest, ReadOnlyDiskOfTheMachineIsNotWritten) {
    disk.facts.is_read_only = true;
    start();
    EXPECT_EQ(serve(OUT, 0, 512), IOERR);
    EXPECT_EQ(serve(IN, 0, 512), OK);
}

TEST_F(DiskTest, RequestsWaitForAControllerThatStarts) {
    machine.prepare = [](FakeController& made) { made.now_state = block::Controller::State::Starting; };
    start();
    add(0, IN, 0, {{data_at, 512, true}});
    EXPECT_EQ(world.run(), 1U); // and the service sleeps
    EXPECT_EQ(status(), untouched);
    controller().now_state = block::Controller::State::Ready;
    machine.interrupt();
    machine.settle();
    EXPECT_EQ(status(), OK);
}

TEST_F(DiskTest, ControllerThatFailsMeansErrorsAndOneLine) {
    start();
    controller().takes = false;
    add(0, IN, 0, {{data_at, 512, true}});
    world.run();
    u32 const before = world.lines;
    controller().now_state = block::Controller::State::Failed;
    machine.interrupt();
    world.run();
    EXPECT_EQ(status(), IOERR);
    driver.next_used();
    for (u32 const type : {IN, OUT, GET_ID})
        EXPECT_EQ(serve(type, 0, 512), IOERR);
    EXPECT_EQ(serve(FLUSH, 0, 0), IOERR);
    EXPECT_EQ(world.lines, before + 1);
}

TEST_F(DiskTest, PartThatTheDiskDoesNotHaveMeansErrorsAndOneLine) {
    service::DeviceEntry& entry = world.board->devices[0];
    service::DeviceEntry const good = entry;
    auto const expect_errors = [&](auto change, int line = __builtin_LINE()) {
        entry = good;
        change(entry);
        driver.start();
        u32 const before = world.lines;
        start();
        EXPECT_EQ(serve(IN, 0, 512), IOERR) << line;
        EXPECT_EQ(world.lines, before + 2) << line;
        EXPECT_EQ(controller().commands, 0U) << line;
    };
    using Entry = service::DeviceEntry;
    expect_errors([](Entry& e) { e.controller = 1; });
    expect_errors([](Entry& e) { e.unit = 1; });
    expect_errors([](Entry& e) { e.medium_begin = lib::MiB + 512; });
    expect_errors([](Entry& e) { e.medium_begin = 2 * lib::MiB; });
    expect_errors([](Entry& e) { e.medium_begin = ~u64{511}; });
    expect_errors([](Entry& e) { e.medium_size = 2 * lib::MiB - part_begin + 512; });
    entry = good;
    driver.start();
    start();
    EXPECT_EQ(serve(IN, 0, 512), OK);
}

// A disk that was there for an instance before is missing: the next one must not take its neighbour's place.
TEST_F(DiskTest, DiskIsFoundByItsIdWhicheverOthersThereAre) {
    MachineDisk other(2 * lib::MiB / 512, 512, 99);
    machine.disks = {&other, &disk};
    start();
    EXPECT_EQ(serve(OUT, 0, 512), OK);
    EXPECT_EQ(controller().commands, 1U);
    EXPECT_FALSE(disk_is_untouched());
    machine.disks = {&other};
    driver.start();
    start();
    EXPECT_EQ(serve(OUT, 0, 512), IOERR);
    EXPECT_TRUE(std::ranges::all_of(other.bytes, [](u8 byte) { return byte == 0; }));
}

TEST_F(DiskTest, ServiceWithoutControllersAnswersWithErrors) {
    world.connect = {};
    world.start();
    world.run();
    add(0, IN, 0, {{data_at, 512, true}});
    world.run();
    EXPECT_EQ(status(), IOERR);
}

TEST_F(DiskTest, EntryThatMakesNoSenseIsLeftOut) {
    service::DeviceEntry& entry = world.board->devices[0];
    service::DeviceEntry const good = entry;
    auto const expect_ignored = [&](auto change, int line = __builtin_LINE()) {
        entry = good;
        change(entry);
        driver.start();
        start();
        EXPECT_EQ(serve(IN, 0, 512), untouched) << line;
    };
    using Entry = service::DeviceEntry;
    expect_ignored([](Entry& e) { e.medium_kind = static_cast<service::MediumKind>(2); });
    expect_ignored([](Entry& e) { e.controller = service::max_controllers; });
    expect_ignored([](Entry& e) { e.medium_begin = 100; });
    expect_ignored([](Entry& e) { e.ram_piece_count = service::max_ram_pieces + 1; });
    expect_ignored([](Entry& e) { std::swap(e.pieces[0], e.pieces[1]); });
    expect_ignored([](Entry& e) { e.pieces[0].size++; });
    expect_ignored([](Entry& e) { e.pieces[1].size = 0; });
    expect_ignored([](Entry& e) { e.pieces[2].size = ~u64{0}; });
    expect_ignored([](Entry& e) { e.pieces[2].address = ~u64{0} - 100; });
}

struct LargeSectorTest : DiskTest {
    LargeSectorTest() : DiskTest(4096) {}
};

TEST_F(LargeSectorTest, WholeSectorsAreServedAndPartsAreRefused) {
    start();
    EXPECT_EQ(serve(IN, 8, 8192), OK);
    EXPECT_TRUE(is_read(data_at, 8, 8192));
    EXPECT_EQ(serve(IN, 8, 8192, data_at + 512), OK); // inside of a page
    EXPECT_TRUE(is_read(data_at + 512, 8, 8192));
    EXPECT_EQ(serve(IN, 1, 4096), IOERR);
    EXPECT_EQ(serve(OUT, 8, 512), IOERR);
    EXPECT_EQ(serve(OUT, 4, 4096), IOERR);
    guest.put<u64>(data_at, 8);
    guest.put<u64>(data_at + 8, 4);
    EXPECT_EQ(serve(WRITE_ZEROES, 0, 16), IOERR);
    EXPECT_TRUE(disk_is_untouched());
    guest.put<u64>(data_at + 8, 80);
    EXPECT_EQ(serve(WRITE_ZEROES, 0, 16), OK);
    for (std::size_t i = 0; i < disk.bytes.size(); i++)
        ASSERT_EQ(disk.bytes[i], i / 4096 >= 17 && i / 4096 < 27 ? 0 : number(i)) << i;
}

TEST_F(LargeSectorTest, SectorThatIsScatteredGoesThroughTheBounceMemory) {
    start();
    std::vector<Buffer> buffers;
    for (u32 i = 0; i < 16; i++) {
        buffers.push_back({data_at + i * u64{0x1000}, 512, false});
        guest.fill(data_at + i * u64{0x1000}, static_cast<u8>(i + 1), 512);
    }
    add(0, OUT, 16, buffers);
    machine.settle();
    EXPECT_EQ(status(), OK);
    for (u32 i = 0; i < 8192; i++)
        ASSERT_EQ(disk.bytes[part_begin + 8192 + i], i / 512 + 1);
}

TEST_F(LargeSectorTest, PartThatBeginsInsideOfASectorIsOutOfOrder) {
    world.board->devices[0].medium_begin = part_begin + 512;
    start();
    EXPECT_EQ(serve(IN, 0, 4096), IOERR);
}

} // namespace
