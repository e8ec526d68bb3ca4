// SPDX-License-Identifier: MIT
// The modern virtio transport and the ring below it, by way of the random number device: what a driver does, and what a
// hostile one does.
#include <platform/virtio_rng.hpp>

#include <algorithm>
#include <cstring>
#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::VirtioRng;

constexpr u64 descriptors_at = 0x1000, available_at = 0x2000, used_at = 0x3000, buffers_at = 0x4000,
              indirect_at = 0x8000;
constexpr u16 NEXT = 1, WRITE = 2, INDIRECT = 4;
constexpr u8 ACKNOWLEDGE = 1, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64, set_up = 3; // with DRIVER
constexpr u64 VERSION_1 = u64{1} << 32, INDIRECT_DESC = 1 << 28, EVENT_IDX = 1 << 29;
enum Common : u32 {
    device_feature_select = 0,
    device_feature = 4,
    driver_feature_select = 8,
    driver_feature = 12,
    config_vector = 16,
    num_queues = 18,
    status = 20,
    queue_select = 22,
    queue_size = 24,
    queue_vector = 26,
    queue_enable = 28,
    queue_desc = 32,
    queue_driver = 40,
    queue_device = 48,
    interrupts = 0x1000,
    doorbells = 0x2000,
};
constexpr u16 msix_bar = 2, doorbell_bar = 4;

struct VirtioTest : testing::Test {
    static constexpr u64 ram_size = 0x1'0000;
    fakes::FakeHost host;
    std::vector<u64> ram = std::vector<u64>(ram_size / 8);
    lib::RamPiece piece{{0}, ram_size, reinterpret_cast<u8*>(ram.data())};
    std::unique_ptr<VirtioRng> device;
    u16 given = 0;

    VirtioTest() {
        host.memory = lib::GuestMemory({&piece, 1});
        device = std::make_unique<VirtioRng>(host.plug());
        device->function().write(1, 6, ~0U); // memory, bus master
        host.deliver_to([this](platform::Event const& event) { device->on(event); });
    }
    template <typename T> void put(u64 at, T value) { ASSERT_TRUE(host.memory.write<T>({at}, value)); }
    template <typename T> T get(u64 at) { return host.memory.read<T>({at}).value(); }

