// SPDX-License-Identifier: MIT
// Limits of rate of guests' disks, over simulated time: what each gets, and that nobody else pays for it.
#include "disks.hpp"

#include <gtest/gtest.h>

namespace {

using namespace storage_test;

[[maybe_unused]] bool const reports = [] {
    on_broken_promise = [](char const* what) { ADD_FAILURE() << what; };
    return true;
}();

constexpr u64 header_at = 0x8000, status_at = 0x9000, data_at = 0x1'0000;
constexpr u64 second = World::hz, millisecond = second / 1'000;
constexpr u32 most_data = 0x6'0000; // bytes of a request

// A driver that has always so many requests in its queue.
class Stream {
public:
    u64 done = 0;
    u32 type = IN, size = 4096, depth = 8;
    bool is_open = true; // adds requests

    Stream(World& world, u32 device, u32 queue = 0)
        : guest_(*world.guests[device]), driver_(world, device, queue, 64), base_(queue * u64{0x100}) {
        driver_.start();
    }
    Driver& driver() { return driver_; }
    u64 bytes() const { return done * size; }
    void start() {
        driver_.start();
        in_queue_ = 0;
    }
    // Takes what was given back and adds as much. Returns whether there was something.
    bool go_on() {
        bool const has_used = driver_.has_used();
        for (; driver_.has_used(); in_queue_--, done++) {
            driver_.next_used();
            EXPECT_EQ(guest_.get<u8>(status_at + base_), OK);
        }
        for (; is_open && in_queue_ < depth; in_queue_++)
            add();
        driver_.ring();
        return has_used;
    }

private:
    void add() {
        u64 const header = header_at + base_ + (type == FLUSH ? 0x10 : 0);
        driver_.put_header(header, type, 0);
        if (type == FLUSH)
            driver_.add({{header, 16, false}, {status_at + base_, 1, true}});
        else
            driver_.add({{header, 16, false}, {data_at, size, type == IN}, {status_at + base_, 1, true}});
    }

    Guest& guest_;
    Driver driver_;
    u64 base_;
    u32 in_queue_ = 0;
};

struct LimitsTest : testing::Test {
    DiskWorld machine;
    World& world = machine.world;
    MachineDisk disk{16 * lib::MiB / sector, 512};
    std::vector<Stream*> streams;
    u64 wakes = 0;

