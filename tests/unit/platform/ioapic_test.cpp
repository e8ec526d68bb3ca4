// SPDX-License-Identifier: MIT
#include <platform/ioapic.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>

namespace {

using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;

struct IoapicTest : testing::Test {
    fakes::FakeHost host;
    platform::Ioapic ioapic{host.plug()};

    void store(u64 offset, u32 value) { ioapic.io({offset, value, 0, 4, Op::Write, 0}); }
    u32 load(u64 offset) { return static_cast<u32>(ioapic.io({offset, 0, 0, 4, Op::Read, 0}).data); }
    u32 read(u32 index) {
        store(0, index);
        return load(0x10);
    }
    void write(u32 index, u32 value) {
        store(0, index);
        store(0x10, value);
    }
    void program(u32 pin, u64 entry) {
        write(0x10 + pin * 2 + 1, static_cast<u32>(entry >> 32));
        write(0x10 + pin * 2, static_cast<u32>(entry));
    }
};

constexpr u64 level = 0x8000, masked = 0x10000, logical = 0x800;

TEST_F(IoapicTest, Identifies) {
    EXPECT_EQ(read(1), 0x0017'0020U);
    write(0, 0xff00'0000);
    EXPECT_EQ(read(0), 0x0f00'0000U);
    EXPECT_EQ(read(0x10), 0x10000U);
    EXPECT_EQ(read(0x3f), 0U);
    EXPECT_EQ(read(0x40), 0U);
    EXPECT_EQ(read(0xff), 0U);
}

TEST_F(IoapicTest, SendsEdgesToPhysicalDestinations) {
    program(4, u64{3} << 56 | 0x34);
    ioapic.set_line(4, true);
    ioapic.set_line(4, true);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].address, 0xfee0'3000U);
    EXPECT_EQ(host.messages[0].data, 0x4034U);
    ioapic.set_line(4, false);
    ioapic.set_line(4, true);
    EXPECT_EQ(host.messages.size(), 2U);
}

TEST_F(IoapicTest, SendsLogicalLowestPriority) {
    program(4, u64{0xff} << 56 | logical | 0x100 | 0x41);
    ioapic.set_line(4, true);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].address, 0xfeef'f00cU);
    EXPECT_EQ(host.messages[0].data, 0x4141U);
}

TEST_F(IoapicTest, LosesEdgesWhileMasked) {
    program(4, masked | 0x34);
    ioapic.set_line(4, true);
    program(4, 0x34);
    EXPECT_TRUE(host.messages.empty());
}

TEST_F(IoapicTest, LevelWaitsForItsEoi) {
    program(9, level | 0x51);
    ioapic.set_line(9, true);
    ioapic.set_line(9, false);
    ioapic.set_line(9, true);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].data, 0xc051U);
    EXPECT_EQ(read(0x10 + 18) & 0x4000, 0x4000U);
    ioapic.end_of_interrupt(0x50);
    EXPECT_EQ(host.messages.size(), 1U);
    ioapic.end_of_interrupt(0x51);
    EXPECT_EQ(host.messages.size(), 2U);
    ioapic.set_line(9, false);
    store(0x40, 0x51); // the EOI register does the same
    EXPECT_EQ(host.messages.size(), 2U);
    EXPECT_EQ(read(0x10 + 18) & 0x4000, 0U);
}

// A processor that is interrupted again at once gets no instruction done between the EOI and the next interrupt.
TEST_F(IoapicTest, LevelThatNeverFallsLeavesTheProcessorTime) {
    host.deliver_to([&](platform::Event const& event) { ioapic.on(event); });
    program(9, level | 0x51);
    ioapic.set_line(9, true);
    for (int i = 0; i < 1000; i++)
        ioapic.end_of_interrupt(0x51);
    std::size_t const at_once = host.messages.size();
    EXPECT_LE(at_once, 65U);
    host.advance(100'000);
    EXPECT_EQ(host.messages.size(), at_once + 1) << "later, but it comes";
    ioapic.end_of_interrupt(0x51);
    EXPECT_EQ(host.messages.size(), at_once + 1);
    ioapic.set_line(9, false);
    host.advance(100'000);
    EXPECT_EQ(host.messages.size(), at_once + 1) << "not after the line has fallen";
    ioapic.set_line(9, true);
    ioapic.end_of_interrupt(0x51);
    EXPECT_EQ(host.messages.size(), at_once + 3) << "a new beginning";
}

TEST_F(IoapicTest, UnmaskedLevelFiresWhenItsLineIsUp) {
    ioapic.set_line(9, true);
    program(9, level | masked | 0x51);
    EXPECT_TRUE(host.messages.empty());
    program(9, level | 0x51);
    EXPECT_EQ(host.messages.size(), 1U);
    program(9, level | 0x51); // remote IRR is not the guest's to write
    EXPECT_EQ(host.messages.size(), 1U);
}

TEST_F(IoapicTest, SwitchingToEdgeFreesALevelInput) {
    program(9, level | 0x51);
    ioapic.set_line(9, true);
    program(9, masked | 0x51);
    program(9, level | 0x51);
    EXPECT_EQ(host.messages.size(), 2U);
}

TEST_F(IoapicTest, CollectsTheVectorsThatNeedAnEoi) {
    ioapic.take_eoi_vectors_changed();
    program(4, 0x34);
    EXPECT_FALSE(ioapic.take_eoi_vectors_changed());
    program(9, level | 0xef);
    EXPECT_TRUE(ioapic.take_eoi_vectors_changed());
    EXPECT_FALSE(ioapic.take_eoi_vectors_changed());
    EXPECT_TRUE(ioapic.eoi_vectors().contains(0xef));
    EXPECT_FALSE(ioapic.eoi_vectors().contains(0x34));
    ioapic.set_line(9, true);
    program(9, level | masked | 0xef); // masked, yet its EOI is still to come
    EXPECT_TRUE(ioapic.eoi_vectors().contains(0xef));
    ioapic.end_of_interrupt(0xef);
    program(9, level | masked | 0xef);
    EXPECT_FALSE(ioapic.eoi_vectors().contains(0xef));
}

TEST_F(IoapicTest, NmiEntriesKnowNoLevels) {
    program(3, level | 0x400);
    ioapic.set_line(3, true);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].data >> 8 & 7, 4U);
    EXPECT_EQ(read(0x16) & 0x4000, 0U);
}

TEST_F(IoapicTest, OddOffsetsAndPinsAreHarmless) {
    store(0x04, 0xffff'ffff);
    store(0x0c, 1);
    EXPECT_EQ(load(0x04), 0U);
    ioapic.set_line(24, true);
    ioapic.set_line(~0U, true);
    EXPECT_TRUE(host.messages.empty());
}

} // namespace
