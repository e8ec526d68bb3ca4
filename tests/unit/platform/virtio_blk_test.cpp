// SPDX-License-Identifier: MIT
// Disks as their drivers see them, and what passes between a disk and the one that serves its queues, who is hostile.
#include "served_device.hpp"

namespace {

using namespace served;

constexpr u64 SEGMENT_SIZE_MAX = 2, SEG_MAX = 4, RO = 0x20, BLK_SIZE = 0x40, FLUSH = 0x200, TOPOLOGY = 0x400,
              MQ = 0x1000, DISCARD = 0x2000, WRITE_ZEROES = 0x4000;
struct DiskTest : ServedDevice {
    static constexpr u32 disk = 1;
    static constexpr u64 sectors = 0x1'2345'6788;

    DiskTest() : ServedDevice(disk, 3) {}
    void SetUp() override { build({sectors, 4, true, false}); }
    void build(platform::DiskFacts const& facts) {
        host.facts.disks = {};
        host.facts.disks[disk] = facts;
        ServedDevice::build();
    }
};

TEST_F(DiskTest, IsAModernBlockDeviceOfItsOwnSlot) {
    EXPECT_EQ(function(0), 0x1042'1af4U);
    EXPECT_EQ(function(8), 0x0180'0001U) << "mass storage, modern only";
    EXPECT_EQ(function(0x2c), 0x0002'1af4U);
    for (u32 const other : {2U, 4U, 5U, 6U, 7U})
        EXPECT_EQ(function(0, other), ~0U) << "no disk, no function in slot " << other;
    std::vector<u8> types;
    for (u32 at = function(0x34) & 0xff; at != 0; at = function(at) >> 8 & 0xff) {
        if ((function(at) & 0xff) != 9) continue;
        types.push_back(static_cast<u8>(function(at) >> 24));
        if (types.back() != 4) continue;
        EXPECT_EQ(function(at) >> 16 & 0xff, 16U) << "length of the capability";
        EXPECT_EQ(function(at + 4), 0U) << "BAR";
        EXPECT_EQ(function(at + 8), configuration);
        EXPECT_EQ(function(at + 12), 60U);
    }
    EXPECT_EQ(types, (std::vector<u8>{1, 3, 4, 2, 2, 5}));
    EXPECT_EQ(in(18, 2), 4U) << "queues";
    EXPECT_EQ(in(24, 2), 64U) << "entries of a queue";
}

TEST_F(DiskTest, EveryDiskHasASlot) {
    for (auto& facts : host.facts.disks)
        facts = {8, 1, true, false};
    platform = std::make_unique<platform::Platform>(host, host.memory, host.facts);
    for (u32 in_slot = 2; in_slot < 6; in_slot++)
        EXPECT_EQ(function(0, in_slot), 0x1042'1af4U);
}

TEST_F(DiskTest, OffersWhatItsFactsAllow) {
    u64 const always = VERSION_1 | INDIRECT_DESC | EVENT_IDX | SEGMENT_SIZE_MAX | SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY;
    EXPECT_EQ(offered(), always | MQ | DISCARD | WRITE_ZEROES);
    build({sectors, 1, true, false});
    EXPECT_EQ(offered(), always | DISCARD | WRITE_ZEROES);
    build({sectors, 2, true, true});
    EXPECT_EQ(offered(), always | MQ | RO);
}

TEST_F(DiskTest, ItsConfigurationReadsTheSameAtEveryWidth) {
    std::array<u8, 0x60> expected{};
    auto const put = [&](u32 at, u8 size, u64 value) { lib::store_sized(&expected[at], size, value); };
    put(0, 8, sectors);
    put(8, 4, 256 * 1024); // size_max
    put(12, 4, 62);        // seg_max: a queue without header and status
    put(20, 4, 512);       // blk_size
    put(24, 1, 3);         // physical blocks of 4 KiB
    put(26, 2, 8);         // min_io_size
    put(34, 2, 4);         // num_queues
    put(36, 4, 8192);      // discard: sectors, ranges, alignment
    put(40, 4, 1);
    put(44, 4, 8);
    put(48, 4, 8192); // write zeroes
    put(52, 4, 1);
    auto const compare = [&] {
        for (u8 const size : {u8{1}, u8{2}, u8{4}, u8{8}})
            for (u32 at = 0; at + size <= expected.size(); at++)
                EXPECT_EQ(in(configuration + at, size), lib::load_sized(&expected[at], size)) << at << ' ' << +size;
    };
    compare();
    for (u32 at = 0; at < expected.size(); at += 4)
        out(configuration + at, ~u64{0}, 4);
    compare();
    EXPECT_EQ(in(configuration + 0xff8, 8), 0U);
    EXPECT_EQ(in(21, 1), 0U) << "its generation";

    u32 window = function(0x34) & 0xff;
    while (function(window) >> 24 != 5)
        window = function(window) >> 8 & 0xff;
    set_function(window + 8, configuration + 12);
    set_function(window + 12, 4);
    EXPECT_EQ(function(window + 16), 62U);

    build({sectors, 1, true, true});
    put(34, 2, 0);
    for (u32 at = 36; at < 56; at += 4)
        put(at, 4, 0);
    compare();
}

TEST_F(DiskTest, ARequestHasAsManySegmentsAsFitInAQueue) { EXPECT_EQ(in(configuration + 12, 4) + 2, in(24, 2)); }

TEST_F(DiskTest, TellsTheHostOfQueuesAndDoorbellsInOrder) {
    negotiate(VERSION_1 | EVENT_IDX);
    enable(2, 16);
    ASSERT_EQ(host.served_calls.size(), 1U);
    lib::QueueSetup const setup = host.served_calls[0].setup;
    EXPECT_EQ(setup.descriptors, descriptors_of(2));
    EXPECT_EQ(setup.available, available_of(2));
    EXPECT_EQ(setup.used, used_of(2));
    EXPECT_EQ(setup.size, 16U);
    EXPECT_TRUE(setup.has_event_index);
    EXPECT_FALSE(setup.has_indirect);
    ring(2);
    enable(0);
    EXPECT_EQ(told(), "S2S0") << "no doorbell before the driver is ready";
    set_status(running);
    EXPECT_EQ(told(), "D0D2") << "for what was put there before";
    ring(2);
    ring(1);
    ring(3);
    EXPECT_EQ(told(), "D2") << "the others are not started";
}

TEST_F(DiskTest, RefusesQueuesThatAreNotUsable) {
    struct Wrong {
        u32 offset;
        u64 value;
        u8 size;
    };
    for (Wrong const& wrong : {Wrong{24, 0, 2},
                               {24, 3, 2},
                               {24, 128, 2},
                               {32, descriptors_of(0) + 8, 8},
                               {40, available_of(0) + 1, 8},
                               {48, used_of(0) + 2, 8},
                               {32, ram_size - 64 * 16 + 16, 8},
                               {40, u64{1} << 40, 8},
                               {48, ~u64{0} - 3, 8}}) {
        set_status(0);
        negotiate(VERSION_1);
        out(22, 0, 2);
        out(32, descriptors_of(0), 8);
        out(40, available_of(0), 8);
        out(48, used_of(0), 8);
        out(wrong.offset, wrong.value, wrong.size);
        out(28, 1, 2);
        EXPECT_EQ(get_status(), set_up | FEATURES_OK | NEEDS_RESET) << wrong.offset << ' ' << wrong.value;
    }
    EXPECT_EQ(told(), "");
}

TEST_F(DiskTest, TheStatusStaysUntilTheQueuesHaveStopped) {
    start();
    EXPECT_EQ(told(), "S0S1D0D1");
    set_status(0);
    EXPECT_EQ(told(), "X");
    EXPECT_EQ(get_status(), running);
    EXPECT_EQ(in(28, 2), 0U) << "but the queues are reset";
    set_status(0); // again, while waiting
    ring(0);
    EXPECT_EQ(get_status(), running);
    platform->served_stopped(disk);
    EXPECT_EQ(get_status(), 0);
    EXPECT_EQ(told(), "");
    platform->served_stopped(disk); // once too often
    start();
    EXPECT_EQ(told(), "S0S1D0D1");
    set_status(0);
    EXPECT_EQ(get_status(), running);
}

TEST_F(DiskTest, WithoutAStartedQueueAResetIsDoneAtOnce) {
    negotiate(VERSION_1);
    set_status(running);
    set_status(0);
    EXPECT_EQ(get_status(), 0);
    EXPECT_EQ(told(), "");
}

TEST_F(DiskTest, StopsOfADriverThatDoesNotWaitAreCounted) {
    start(1);
    set_status(0);
    start(1); // reads its own status although the stop is under way
    set_status(0);
    EXPECT_EQ(told(), "S0D0XS0D0X");
    EXPECT_EQ(get_status(), running);
    platform->served_stopped(disk);
    EXPECT_EQ(get_status(), running) << "one of two";
    set_status(ACKNOWLEDGE);
    set_status(0);
    EXPECT_EQ(get_status(), ACKNOWLEDGE) << "no queue since, but one has not stopped";
    set_status(0x10); // no bit that there is
    set_status(0);
    EXPECT_EQ(get_status(), ACKNOWLEDGE);
    platform->served_stopped(disk);
    EXPECT_EQ(get_status(), 0);
    EXPECT_EQ(told(), "");
}

TEST_F(DiskTest, InterruptsReachTheDriverOfARunningQueueOnly) {
    auto const is_heard = [this](u32 queue) {
        platform->served_interrupt(disk, queue);
        return take_interrupts() != 0;
    };
    negotiate(VERSION_1);
    enable(0);
    enable(1);
    EXPECT_FALSE(is_heard(0)) << "before DRIVER_OK";
    set_status(running);
    EXPECT_TRUE(is_heard(0));
    EXPECT_TRUE(is_heard(1));
    EXPECT_EQ(host.messages.size(), 2U) << "one each, by the I/O APIC";
    for (u32 const queue : {2U, 3U, 4U, 31U, 32U, 33U, ~0U})
        EXPECT_FALSE(is_heard(queue)) << queue;
    for (u32 const other : {0U, 2U, 3U, 4U, ~0U})
        platform->served_interrupt(other, 0);
    EXPECT_EQ(take_interrupts(), 0);

    set_status(0);
    EXPECT_FALSE(is_heard(0)) << "the device stops";
    start(1);
    EXPECT_FALSE(is_heard(0)) << "of the old queue";
    platform->served_stopped(disk);
    EXPECT_TRUE(is_heard(0));
    EXPECT_FALSE(is_heard(1)) << "not started this time";
    EXPECT_EQ(host.messages.size(), 3U);
}

TEST_F(DiskTest, WithMsixEachQueueHasAVector) {
    u32 msix = function(0x34) & 0xff;
    while ((function(msix) & 0xff) != 0x11)
        msix = function(msix) >> 8 & 0xff;
    EXPECT_EQ(function(msix) >> 16 & 0x7ff, 4U) << "five vectors: four queues and the configuration";
    set_function(0x18, 0xc001'0000);
    for (u32 vector = 0; vector < 5; vector++)
        for (auto const& [at, value] : {std::pair{0U, 0xfee0'0000U}, {8U, 0x40U + vector}, {12U, 0U}})
            platform->io(Space::Mmio, 0xc001'0000 + vector * 16 + at, 4, Op::Write, value);
    set_function(msix, 1U << 31);
    out(16, 0, 2);
    for (u32 queue = 0; queue < 4; queue++) {
        out(22, queue, 2);
        out(26, queue + 1, 2);
    }
    start(4);
    for (u32 queue = 0; queue < 4; queue++)
        platform->served_interrupt(disk, queue);
    platform->served_misused(disk);
    std::vector<u32> vectors;
    for (auto const& message : host.messages)
        vectors.push_back(message.data);
    EXPECT_EQ(vectors, (std::vector<u32>{0x41, 0x42, 0x43, 0x44, 0x40}));
}

TEST_F(DiskTest, MisuseNeedsAReset) {
    platform->served_misused(disk);
    negotiate(VERSION_1);
    platform->served_misused(disk);
    EXPECT_EQ(get_status(), set_up | FEATURES_OK) << "no queue is started";
    enable(0);
    set_status(running);
    for (u32 const other : {0U, 2U, 3U, 4U, ~0U})
        platform->served_misused(other);
    EXPECT_EQ(get_status(), running);
    platform->served_misused(disk);
    EXPECT_EQ(get_status(), running | NEEDS_RESET);
    EXPECT_EQ(take_interrupts(), 2) << "a change of the configuration";
    EXPECT_EQ(told(), "S0D0");
    ring(0);
    platform->served_interrupt(disk, 0);
    platform->served_misused(disk);
    EXPECT_EQ(take_interrupts(), 0);
    set_status(0);
    EXPECT_EQ(told(), "X") << "no doorbell after misuse";
    EXPECT_EQ(get_status(), running | NEEDS_RESET);
    start(1);
    platform->served_misused(disk);
    EXPECT_EQ(get_status(), running) << "of the old queue";
    set_status(0);
    platform->served_stopped(disk);
    platform->served_stopped(disk);
    EXPECT_EQ(get_status(), 0);
}

TEST_F(DiskTest, WithoutTheRightToWriteToMemoryItsQueuesStop) {
    set_function(0x04, 3);
    set_function(0x04, 7);
    EXPECT_EQ(told(), "") << "no queue, nothing to stop";
    start(1);
    told();
    set_function(0x04, 3);
    EXPECT_EQ(told(), "X");
    set_function(0x04, 7);
    EXPECT_EQ(get_status(), running | NEEDS_RESET);
    ring(0);
    platform->served_interrupt(disk, 0);
    EXPECT_EQ(told(), "");
    EXPECT_EQ(take_interrupts() & 1, 0);
    set_status(0);
    EXPECT_EQ(told(), "") << "they have been told to stop";
    EXPECT_EQ(get_status(), running | NEEDS_RESET);
    platform->served_stopped(disk);
    EXPECT_EQ(get_status(), 0);
    start(1);
    EXPECT_EQ(told(), "S0D0");
}

TEST_F(DiskTest, AResetOfTheMachineStopsTheQueuesToo) {
    start(1);
    told();
    platform->reset();
    EXPECT_EQ(told(), "X");
    platform->reset();
    EXPECT_EQ(told(), "");
    platform->served_interrupt(disk, 0);
    set_up_bars();
    EXPECT_EQ(get_status(), running) << "the driver of the next start waits";
    set_status(0);
    EXPECT_EQ(get_status(), running);
    platform->served_stopped(disk);
    EXPECT_EQ(get_status(), 0);
    EXPECT_EQ(take_interrupts(), 0);
}

TEST_F(DiskTest, NumbersOutOfRangeAreIgnored) {
    for (u32 const other : {0U, 2U, 3U, 4U, 5U, 6U, 0x8000'0000U, ~0U}) {
        platform->served_stopped(other);
        platform->served_misused(other);
        for (u32 const queue : {0U, 4U, 31U, 64U, ~0U})
            platform->served_interrupt(other, queue);
    }
    EXPECT_EQ(told(), "");
    EXPECT_TRUE(host.messages.empty());
}

struct DiskStateTest : DiskTest {
    std::vector<u8> save() {
        std::vector<u8> bytes(platform->saved_size());
        EXPECT_TRUE(platform->save(bytes));
        return bytes;
    }
};

TEST_F(DiskStateTest, ARestoredDiskStartsItsQueuesAgain) {
    start(2);
    platform->served_interrupt(disk, 1);
    told();
    auto const saved = save();
    set_status(0);
    told();
    ASSERT_TRUE(platform->restore(saved));
    EXPECT_EQ(host.served_calls.at(0).setup.descriptors, descriptors_of(0));
    EXPECT_EQ(host.served_calls.at(1).setup.used, used_of(1));
    EXPECT_EQ(told(), "S0S1D0D1");
    EXPECT_EQ(get_status(), running) << "its own, whether the stop has ended or not";
    EXPECT_EQ(save(), saved);
    platform->served_stopped(disk);
    EXPECT_EQ(take_interrupts(), 1);
    platform->served_interrupt(disk, 0);
    EXPECT_EQ(take_interrupts(), 1);

    ASSERT_TRUE(platform->restore(saved));
    EXPECT_EQ(told(), "XS0S1D0D1") << "first it stops what runs";
    build({sectors, 4, true, false});
    ASSERT_TRUE(platform->restore(saved));
    EXPECT_EQ(told(), "S0S1D0D1") << "elsewhere";
    EXPECT_EQ(save(), saved);
}

TEST_F(DiskStateTest, ARestoredStatusIsReadWhileAnEarlierStopIsUnderWay) {
    negotiate(VERSION_1);
    auto const negotiated = save();
    enable(0);
    set_status(running);
    set_status(0);
    ASSERT_EQ(get_status(), running);
    ASSERT_TRUE(platform->restore(negotiated));
    EXPECT_EQ(get_status(), set_up | FEATURES_OK);
}

TEST_F(DiskStateTest, AnAbsentDiskStartsNoQueue) {
    platform::Disk<0> absent(host.plug());
    auto state = absent.save();
    state.transport.registers.status = running;
    state.transport.registers.driver_features = VERSION_1;
    ASSERT_TRUE(absent.restore(state));
    state.queues[0] = {{descriptors_of(0), available_of(0), used_of(0)}, 64, 0xffff, 1, {}};
    EXPECT_FALSE(absent.restore(state));
    EXPECT_EQ(told(), "");
}

TEST_F(DiskStateTest, ADiskOfAnotherShapeIsRefused) {
    start(2);
    auto const saved = save();
    for (platform::DiskFacts const& other : {platform::DiskFacts{sectors + 8, 4, true, false},
                                             {sectors, 3, true, false},
                                             {sectors, 4, false, false},
                                             {sectors, 4, true, true}}) {
        build(other);
        EXPECT_EQ(platform->restore(saved).error(), lib::Errc::BadFormat);
        EXPECT_EQ(told(), "");
    }
}

} // namespace