    LimitsTest() {
        machine.disks = {&disk};
        machine.prepare = [](FakeController& controller) {
            controller.ends = controller.may_share = true;
            controller.now_limits.depth = 32;
        };
        world.now = 1'234'567'891;
    }
    Guest& add_disk(u64 iops, u64 bandwidth, u32 queues = 1) {
        Guest& guest = world.add_disk(2 * lib::MiB / sector, false, queues, 0x8'0000);
        service::DeviceEntry& entry = world.board->devices[world.guests.size() - 1];
        entry.iops = static_cast<u32>(iops);
        entry.bandwidth = bandwidth;
        return guest;
    }
    void start() {
        world.start();
        settle();
    }
    // A part of the machine's disk instead of memory.
    void add_part(u64 iops, u64 bandwidth, u32 queues = 1) {
        add_disk(iops, bandwidth, queues);
        auto const device = static_cast<u32>(world.guests.size() - 1);
        machine.use_disk(device, device * 4 * lib::MiB, 2 * lib::MiB, 0x8'0000);
    }
    // Everything that can be done at this time.
    void settle() {
        for (bool is_first = true, has_used = true; is_first || has_used; is_first = false) {
            has_used = false;
            for (Stream* const stream : streams)
                has_used = stream->go_on() || has_used;
            ASSERT_LT(world.run(), 10'000U);
            for (Stream* const stream : streams)
                has_used = has_used || stream->driver().has_used();
        }
    }
    // Time goes on, by the moments at which the service wants to be woken.
    void pass(u64 time) {
        u64 const end = world.now + time;
        for (settle(); world.instance->deadline() <= end; wakes++) {
            ASSERT_GT(world.instance->deadline(), world.now);
            world.now = world.instance->deadline();
            settle();
        }
        world.now = end;
        settle();
    }
};

TEST_F(LimitsTest, RequestsASecondAreExact) {
    for (u64 const iops : {u64{1}, u64{50}, u64{999}, u64{5'000}}) {
        world.guests.clear();
        world.board = std::make_unique<service::Board>();
        add_disk(iops, 0);
        Stream stream(world, 0);
        streams = {&stream};
        wakes = 0;
        start();
        pass(10 * second);
        u64 const burst = std::max<u64>(iops / 10, 1);
        EXPECT_LE(stream.done, iops * 10 + burst) << iops;
        EXPECT_GE(stream.done, iops * 10 + burst - iops / 1'000 - 2) << iops;
        EXPECT_LE(wakes, 10'001U) << "it was woken more than once a millisecond";
    }
}

TEST_F(LimitsTest, BytesASecondAreExact) {
    constexpr u64 rate = lib::MiB;
    for (u32 const type : {IN, OUT})
        for (u32 const size : {512U, 4096U, 0x1'0000U, most_data}) {
            world.guests.clear();
            world.board = std::make_unique<service::Board>();
            add_disk(0, rate);
            Stream stream(world, 0);
            stream.type = type;
            stream.size = size;
            streams = {&stream};
            start();
            pass(10 * second);
            EXPECT_LE(stream.bytes(), rate * 10 + rate / 10 + size) << size;
            EXPECT_GE(stream.bytes() + size + rate / 500, rate * 10 + rate / 10) << size;
        }
}

TEST_F(LimitsTest, BothLimitsHoldTogether) {
    add_disk(100, 100 * 4096);
    Stream stream(world, 0);
    streams = {&stream};
    start();
    pass(2 * second);
    EXPECT_NEAR(static_cast<double>(stream.done), 210, 2);
    stream.size = 512;
    pass(second);
    stream.done = 0;
    pass(10 * second);
    EXPECT_NEAR(static_cast<double>(stream.done), 1'000, 2);
    stream.size = 0x1'0000;
    pass(5 * second);
    stream.done = 0;
    pass(16 * second);
    EXPECT_NEAR(static_cast<double>(stream.done), 100, 2); // 6.25 a second
}

TEST_F(LimitsTest, ARestGivesABurstAndNoMore) {
    add_disk(50, 0);
    add_disk(0, lib::MiB);
    Stream requests(world, 0), bytes(world, 1);
    bytes.size = 512;
    streams = {&requests, &bytes};
    start();
    EXPECT_EQ(requests.done, 5U);
    EXPECT_EQ(bytes.done, lib::MiB / 10 / 512);
    for (Stream* const stream : streams) {
        stream->is_open = false;
        pass(second);
        stream->done = 0;
    }
    pass(100 * second);
    for (Stream* const stream : streams)
        stream->is_open = true;
    settle();
    EXPECT_LE(requests.done, 5U);
    EXPECT_LE(bytes.done, lib::MiB / 10 / 512);
}

TEST_F(LimitsTest, ARequestLargerThanTheBurstIsServedAndPaidOff) {
    add_disk(0, 64 * lib::KiB);
    Stream stream(world, 0);
    stream.size = most_data;
    stream.depth = 1;
    streams = {&stream};
    start();
    EXPECT_EQ(stream.done, 1U);
    pass(5'800 * millisecond);
    EXPECT_EQ(stream.done, 1U);
    pass(200 * millisecond);
    EXPECT_EQ(stream.done, 2U);
}

TEST_F(LimitsTest, ZeroedBytesCount) {
    Guest& guest = add_disk(0, 2 * lib::MiB);
    Driver driver(world, 0);
    driver.start();
    start();
    auto const zero = [&](u32 type) {
        driver.put_header(header_at, type, 0);
        guest.put<u64>(header_at + 16, 0); // one range: everything
        guest.put<u32>(header_at + 24, 2 * lib::MiB / sector);
        guest.put<u32>(header_at + 28, 0);
        driver.add({{header_at, 32, false}, {status_at, 1, true}});
        driver.ring();
    };
    u16 done = 0;
    for (u32 const type : {DISCARD, WRITE_ZEROES, DISCARD}) {
        zero(type);
        pass(done == 0 ? 300 * millisecond : 800 * millisecond);
        EXPECT_EQ(driver.device_index(), done) << "a slice is 1 MiB";
        pass(200 * millisecond);
        EXPECT_EQ(driver.device_index(), ++done);
    }
    EXPECT_EQ(world.statistics->devices[0].bytes[3], 6 * lib::MiB);
}

TEST_F(LimitsTest, AFlushIsARequestAndHasNoBytes) {
    add_disk(0, 64 * lib::KiB, 2);
    add_disk(1, 0);
    Stream reads(world, 0), flushes(world, 0, 1), others(world, 1);
    reads.size = most_data;
    flushes.type = others.type = FLUSH;
    flushes.is_open = false;
    streams = {&reads, &flushes, &others};
    start();
    EXPECT_EQ(others.done, 1U);
    ASSERT_EQ(reads.done, 1U);
    flushes.is_open = true;
    flushes.depth = 1;
    flushes.go_on();
    flushes.is_open = false;
    settle();
    EXPECT_EQ(flushes.done, 1U) << "at once, while reads wait for six seconds";
    pass(10 * second);
    EXPECT_EQ(others.done, 11U);
}

TEST_F(LimitsTest, ANeighbourIsNotDelayed) {
    add_disk(1, 64 * lib::KiB);
    add_disk(0, 0);
    Stream slow(world, 0), quick(world, 1);
    streams = {&slow};
    start();
    streams = {&slow, &quick};
    quick.is_open = false;
    for (u32 i = 1; i <= 1'000; i++) {
        quick.is_open = true;
        quick.depth = 1;
        quick.go_on();
        quick.is_open = false;
        settle();
        ASSERT_EQ(quick.done, i);
    }
    EXPECT_EQ(slow.done, 1U);
}

TEST_F(LimitsTest, ADoorbellOfADiskThatWaitsDoesNothing) {
    add_disk(1, 0, 4);
    Stream stream(world, 0);
    streams = {&stream};
    start();
    u64 const deadline = world.instance->deadline();
    EXPECT_EQ(deadline, world.now + second);
    for (u32 i = 0; i < 1'000; i++) {
        world.ring(0);
        EXPECT_EQ(world.run(), 1U);
        world.now += 10;
    }
    EXPECT_EQ(stream.done, 1U);
    EXPECT_EQ(world.instance->deadline(), deadline);
}

TEST_F(LimitsTest, QueuesOfALimitedDiskGetTheSame) {
    for (bool const is_by_bytes : {false, true}) {
        world.guests.clear();
        world.board = std::make_unique<service::Board>();
        add_disk(is_by_bytes ? 0 : 10, is_by_bytes ? 64 * lib::KiB : 0, 3);
        Stream first(world, 0, 0), middle(world, 0, 1), last(world, 0, 2);
        streams = {&first, &middle, &last};
        start();
        pass(30 * second);
        for (Stream const* const stream : streams)
            EXPECT_NEAR(static_cast<double>(stream->done), is_by_bytes ? 160 : 100, 3);
    }
}

TEST_F(LimitsTest, AQueueThatStopsWhileItWaitsStartsAgain) {
    add_disk(1, 64 * lib::KiB);
    Stream stream(world, 0);
    stream.size = 0x1'0000;
    streams = {&stream};
    start();
    EXPECT_EQ(world.statistics->devices[0].under_way, 0U);
    pass(second);
    for (u32 i = 0; i < 5; i++) {
        world.board->devices[0].stops++;
        stream.driver().stop();
        world.run();
        EXPECT_EQ(world.answers[0].size(), i + 1);
        EXPECT_EQ(world.statistics->devices[0].under_way, 0U);
        stream.start();
        u64 const before = stream.done;
        pass(second);
        EXPECT_LE(stream.done - before, 1U) << "a reset does not fill the bucket";
        pass(second);
        EXPECT_GE(stream.done - before, 1U);
    }
}

TEST_F(LimitsTest, ANewInstanceGoesOnWithAFullBucket) {
    add_disk(50, 0);
    Stream stream(world, 0);
    streams = {&stream};
    start();
    for (u32 i = 1; i < 10; i++) {
        EXPECT_EQ(stream.done, i * 5);
        start();
    }
}

TEST_F(LimitsTest, AChangedLimitHoldsForTheNextDiskInTheSamePlace) {
    add_disk(1, 0);
    Stream stream(world, 0);
    streams = {&stream};
    start();
    service::DeviceEntry const entry = world.board->devices[0];
    world.board->devices[0] = {};
    world.change_board();
    world.run();
    EXPECT_EQ(world.statistics->devices[0].under_way, 0U);
    world.board->devices[0] = entry;
    world.board->devices[0].iops = 0;
    stream.start();
    stream.done = 0;
    stream.go_on();
    stream.is_open = false;
    settle();
    EXPECT_EQ(stream.done, stream.depth);
}

TEST_F(LimitsTest, PartsOfAMachinesDiskHaveTheSameLimits) {
    add_part(50, 0);
    add_part(0, lib::MiB, 2);
    Stream requests(world, 0), bytes(world, 1), others(world, 1, 1);
    bytes.size = others.size = most_data; // three commands of 128 KiB
    streams = {&requests, &bytes, &others};
    start();
    pass(10 * second);
    EXPECT_EQ(requests.done, 505U);
    u64 const sum = bytes.bytes() + others.bytes();
    EXPECT_LE(sum, 10 * lib::MiB + lib::MiB / 10 + 128 * lib::KiB);
    EXPECT_GE(sum + 2 * most_data, 10 * lib::MiB);
    EXPECT_NEAR(static_cast<double>(bytes.done), static_cast<double>(others.done), 1);
}

TEST_F(LimitsTest, BytesOfAPartGoOnWhileNoRequestMayBeTaken) {
    add_part(1, lib::MiB);
    Stream stream(world, 0);
    stream.size = most_data;
    stream.depth = 1;
    machine.prepare = [](FakeController& controller) {
        controller.ends = controller.may_share = true;
        controller.now_limits.most_bytes = 4096;
    };
    streams = {&stream};
    start();
    EXPECT_EQ(stream.done, 0U);
    pass(300 * millisecond);
    EXPECT_EQ(stream.done, 1U) << "384 KiB, less a burst of 102";
}

TEST_F(LimitsTest, ADiskThatWaitsLeavesTheRoomForRequestsToOthers) {
    add_part(0, 64 * lib::KiB);
    add_part(0, 0);
    Stream slow(world, 0), quick(world, 1);
    slow.depth = quick.depth = 20;
    streams = {&slow};
    start();
    EXPECT_LE(world.statistics->devices[0].under_way, 1U);
    streams = {&slow, &quick};
    machine.controller->ends = false;
    quick.go_on();
    world.run();
    EXPECT_EQ(machine.controller->under_way.size(), 20U);
    EXPECT_EQ(world.statistics->devices[1].under_way, 20U);
    machine.controller->ends = true;
    quick.is_open = false;
    machine.interrupt();
    settle();
    EXPECT_EQ(quick.done, 20U);
    EXPECT_LE(slow.done, 2U);
}

TEST_F(LimitsTest, AFlushOfAPartHasNoBytes) {
    add_part(0, 64 * lib::KiB, 2);
    Stream writes(world, 0), flushes(world, 0, 1);
    writes.type = OUT;
    writes.size = most_data;
    flushes.type = FLUSH;
    flushes.is_open = false;
    streams = {&writes, &flushes};
    start();
    u32 const before = machine.controller->commands;
    flushes.is_open = true;
    flushes.depth = 1;
    flushes.go_on();
    flushes.is_open = false;
    settle();
    EXPECT_EQ(flushes.done, 1U);
    EXPECT_EQ(machine.controller->flushes, 1U);
    EXPECT_EQ(machine.controller->commands, before + 1) << "writes wait";
}

TEST_F(LimitsTest, APartWhoseControllerIsBusyGoesOnLater) {
    add_part(0, lib::MiB);
    Stream stream(world, 0);
    stream.size = most_data;
    streams = {&stream};
    start();
    machine.controller->takes = false;
    pass(2 * second);
    u64 const done = stream.done;
    machine.controller->takes = true;
    machine.interrupt();
    pass(10 * second);
    EXPECT_GE(stream.bytes() - done * most_data, 9 * lib::MiB);
    machine.controller->now_limits.depth = 1;
    pass(10 * second);
    EXPECT_GE(stream.bytes() - done * most_data, 19 * lib::MiB);
}

TEST_F(LimitsTest, HostileLimitsDoNoHarm) {
    add_disk(~u32{0}, ~u64{0});
    add_disk(1, 1);
    Stream first(world, 0), other(world, 1);
    streams = {&other};
    start();
    first.go_on();
    first.is_open = false;
    streams = {&first, &other};
    settle();
    EXPECT_EQ(first.done, first.depth);
    EXPECT_EQ(other.done, 1U);
    pass(10 * second);
    EXPECT_EQ(other.done, 1U) << "4096 bytes at one a second";
    pass(4'100 * second);
    EXPECT_EQ(other.done, 2U);
}

} // namespace