    u64 in(u64 offset, u8 size) { return device->io({offset, 0, 0, size, Op::Read, 0}).data; }
    void out(u64 offset, u64 value, u8 size) { device->io({offset, value, 0, size, Op::Write, 0}); }
    u8 get_status() { return static_cast<u8>(in(status, 1)); }
    void negotiate(u64 features) {
        for (u32 half = 0; half < 2; half++) {
            out(driver_feature_select, half, 4);
            out(driver_feature, features >> (half * 32) & 0xffff'ffff, 4);
        }
    }
    void enable_queue(u16 size = 8) {
        out(queue_select, 0, 2);
        out(queue_size, size, 2);
        out(queue_desc, descriptors_at, 8);
        out(queue_driver, available_at, 4);
        out(queue_driver + 4, 0, 4);
        out(queue_device, used_at, 8);
        out(queue_enable, 1, 2);
    }
    void start(u64 features = VERSION_1 | INDIRECT_DESC) {
        out(status, ACKNOWLEDGE, 1);
        out(status, set_up, 1);
        negotiate(features);
        out(status, set_up | FEATURES_OK, 1);
        ASSERT_EQ(get_status(), set_up | FEATURES_OK);
        enable_queue();
        out(status, set_up | FEATURES_OK | DRIVER_OK, 1);
        ASSERT_EQ(get_status(), set_up | FEATURES_OK | DRIVER_OK);
    }
    void describe(u64 table, u16 index, u64 address, u32 size, u16 flags, u16 next = 0) {
        put<u64>(table + index * 16U, address);
        put<u32>(table + index * 16U + 8, size);
        put<u16>(table + index * 16U + 12, flags);
        put<u16>(table + index * 16U + 14, next);
    }
    void offer(u16 head) {
        put<u16>(available_at + 4 + given % 8U * 2, head);
        put<u16>(available_at + 2, ++given);
    }
    void kick() { device->io({0, 0, doorbell_bar, 2, Op::Write, 0}); }
    u16 used_index() { return get<u16>(used_at + 2); }
    u32 used_size(u16 index) { return get<u32>(used_at + 8 + index % 8U * 8); }
    bool is_broken() { return (get_status() & NEEDS_RESET) != 0; }
};

TEST_F(VirtioTest, ShowsItsPartsAsCapabilities) {
    auto& function = device->function();
    EXPECT_EQ(function.read(0), 0x1044'1af4U);
    EXPECT_EQ(function.read(2) & 0xff, 1U) << "modern only";
    std::vector<u8> types;
    std::vector<std::pair<u32, u32>> bells; // BAR and offset
    for (u32 at = function.read(13) & 0xff; at != 0; at = function.read(at / 4) >> 8 & 0xff) {
        if ((function.read(at / 4) & 0xff) != 9) continue;
        u8 const type = static_cast<u8>(function.read(at / 4) >> 24);
        types.push_back(type);
        if (type == 2) {
            EXPECT_EQ(function.read(at / 4 + 4), 4U) << "a doorbell is 4 bytes from the next";
            bells.emplace_back(function.read(at / 4 + 1) & 0xff, function.read(at / 4 + 2));
        }
        if (type == 1) EXPECT_EQ(function.read(at / 4 + 3), 64U);
    }
    EXPECT_EQ(types, (std::vector<u8>{1, 3, 2, 2, 5}));
    EXPECT_EQ(bells, (std::vector<std::pair<u32, u32>>{{doorbell_bar, 0}, {0, doorbells}})) << "ports come first";
    EXPECT_EQ(function.read(8) & 3, 1U) << "ports";
    EXPECT_EQ(in(num_queues, 2), 1U);
    EXPECT_EQ(in(queue_size, 2), 8U);
}

TEST_F(VirtioTest, TheWindowInConfigurationSpaceReachesTheRegisters) {
    auto& function = device->function();
    u32 at = function.read(13) & 0xff;
    while (function.read(at / 4) >> 24 != 5)
        at = function.read(at / 4) >> 8 & 0xff;
    function.write(at / 4 + 2, status, ~0U);
    function.write(at / 4 + 3, 1, ~0U);
    function.write(at / 4 + 4, ACKNOWLEDGE, ~0U);
    EXPECT_EQ(get_status(), ACKNOWLEDGE);
    EXPECT_EQ(function.read(at / 4 + 4) & 0xff, ACKNOWLEDGE);
    for (auto const& [offset, length] : {std::pair{0x4000U, 1U}, {~0U, 1U}, {1U, 2U}, {0U, 3U}, {0U, 0U}, {0U, 8U}}) {
        function.write(at / 4 + 2, offset, ~0U);
        function.write(at / 4 + 3, length, ~0U);
        EXPECT_EQ(function.read(at / 4 + 4), ~0U) << offset << ' ' << length;
        function.write(at / 4 + 4, 0, ~0U);
        EXPECT_EQ(get_status(), ACKNOWLEDGE);
    }
}

TEST_F(VirtioTest, FillsBuffersAndInterrupts) {
    start();
    describe(descriptors_at, 2, buffers_at, 16, WRITE);
    describe(descriptors_at, 3, buffers_at + 0x100, 10, WRITE | NEXT, 4);
    describe(descriptors_at, 4, buffers_at + 0x200, 100, WRITE);
    offer(2);
    offer(3);
    kick();
    ASSERT_EQ(used_index(), 2);
    EXPECT_EQ(get<u32>(used_at + 4), 2U);
    EXPECT_EQ(used_size(0), 16U);
    EXPECT_EQ(used_size(1), 64U) << "what it gives at a time";
    EXPECT_EQ(get<u8>(buffers_at + 15), 1);
    EXPECT_EQ(get<u8>(buffers_at + 16), 0) << "not a byte beyond";
    EXPECT_EQ(get<u8>(buffers_at + 0x109), 2);
    EXPECT_EQ(get<u8>(buffers_at + 0x10a), 0);
    EXPECT_EQ(get<u8>(buffers_at + 0x200 + 53), 2);
    EXPECT_EQ(get<u8>(buffers_at + 0x200 + 54), 0);
    EXPECT_TRUE(device->function().intx());
    EXPECT_EQ(in(interrupts, 1), 1U);
    EXPECT_FALSE(device->function().intx());
    EXPECT_EQ(in(interrupts, 1), 0U) << "reading clears it";
    EXPECT_FALSE(is_broken());
}

TEST_F(VirtioTest, WithMsixTheQueuesVectorIsUsed) {
    u32 at = device->function().read(13) & 0xff;
    while ((device->function().read(at / 4) & 0xff) != 0x11)
        at = device->function().read(at / 4) >> 8 & 0xff;
    device->function().write(at / 4, 1U << 31, ~0U);
    for (auto const& [offset, value] : {std::pair{16U, 0xfee0'0000U}, {24U, 0x41U}, {28U, 0U}})
        device->io({offset, value, msix_bar, 4, Op::Write, 0});
    out(queue_vector, 2, 2);
    EXPECT_EQ(in(queue_vector, 2), 0xffffU) << "there are two";
    out(queue_vector, 1, 2);
    EXPECT_EQ(in(queue_vector, 2), 1U);
    start();
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    offer(0);
    kick();
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].data, 0x41U);
    EXPECT_FALSE(device->function().intx());
}

TEST_F(VirtioTest, ADriverThatWantsNoInterruptGetsNone) {
    start();
    put<u16>(available_at, 1);
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    offer(0);
    kick();
    EXPECT_EQ(used_index(), 1);
    EXPECT_FALSE(device->function().intx());
}

TEST_F(VirtioTest, EventIndicesSayWhenToTellTheOther) {
    start(VERSION_1 | EVENT_IDX);
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    put<u16>(available_at + 4 + 16, 1); // interrupt when the second is given back
    offer(0);
    kick();
    EXPECT_EQ(used_index(), 1);
    EXPECT_FALSE(device->function().intx());
    EXPECT_EQ(get<u16>(used_at + 4 + 64), 1) << "and the device waits for the next";
    offer(0);
    kick();
    EXPECT_TRUE(device->function().intx());
    EXPECT_EQ(get<u16>(used_at + 4 + 64), 2);
}

TEST_F(VirtioTest, IndirectTablesWorkIfNegotiated) {
    start();
    describe(indirect_at, 0, buffers_at, 4, WRITE | NEXT, 1);
    describe(indirect_at, 1, buffers_at + 0x100, 4, WRITE);
    describe(descriptors_at, 0, indirect_at, 32, INDIRECT);
    offer(0);
    kick();
    EXPECT_FALSE(is_broken());
    EXPECT_EQ(used_size(0), 8U);
}

TEST_F(VirtioTest, TheDoorbellIsAPortAndARegister) {
    start();
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    offer(0);
    out(doorbells, 0, 2);
    EXPECT_EQ(used_index(), 1);
    offer(0);
    device->io({0, 0, doorbell_bar, 2, Op::Write, 0});
    EXPECT_EQ(used_index(), 2);
    // And through the window in configuration space.
    auto& function = device->function();
    u32 at = function.read(13) & 0xff;
    while (function.read(at / 4) >> 24 != 5)
        at = function.read(at / 4) >> 8 & 0xff;
    function.write(at / 4 + 1, doorbell_bar, ~0U);
    function.write(at / 4 + 3, 2, ~0U);
    offer(0);
    function.write(at / 4 + 4, 0, ~0U);
    EXPECT_EQ(used_index(), 3);
}

TEST_F(VirtioTest, AFloodOfDoorbellsGetsABudgetAndDoesNotPutTheRestOff) {
    start();
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    host.clock = 50'000'000;
    u32 constexpr budget = VirtioRng::buffers_per_period;
    for (u32 i = 0; i < budget + 8; i++) {
        offer(0);
        kick();
    }
    EXPECT_EQ(used_index(), budget);
    EXPECT_EQ(host.random_calls, budget);
    for (int i = 0; i < 12; i++) { // while more doorbells ring
        host.advance(VirtioRng::period.value / 10);
        kick();
    }
    EXPECT_EQ(used_index(), budget + 8);
    EXPECT_FALSE(is_broken());
}

TEST_F(VirtioTest, ARestoredQueueGoesOnWhereItWas) {
    start();
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    offer(0);
    kick();
    offer(0); // nobody has rung yet
    auto const state = device->save();
    out(status, 0, 1);
    EXPECT_EQ(get<u16>(used_at + 2), 1);
    ASSERT_TRUE(device->restore(state));
    host.advance(2 * VirtioRng::period.value);
    EXPECT_EQ(used_index(), 2);
    EXPECT_FALSE(is_broken());

    auto wrong = state;
    wrong.queue.addresses[1] = ram_size;
    EXPECT_FALSE(device->restore(wrong)) << "not RAM";
    wrong = state;
    wrong.queue.size = 64;
    EXPECT_FALSE(device->restore(wrong)) << "larger than offered";
    wrong = state;
    wrong.transport.registers.status = 3;
    EXPECT_FALSE(device->restore(wrong)) << "enabled before the features";
}

TEST_F(VirtioTest, WithMsixEnabledTheLineIsLow) {
    start();
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    offer(0);
    kick();
    EXPECT_TRUE(device->function().intx());
    u32 at = device->function().read(13) & 0xff;
    while ((device->function().read(at / 4) & 0xff) != 0x11)
        at = device->function().read(at / 4) >> 8 & 0xff;
    device->function().write(at / 4, 1U << 31, ~0U);
    EXPECT_FALSE(device->function().intx());
}

TEST_F(VirtioTest, WithoutANumberTheDeviceTriesAgain) {
    start();
    host.random_numbers = 0;
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    offer(0);
    kick();
    EXPECT_EQ(used_index(), 0);
    host.random_numbers = 5;
    host.advance(2'000'000);
    EXPECT_EQ(used_index(), 1);
    EXPECT_EQ(used_size(0), 5U);
}

// Each of these is one way to break the rules of the rings.
struct Misuse {
    char const* name;
    void (*arrange)(VirtioTest&);
    u64 features = VERSION_1 | INDIRECT_DESC;
};
void PrintTo(Misuse const& misuse, std::ostream* out) { *out << misuse.name; }

struct VirtioMisuseTest : VirtioTest, testing::WithParamInterface<Misuse> {};

TEST_P(VirtioMisuseTest, NeedsResetTouchesNothingAndWorksAgainAfterwards) {
    start(GetParam().features);
    GetParam().arrange(*this);
    kick();
    EXPECT_TRUE(is_broken());
    EXPECT_EQ(used_index(), 0);
    EXPECT_EQ(in(interrupts, 1), 2U) << "a change of the configuration";
    // Nothing goes on until the reset.
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    put<u16>(available_at + 4, 0);
    put<u16>(available_at + 2, 1);
    kick();
    host.advance(10'000'000);
    EXPECT_EQ(used_index(), 0);
    out(status, get_status() | DRIVER_OK, 1);
    EXPECT_TRUE(is_broken());

    out(status, 0, 1);
    EXPECT_EQ(get_status(), 0);
    given = 0;
    put<u16>(available_at + 2, 0);
    start();
    offer(0);
    kick();
    EXPECT_EQ(used_index(), 1);
}

constexpr Misuse misuses[] = {
    {"HeadOutOfRange", [](VirtioTest& t) { t.offer(8); }},
    {"IndexJumps", [](VirtioTest& t) { t.put<u16>(available_at + 2, 9); }},
    {"Loop",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, buffers_at, 1, WRITE | NEXT, 1);
         t.describe(descriptors_at, 1, buffers_at, 1, WRITE | NEXT, 0);
         t.offer(0);
     }},
    {"NextOutOfRange",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, buffers_at, 1, WRITE | NEXT, 8);
         t.offer(0);
     }},
    {"BufferIsNoRam",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, VirtioTest::ram_size - 8, 16, WRITE);
         t.offer(0);
     }},
    {"BufferWraps",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, ~u64{0} - 7, 16, WRITE);
         t.offer(0);
     }},
    {"HugeBuffer",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, buffers_at, ~0U, WRITE);
         t.offer(0);
     }},
    {"ReadableForADeviceThatReadsNothing",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, buffers_at, 16, 0);
         t.offer(0);
     }},
    {"ReadableAfterWritable",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, buffers_at, 16, WRITE | NEXT, 1);
         t.describe(descriptors_at, 1, buffers_at, 16, 0);
         t.offer(0);
     }},
    {"IndirectWithoutFeature",
     [](VirtioTest& t) {
         t.describe(indirect_at, 0, buffers_at, 4, WRITE);
         t.describe(descriptors_at, 0, indirect_at, 16, INDIRECT);
         t.offer(0);
     },
     VERSION_1},
    {"IndirectInIndirect",
     [](VirtioTest& t) {
         t.describe(indirect_at, 0, indirect_at, 16, INDIRECT);
         t.describe(descriptors_at, 0, indirect_at, 16, INDIRECT);
         t.offer(0);
     }},
    {"IndirectAndNext",
     [](VirtioTest& t) {
         t.describe(indirect_at, 0, buffers_at, 4, WRITE);
         t.describe(descriptors_at, 0, indirect_at, 16, INDIRECT | NEXT, 1);
         t.offer(0);
     }},
    {"IndirectOfOddSize",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, indirect_at, 24, INDIRECT);
         t.offer(0);
     }},
    {"IndirectOfNoEntry",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, indirect_at, 0, INDIRECT);
         t.offer(0);
     }},
    {"IndirectLongerThanTheQueue",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, indirect_at, 9 * 16, INDIRECT);
         t.offer(0);
     }},
    {"IndirectTableIsNoRam",
     [](VirtioTest& t) {
         t.describe(descriptors_at, 0, u64{1} << 40, 16, INDIRECT);
         t.offer(0);
     }},
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtioMisuseTest, testing::ValuesIn(misuses),
                         [](auto const& info) { return info.param.name; });

