// SPDX-License-Identifier: MIT
#include <platform/pic.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>

namespace {

using lib::u16;
using lib::u32;
using lib::u8;
using platform::Op;
using platform::PicPair;

struct PicTest : testing::Test {
    fakes::FakeHost host;
    PicPair pics{host.plug()};

    void out(u16 region, u32 a0, u8 value) { pics.io({a0, value, region, 1, Op::Write, 0}); }
    u8 in(u16 region, u32 a0) { return static_cast<u8>(pics.io({a0, 0, region, 1, Op::Read, 0}).data); }
    void init(u8 icw4 = 0x01) {
        out(PicPair::Master, 0, 0x11);
        out(PicPair::Master, 1, 0x20);
        out(PicPair::Master, 1, 0x04);
        out(PicPair::Master, 1, icw4);
        out(PicPair::Slave, 0, 0x11);
        out(PicPair::Slave, 1, 0x28);
        out(PicPair::Slave, 1, 0x02);
        out(PicPair::Slave, 1, icw4 & 0x0f);
    }
    void pulse(u32 irq) {
        pics.set_line(irq, false);
        pics.set_line(irq, true);
    }
    u8 isr(u16 region) {
        out(region, 0, 0x0b);
        return in(region, 0);
    }
    u8 irr(u16 region) {
        out(region, 0, 0x0a);
        return in(region, 0);
    }
};

TEST_F(PicTest, MaskedAfterReset) {
    pics.set_line(4, true);
    EXPECT_FALSE(host.intr);
    EXPECT_EQ(in(PicPair::Master, 1), 0xff);
    EXPECT_EQ(irr(PicPair::Master), 0x10);
}

TEST_F(PicTest, ServesByPriorityAndNests) {
    init();
    pulse(5);
    pulse(3);
    EXPECT_TRUE(host.intr);
    EXPECT_EQ(pics.acknowledge(), 0x23);
    EXPECT_FALSE(host.intr); // 5 waits behind 3
    pulse(1);
    EXPECT_TRUE(host.intr); // 1 goes before 3
    EXPECT_EQ(pics.acknowledge(), 0x21);
    EXPECT_EQ(isr(PicPair::Master), 0x0a);
    out(PicPair::Master, 0, 0x20);
    EXPECT_EQ(isr(PicPair::Master), 0x08);
    out(PicPair::Master, 0, 0x20);
    EXPECT_EQ(pics.acknowledge(), 0x25);
}

TEST_F(PicTest, EdgeIsServedOnce) {
    init();
    pics.set_line(4, true);
    EXPECT_EQ(pics.acknowledge(), 0x24);
    out(PicPair::Master, 0, 0x64);
    EXPECT_FALSE(host.intr);
    pics.set_line(4, true);
    EXPECT_FALSE(host.intr);
    pulse(4);
    EXPECT_TRUE(host.intr);
}

TEST_F(PicTest, LevelStaysUntilTheLineFalls) {
    init();
    out(PicPair::Elcr, 1, 0x02); // IRQ 9
    pics.set_line(9, true);
    EXPECT_EQ(pics.acknowledge(), 0x29);
    out(PicPair::Slave, 0, 0x20);
    out(PicPair::Master, 0, 0x20);
    EXPECT_TRUE(host.intr);
    pics.set_line(9, false);
    EXPECT_FALSE(host.intr);
}

TEST_F(PicTest, ElcrKeepsTheTimersEdges) {
    out(PicPair::Elcr, 0, 0xff);
    out(PicPair::Elcr, 1, 0xff);
    EXPECT_EQ(in(PicPair::Elcr, 0), 0xf8);
    EXPECT_EQ(in(PicPair::Elcr, 1), 0xde);
}

TEST_F(PicTest, SlaveGoesThroughInput2) {
    init();
    pulse(12);
    EXPECT_EQ(pics.acknowledge(), 0x2c);
    EXPECT_EQ(isr(PicPair::Master), 0x04);
    EXPECT_EQ(isr(PicPair::Slave), 0x10);
    pulse(8); // more urgent on the slave, but the master's IR2 is in service
    EXPECT_FALSE(host.intr);
    out(PicPair::Slave, 0, 0x20);
    out(PicPair::Master, 0, 0x20);
    EXPECT_EQ(pics.acknowledge(), 0x28);
}

TEST_F(PicTest, SpecialFullyNestedLetsTheSlaveNest) {
    init(0x11);
    pulse(12);
    EXPECT_EQ(pics.acknowledge(), 0x2c);
    pulse(8);
    EXPECT_TRUE(host.intr);
    EXPECT_EQ(pics.acknowledge(), 0x28);
}

TEST_F(PicTest, RequestThatGoesAwayIsSpurious7) {
    init();
    pics.set_line(4, true);
    pics.set_line(4, false);
    EXPECT_FALSE(host.intr);
    EXPECT_EQ(pics.acknowledge(), 0x27);
    EXPECT_EQ(isr(PicPair::Master), 0);
}

TEST_F(PicTest, MaskingHoldsBackAndUnmaskingLetsGo) {
    init();
    out(PicPair::Master, 1, 0x10);
    pulse(4);
    EXPECT_FALSE(host.intr);
    out(PicPair::Master, 1, 0x00);
    EXPECT_TRUE(host.intr);
    out(PicPair::Slave, 1, 0xff);
    EXPECT_TRUE(pics.is_masked(8));
    EXPECT_FALSE(pics.is_masked(4));
}

TEST_F(PicTest, AutomaticEndOfInterrupt) {
    init(0x03);
    pulse(4);
    EXPECT_EQ(pics.acknowledge(), 0x24);
    EXPECT_EQ(isr(PicPair::Master), 0);
    pulse(6);
    EXPECT_EQ(pics.acknowledge(), 0x26);
}

TEST_F(PicTest, RotationInAutomaticEoiMakesTheServedOneLast) {
    init(0x03);
    out(PicPair::Master, 0, 0x80);
    pulse(3);
    EXPECT_EQ(pics.acknowledge(), 0x23);
    pulse(3);
    pulse(5);
    EXPECT_EQ(pics.acknowledge(), 0x25);
}

TEST_F(PicTest, RotatesOnEoiAndBySetPriority) {
    init();
    pulse(0);
    EXPECT_EQ(pics.acknowledge(), 0x20);
    out(PicPair::Master, 0, 0xa0); // 0 is last now
    pulse(0);
    pulse(7);
    EXPECT_EQ(pics.acknowledge(), 0x27);
    out(PicPair::Master, 0, 0xe7); // specific, rotating: 7 is last
    EXPECT_EQ(pics.acknowledge(), 0x20);
    out(PicPair::Master, 0, 0x20);
    out(PicPair::Master, 0, 0xc4); // 4 is last: 5 is first
    pulse(5);
    pulse(0);
    EXPECT_EQ(pics.acknowledge(), 0x25);
}

TEST_F(PicTest, SpecialMaskModeLetsLesserOnesThrough) {
    init();
    pulse(3);
    EXPECT_EQ(pics.acknowledge(), 0x23);
    pulse(5);
    EXPECT_FALSE(host.intr);
    out(PicPair::Master, 1, 0x08);
    EXPECT_FALSE(host.intr);
    out(PicPair::Master, 0, 0x68);
    EXPECT_TRUE(host.intr);
    EXPECT_EQ(pics.acknowledge(), 0x25);
    out(PicPair::Master, 0, 0x48);
    EXPECT_EQ(isr(PicPair::Master), 0x28);
}

TEST_F(PicTest, PollingAcknowledges) {
    init();
    pulse(6);
    out(PicPair::Master, 0, 0x0c);
    EXPECT_EQ(in(PicPair::Master, 0), 0x86);
    EXPECT_FALSE(host.intr);
    EXPECT_EQ(isr(PicPair::Master), 0x40);
    out(PicPair::Master, 0, 0x0c);
    EXPECT_EQ(in(PicPair::Master, 0), 0x00);
    EXPECT_EQ(in(PicPair::Master, 0), 0x40); // back to what was selected: ISR
}

TEST_F(PicTest, InitializationForgetsEdgesAndMasks) {
    pulse(4);
    init();
    EXPECT_EQ(irr(PicPair::Master), 0);
    EXPECT_EQ(in(PicPair::Master, 1), 0);
}

TEST_F(PicTest, TellsOfMasksAndOfIrrReads) {
    static int masks, reads;
    masks = reads = 0;
    pics.listen(lib::Delegate<void()>::to_function<+[] { masks++; }>(),
                lib::Delegate<void()>::to_function<+[] { reads++; }>());
    out(PicPair::Master, 1, 0xff);
    EXPECT_EQ(masks, 0); // nothing changed
    out(PicPair::Master, 1, 0xfe);
    EXPECT_EQ(masks, 1);
    irr(PicPair::Master);
    isr(PicPair::Master);
    EXPECT_EQ(reads, 1);
}

} // namespace
