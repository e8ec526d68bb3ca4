// SPDX-License-Identifier: MIT
#include <platform/bus.hpp>

#include <array>
#include <gtest/gtest.h>
#include <vector>

namespace {

using lib::u64;
using lib::u8;
using platform::Op;
using platform::Space;

// Answers each byte with its offset plus a base and records what it was asked.
class Recorder final : public platform::Device {
public:
    explicit Recorder(u8 base) : base_(base) {}
    platform::IoReply io(platform::IoRequest const& request) override {
        requests.push_back(request);
        u64 data = ~u64{0}; // bytes above the size must be ignored
        for (unsigned i = 0; i < request.size; i++) {
            data &= ~(u64{0xff} << (i * 8));
            data |= (base_ + request.offset + i) << (i * 8);
        }
        return {data};
    }
    void on(platform::Event const&) override {}
    void reset() override {}
    std::vector<platform::IoRequest> requests;

private:
    u8 base_;
};

u64 low(platform::IoReply reply, unsigned size) {
    return size == 8 ? reply.data : reply.data & ((u64{1} << (size * 8)) - 1);
}

struct BusTest : testing::Test {
    platform::Bus bus;
    Recorder narrow{0x10}, wide{0x40}, memory{0x80}, high{0xa0};
    void SetUp() override {
        ASSERT_TRUE(bus.attach(narrow, {3, Space::Pio, 1, 0x100, 4}));
        ASSERT_TRUE(bus.attach(wide, {4, Space::Pio, 4, 0x104, 8}));
        ASSERT_TRUE(bus.attach(memory, {5, Space::Mmio, 4, 0xfec0'0000, 0x20}));
        ASSERT_TRUE(bus.attach(high, {6, Space::Pio, 2, 0xc000, 16}));
    }
};

TEST_F(BusTest, UnclaimedReadsFloat) {
    EXPECT_EQ(bus.io(Space::Pio, 0xff, 1, Op::Read, 0).data, ~u64{0});
    EXPECT_EQ(bus.io(Space::Pio, 0xffff, 4, Op::Read, 0).data, ~u64{0});
    EXPECT_EQ(bus.io(Space::Mmio, 0x100, 1, Op::Read, 0).data, ~u64{0});
    EXPECT_EQ(bus.io(Space::Pio, 0xfec0'0000, 4, Op::Read, 0).data, ~u64{0});
}

TEST_F(BusTest, PassesWhatFitsWhole) {
    EXPECT_EQ(low(bus.io(Space::Pio, 0x106, 4, Op::Read, 0), 4), 0x45444342U);
    ASSERT_EQ(wide.requests.size(), 1U);
    EXPECT_EQ(wide.requests[0].offset, 2U);
    EXPECT_EQ(wide.requests[0].region, 4U);
    EXPECT_EQ(wide.requests[0].size, 4U);
}

TEST_F(BusTest, CutsWideAccessesToTheDevicesWidth) {
    EXPECT_EQ(low(bus.io(Space::Pio, 0x100, 4, Op::Read, 0), 4), 0x13121110U);
    EXPECT_EQ(narrow.requests.size(), 4U);
    bus.io(Space::Pio, 0x101, 2, Op::Write, 0xbeef);
    ASSERT_EQ(narrow.requests.size(), 6U);
    EXPECT_EQ(narrow.requests[4].data, 0xefU);
    EXPECT_EQ(narrow.requests[5].data, 0xbeU);
    EXPECT_EQ(narrow.requests[5].offset, 2U);
    EXPECT_EQ(low(bus.io(Space::Mmio, 0xfec0'0010, 8, Op::Read, 0), 8), 0x9796959493929190U);
    EXPECT_EQ(memory.requests.size(), 2U);
}

TEST_F(BusTest, RunsOnIntoTheNextRegionByteByByte) {
    EXPECT_EQ(low(bus.io(Space::Pio, 0x102, 4, Op::Read, 0), 4), 0x41401312U);
    EXPECT_EQ(low(bus.io(Space::Pio, 0x10a, 4, Op::Read, 0), 4), 0xffff4746U);
}

TEST_F(BusTest, FirstByteDecides) {
    EXPECT_EQ(bus.io(Space::Pio, 0xfe, 4, Op::Read, 0).data, ~u64{0});
    bus.io(Space::Pio, 0xfe, 4, Op::Write, 0);
    EXPECT_TRUE(narrow.requests.empty());
}

TEST_F(BusTest, FindsPortsAboveTheTable) {
    EXPECT_EQ(low(bus.io(Space::Pio, 0xc002, 2, Op::Read, 0), 2), 0xa3a2U);
    EXPECT_EQ(bus.io(Space::Pio, 0xc010, 2, Op::Read, 0).data, ~u64{0});
}

TEST_F(BusTest, LaterRegionsCoverEarlierOnes) {
    Recorder over{0xe0};
    ASSERT_TRUE(bus.attach(over, {0, Space::Pio, 1, 0x105, 1}));
    EXPECT_EQ(low(bus.io(Space::Pio, 0x105, 1, Op::Read, 0), 1), 0xe0U);
    EXPECT_EQ(low(bus.io(Space::Pio, 0x104, 1, Op::Read, 0), 1), 0x40U);
}

TEST_F(BusTest, RefusesImpossibleRegions) {
    EXPECT_FALSE(bus.attach(narrow, {0, Space::Pio, 1, 0x100, 0}));
    EXPECT_FALSE(bus.attach(narrow, {0, Space::Pio, 1, 0xfff8, 0x10}));
    EXPECT_FALSE(bus.attach(narrow, {0, Space::Mmio, 1, ~u64{0} - 3, 8}));
    while (bus.region_count() < platform::Bus::max_regions)
        ASSERT_TRUE(bus.attach(narrow, {0, Space::Pio, 1, 0x2000, 1}));
    EXPECT_EQ(bus.attach(narrow, {0, Space::Pio, 1, 0x2000, 1}).error(), lib::Errc::NoMemory);
}

TEST_F(BusTest, PortsWrapAtTheTop) {
    Recorder last{0x70};
    ASSERT_TRUE(bus.attach(last, {0, Space::Pio, 1, 0xfffe, 2}));
    EXPECT_EQ(low(bus.io(Space::Pio, 0xffff, 4, Op::Read, 0), 4), 0xffffff71U);
}

TEST_F(BusTest, StringReachesOneRegisterAgainAndAgain) {
    std::array<u8, 8> bytes{};
    bus.io_string(0x106, 2, Op::Read, bytes);
    EXPECT_EQ(bytes, (std::array<u8, 8>{0x42, 0x43, 0x42, 0x43, 0x42, 0x43, 0x42, 0x43}));
    ASSERT_EQ(wide.requests.size(), 4U);
    for (auto const& request : wide.requests)
        EXPECT_EQ(request.offset, 2U);
}

TEST_F(BusTest, StringWritesItsElementsInOrder) {
    std::array<u8, 4> bytes{1, 2, 3, 4};
    bus.io_string(0x104, 2, Op::Write, bytes);
    ASSERT_EQ(wide.requests.size(), 2U);
    EXPECT_EQ(wide.requests[0].data, 0x0201U);
    EXPECT_EQ(wide.requests[1].data, 0x0403U);
}

TEST_F(BusTest, StringIsCutLikeSingleAccesses) {
    std::array<u8, 4> bytes{1, 2, 3, 4};
    bus.io_string(0x101, 2, Op::Write, bytes); // the device is a byte wide
    ASSERT_EQ(narrow.requests.size(), 4U);
    EXPECT_EQ(narrow.requests[0].offset, 1U);
    EXPECT_EQ(narrow.requests[1].offset, 2U);
    EXPECT_EQ(narrow.requests[3].offset, 2U);
    EXPECT_EQ(narrow.requests[3].data, 4U);
}

TEST_F(BusTest, StringFloatsWhereNobodyIs) {
    std::array<u8, 4> bytes{};
    bus.io_string(0xffff, 4, Op::Read, bytes);
    EXPECT_EQ(bytes, (std::array<u8, 4>{0xff, 0xff, 0xff, 0xff}));
    bus.io_string(0xff, 1, Op::Write, bytes);
    EXPECT_TRUE(narrow.requests.empty());
}

} // namespace