TEST_F(VirtioTest, FeaturesMustBeOffered) {
    out(status, set_up, 1);
    negotiate(VERSION_1 | 1);
    out(status, set_up | FEATURES_OK, 1);
    EXPECT_EQ(get_status(), set_up) << "one that was not offered";
    negotiate(INDIRECT_DESC);
    out(status, set_up | FEATURES_OK, 1);
    EXPECT_EQ(get_status(), set_up) << "no modern driver";
    negotiate(VERSION_1);
    out(status, set_up | FEATURES_OK, 1);
    EXPECT_EQ(get_status(), set_up | FEATURES_OK);
}

TEST_F(VirtioTest, StepsOutOfOrderNeedAReset) {
    auto const broken = [this](auto step) {
        out(status, 0, 1);
        out(status, set_up, 1);
        step();
        return is_broken();
    };
    EXPECT_TRUE(broken([&] { out(status, set_up | DRIVER_OK, 1); })) << "before the features";
    EXPECT_TRUE(broken([&] { enable_queue(); })) << "before the features";
    EXPECT_TRUE(broken([&] { out(status, ACKNOWLEDGE, 1); })) << "a bit taken back";
    auto const with_features = [&](auto step) {
        return broken([&] {
            negotiate(VERSION_1);
            out(status, set_up | FEATURES_OK, 1);
            step();
        });
    };
    EXPECT_TRUE(with_features([&] { out(driver_feature, 1, 4); })) << "features after FEATURES_OK";
    EXPECT_TRUE(with_features([&] { enable_queue(3); })) << "no power of two";
    EXPECT_TRUE(with_features([&] { enable_queue(16); })) << "larger than offered";
    EXPECT_TRUE(with_features([&] { enable_queue(0); }));
    EXPECT_FALSE(with_features([&] { enable_queue(4); }));
    for (auto const& wrong : {std::pair{queue_desc, u64{0x1008}},
                              {queue_driver, u64{0x2001}},
                              {queue_device, u64{0x3002}},
                              {queue_desc, ram_size - 16},
                              {queue_driver, u64{1} << 40},
                              {queue_device, ~u64{0} - 3}})
        EXPECT_TRUE(with_features([&] {
            out(queue_size, 8, 2);
            out(queue_driver, available_at, 8);
            out(queue_device, used_at, 8);
            out(queue_desc, descriptors_at, 8);
            out(wrong.first, wrong.second, 8);
            out(queue_enable, 1, 2);
        })) << wrong.first
            << ' ' << wrong.second;
}

