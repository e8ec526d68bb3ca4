// SPDX-License-Identifier: MIT
// Many requests under way at once: their order, their share of controller and memory, and queues that stop while some
// are.
#include "disks.hpp"

#include <functional>
#include <gtest/gtest.h>

namespace {

using namespace storage_test;

constexpr u64 header_at = 0x8000, status_at = 0x9000, data_at = 0x1'0000;
constexpr u64 part_size = 256 * lib::KiB;

struct PipelineTest : testing::Test {
    DiskWorld machine;
    World& world = machine.world;
    MachineDisk disk{4 * lib::MiB / 512, 512};

    // A guest with a part of the disk of its own.
    Guest& add_guest(u32 queues = 1) {
        machine.disks = {&disk};
        u32 const device = static_cast<u32>(world.guests.size());
        Guest& guest = world.add_disk(8, false, queues, 0x4'0000);
        machine.use_disk(device, device * part_size, part_size, 0x8000);
        return guest;
    }
    FakeController& controller() { return *machine.controller; }
    void start() {
        world.start();
        world.run();
    }
    // Request `slot` of a queue: one sector, each with memory of its own.
    void add(Guest& guest, Driver& driver, u32 slot, u32 type, u32 queue = 0) {
        u32 const number = slot + queue * 64;
        u64 const header = header_at + number * u64{16};
        driver.put_header(header, type, number);
        guest.put<u8>(status_at + number, untouched);
        if (type == FLUSH)
            driver.add({{header, 16, false}, {status_at + number, 1, true}});
        else
            driver.add(
                {{header, 16, false}, {data_at + number * sector, sector, type == IN}, {status_at + number, 1, true}});
        driver.ring();
    }
};

TEST_F(PipelineTest, RequestsEndInAnyOrderAndAreGivenBackInTheirs) {
    Guest& guest = add_guest();
    Driver driver(world, 0, 0, 64);
    driver.start();
    start();
    for (u32 i = 0; i < 6; i++)
        add(guest, driver, i, i % 2 == 0 ? IN : OUT);
    world.run();
    ASSERT_EQ(controller().under_way.size(), 6U);
    for (u32 i = 5; i != 0; i--) {
        controller().end(i);
        machine.interrupt();
        world.run();
        EXPECT_EQ(driver.device_index(), 0);
    }
    u32 const before = world.interrupts[0][0];
    controller().end(0);
    machine.interrupt();
    world.run();
    EXPECT_EQ(driver.device_index(), 6);
    EXPECT_EQ(world.interrupts[0][0], before + 1); // for all of them
    for (u32 i = 0; i < 6; i++)
        EXPECT_EQ(driver.next_used().id, i * 3);
}

TEST_F(PipelineTest, RecordSaysHowManyWereGivenBack) {
    Guest& guest = add_guest();
    Driver driver(world, 0, 0, 64);
    driver.start();
    start();
    for (u32 i = 0; i < 4; i++)
        add(guest, driver, i, IN);
    world.run();
    EXPECT_EQ(world.records->queues[0][0].next, 0);
    controller().end(1);
    controller().end(0);
    machine.interrupt();
    world.run();
    EXPECT_EQ(world.records->queues[0][0].next, 2);
    EXPECT_EQ(world.records->queues[0][0].used_index, 2);
}

TEST_F(PipelineTest, FullControllerServesQueuesInTurns) {
    machine.prepare = [](FakeController& made) { made.now_limits.depth = 1; };
    Guest& first = add_guest(2);
    Guest& second = add_guest();
    Driver a(world, 0, 0, 64), b(world, 0, 1, 64), c(world, 1, 0, 64);
    for (Driver* const driver : {&a, &b, &c})
        driver->start();
    start();
    for (u32 i = 0; i < 10; i++)
        add(first, a, i, IN, 0);
    world.run();
    for (u32 i = 0; i < 10; i++)
        add(first, b, i, IN, 1);
    for (u32 i = 0; i < 10; i++)
        add(second, c, i, IN);
    for (u32 i = 1; i <= 30; i++) {
        world.run();
        ASSERT_EQ(controller().under_way.size(), 1U);
        controller().end(0);
        machine.interrupt();
        world.run();
        if (i > 29) break;
        EXPECT_NEAR(a.device_index(), i / 3.0, 1.5);
        EXPECT_NEAR(b.device_index(), i / 3.0, 1.5);
        EXPECT_NEAR(c.device_index(), i / 3.0, 1.5);
    }
}

TEST_F(PipelineTest, BusyDiskLeavesRoomForOthers) {
    machine.prepare = [](FakeController& made) { made.takes = false; };
    Guest& busy = add_guest(4);
    Guest& other = add_guest();
    std::vector<Driver> drivers;
    for (u32 i = 0; i < 4; i++)
        drivers.emplace_back(world, 0, i, u16{64}).start();
    Driver quiet(world, 1, 0, 64);
    quiet.start();
    start();
    for (u32 i = 0; i < 21; i++)
        for (u32 queue = 0; queue < 4; queue++)
            add(busy, drivers[queue], i, IN, queue);
    world.run();
    add(other, quiet, 0, IN);
    world.run();
    controller().takes = true;
    controller().now_limits.depth = 200;
    machine.interrupt();
    world.run();
    bool is_there = false;
    for (auto const& one : controller().under_way)
        is_there |= one.command.sector >= part_size / sector;
    EXPECT_TRUE(is_there);
    machine.settle();
    EXPECT_EQ(quiet.device_index(), 1);
    for (Driver& driver : drivers)
        EXPECT_EQ(driver.device_index(), 21);
}

TEST_F(PipelineTest, RoomThatBecomesFreeGoesToThoseThatWait) {
    machine.prepare = [](FakeController& made) { made.now_limits.depth = 200; };
    std::vector<Driver> drivers;
    for (u32 device = 0; device < 2; device++) {
        add_guest(4);
        for (u32 i = 0; i < 4; i++)
            drivers.emplace_back(world, device, i, u16{64}).start();
    }
    start();
    for (u32 i = 0; i < drivers.size(); i++) {
        for (u32 slot = 0; slot < 21; slot++)
            add(*world.guests[i / 4], drivers[i], slot, IN, i % 4);
        world.run();
    }
    auto const is_first = [](auto const& one) { return one.command.sector < part_size / sector; };
    auto& under_way = controller().under_way;
    EXPECT_EQ(under_way.size(), 104U); // 8 queues with one each, and what is shared
    while (std::ranges::any_of(under_way, is_first))
        controller().end(static_cast<std::size_t>(std::ranges::find_if(under_way, is_first) - under_way.begin()));
    machine.interrupt(); // and no doorbell
    world.run();
    EXPECT_EQ(std::ranges::count_if(under_way, std::not_fn(is_first)), 84);
    machine.settle();
    for (Driver& driver : drivers)
        EXPECT_EQ(driver.device_index(), 21);
}

TEST_F(PipelineTest, ControllerThatRecoversIsTriedAgain) {
    Guest& guest = add_guest();
    Driver driver(world, 0);
    driver.start();
    start();
    controller().takes = false;
    controller().next_call = 100;
    for (u32 i = 0; i < 4; i++)
        add(guest, driver, i, OUT);
    EXPECT_LE(world.run(), 2U);
    EXPECT_EQ(world.instance->deadline(), 100U);
    controller().takes = true;
    controller().next_call = block::Controller::never;
    world.now = 100;
    machine.settle();
    EXPECT_EQ(driver.device_index(), 4);
}

TEST_F(PipelineTest, StoppedQueueGetsNothingBackAndIsAnsweredAtTheEnd) {
    Guest& guest = add_guest();
    Driver driver(world, 0);
    driver.start();
    start();
    EXPECT_TRUE(world.answers[0].empty());
    for (u32 i = 0; i < 4; i++)
        add(guest, driver, i, IN);
    world.run();
    ASSERT_EQ(controller().under_way.size(), 4U);
    driver.stop();
    world.board->devices[0].stops = 1;
    world.run();
    EXPECT_TRUE(world.answers[0].empty());
    for (u32 i = 0; i < 4; i++) {
        controller().end(0);
        machine.interrupt();
        world.run();
        EXPECT_EQ(world.answers[0].size(), i == 3 ? 1U : 0U);
    }
    EXPECT_EQ(world.answers[0], (std::vector<u32>{1}));
    for (u32 i = 0; i < 4; i++)
        EXPECT_EQ(guest.get<u8>(status_at + i), untouched);
    EXPECT_EQ(driver.device_index(), 0);
    driver.start();
    world.run();
    add(guest, driver, 0, IN);
    machine.settle();
    EXPECT_EQ(driver.device_index(), 1);
    EXPECT_EQ(world.answers[0].size(), 1U);
}

TEST_F(PipelineTest, BouncedReadOfAStoppedQueueDoesNotReachItsMemory) {
    Guest& guest = add_guest();
    std::ranges::fill(disk.bytes, u8{0x77});
    Driver driver(world, 0);
    driver.start();
    start();
    driver.put_header(header_at, IN, 0);
    driver.add({{header_at, 16, false}, {data_at + 1, 512, true}, {status_at, 1, true}});
    driver.ring();
    world.run();
    ASSERT_EQ(controller().under_way.size(), 1U);
    driver.stop();
    world.board->devices[0].stops = 1;
    world.run();
    machine.settle();
    EXPECT_TRUE(guest.is_filled(data_at, 0, 0x1000));
    EXPECT_EQ(world.answers[0], (std::vector<u32>{1}));
    driver.start(); // the bounce memory is free again
    world.run();
    driver.put_header(header_at, IN, 0);
    driver.add({{header_at, 16, false}, {data_at + 1, 512, true}, {status_at, 1, true}});
    driver.ring();
    machine.settle();
    EXPECT_TRUE(guest.is_filled(data_at + 1, 0x77, 512));
}

TEST_F(PipelineTest, MemoryMediumAnswersItsStopInTheSameTurn) {
    world.add_disk(8);
    Driver driver(world, 0);
    driver.start();
    start();
    driver.stop();
    world.board->devices[0].stops = 3;
    world.turn();
    EXPECT_EQ(world.answers[0], (std::vector<u32>{3}));
    world.change_board();
    world.run();
    EXPECT_EQ(world.answers[0].size(), 1U);
}

TEST_F(PipelineTest, InterruptThatMayBeLostDoesNotWaitForTheController) {
    add_guest();
    Driver driver(world, 0);
    driver.start();
    start();
    machine.prepare = [](FakeController& made) { made.now_state = block::Controller::State::Starting; };
    u32 const before = world.interrupts[0][0];
    start();
    EXPECT_EQ(world.interrupts[0][0], before + 1);
    machine.interrupt();
    world.run();
    EXPECT_EQ(world.interrupts[0][0], before + 1);
}

TEST_F(PipelineTest, NewInstanceAnswersAtOnce) {
    Guest& guest = add_guest();
    Driver driver(world, 0);
    driver.start();
    start();
    add(guest, driver, 0, IN);
    world.run();
    driver.stop();
    world.board->devices[0].stops = 7;
    world.start(); // what was under way went with its controller
    world.turn();
    EXPECT_EQ(world.answers[0], (std::vector<u32>{7}));
}

TEST_F(PipelineTest, QueueThatStartsAgainIsNotConfusedByOldEnds) {
    Guest& guest = add_guest();
    Driver driver(world, 0);
    driver.start();
    start();
    for (u32 i = 0; i < 3; i++)
        add(guest, driver, i, OUT);
    world.run();
    driver.stop();
    world.run();
    driver.start();
    world.run();
    for (u32 i = 3; i < 5; i++)
        add(guest, driver, i, OUT);
    world.run();
    ASSERT_EQ(controller().under_way.size(), 5U);
    for (u32 i = 0; i < 3; i++) {
        controller().end(0);
        machine.interrupt();
        world.run();
        EXPECT_EQ(driver.device_index(), 0);
    }
    machine.settle();
    EXPECT_EQ(driver.device_index(), 2);
}

TEST_F(PipelineTest, DeviceMayLeaveTheBoardWhileCommandsAreUnderWay) {
    Guest& guest = add_guest();
    Driver driver(world, 0);
    driver.start();
    start();
    for (u32 i = 0; i < 3; i++)
        add(guest, driver, i, OUT);
    world.run();
    service::DeviceEntry const entry = world.board->devices[0];
    world.board->devices[0] = {};
    world.change_board();
    world.run();
    controller().end(1);
    machine.interrupt();
    world.run();
    world.board->devices[0] = entry;
    world.board->devices[0].medium_size /= 2;
    world.board->devices[0].queues[0].epoch++;
    world.change_board();
    world.run();
    machine.settle();
    EXPECT_EQ(guest.get<u16>(driver.used() + 2), 3); // taken again, as the record is of another epoch
}

TEST_F(PipelineTest, MisuseDropsWhatIsUnderWay) {
    Guest& guest = add_guest();
    Driver driver(world, 0);
    driver.start();
    start();
    add(guest, driver, 0, IN);
    world.run();
    driver.add({{header_at, 4, false}});
    driver.ring();
    machine.settle();
    EXPECT_EQ(world.misuses[0], 1U);
    EXPECT_EQ(driver.device_index(), 0);
    EXPECT_EQ(guest.get<u8>(status_at), untouched);
    driver.start();
    world.run();
    add(guest, driver, 0, IN);
    machine.settle();
    EXPECT_EQ(driver.device_index(), 1);
}

} // namespace