TEST_F(VirtioTest, ARunningQueueKeepsItsAddresses) {
    start();
    out(queue_desc, 0x5000, 8);
    out(queue_size, 4, 2);
    EXPECT_EQ(in(queue_desc, 8), descriptors_at);
    EXPECT_EQ(in(queue_size, 2), 8U);
    EXPECT_EQ(in(queue_enable, 2), 1U);
}

TEST_F(VirtioTest, WithoutTheRightToWriteToMemoryNothingHappens) {
    start();
    device->function().write(1, 2, ~0U); // memory, no bus master
    describe(descriptors_at, 0, buffers_at, 16, WRITE);
    offer(0);
    kick();
    EXPECT_EQ(used_index(), 0);
}

TEST_F(VirtioTest, QueuesThatAreNotThereReadAsNothing) {
    out(queue_select, 1, 2);
    EXPECT_EQ(in(queue_size, 2), 0U);
    EXPECT_EQ(in(queue_desc, 8), 0U);
    out(queue_desc, 0x1000, 8);
    out(queue_enable, 1, 2);
    out(doorbells + 4, 1, 2);
    EXPECT_EQ(device->io({2, 1, doorbell_bar, 2, Op::Read, 0}).data, 0U);
    out(queue_select, 0xffff, 2);
    EXPECT_EQ(in(queue_size, 2), 0U);
    EXPECT_EQ(in(63, 8), 0U);
    EXPECT_FALSE(is_broken());
}

} // namespace
