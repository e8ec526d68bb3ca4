// SPDX-License-Identifier: MIT
#include "vm/test_apic.hpp"

#include <array>

namespace {

using namespace vm::apic_reg;
using vm::DeliveryMode;
using vm::LocalApic;
using vm::MsrResult;
using vm::Shorthand;
using vm::TriggerMode;
using vm::u32;
using vm::u64;
using vm::u8;
constexpr MsrResult done = MsrResult::Done;
constexpr MsrResult fault = MsrResult::GeneralProtection;

struct LocalApicTest : ::testing::Test, TestApic {};

TEST_F(LocalApicTest, ResetState) {
    EXPECT_EQ(apic.read_base(), 0xfee00900U);
    EXPECT_EQ(read(ID), 0U);
    EXPECT_EQ(read(VERSION), 0x50014U);
    EXPECT_EQ(read(SVR), 0xffU);
    EXPECT_EQ(read(DFR), 0xffffffffU);
    EXPECT_EQ(read(LDR), 0U);
    for (u32 lvt = LVT_TIMER; lvt <= LVT_ERROR; lvt += 16)
        EXPECT_EQ(read(lvt), 0x10000U);
    EXPECT_EQ(read(TPR) | read(PPR) | read(INITIAL_COUNT) | read(CURRENT_COUNT) | read(DIVIDE) | read(ICR_LOW), 0U);
    EXPECT_FALSE(apic.accepts_pic()) << "LINT0 is masked";
    TestApic other(5);
    EXPECT_EQ(other.read(ID), 0x05000000U);
    EXPECT_EQ(other.apic.read_base(), 0xfee00800U);
}

TEST_F(LocalApicTest, SoftwareDisabledRefusesAndMasks) {
    apic.accept(0x40, TriggerMode::Edge);
    EXPECT_EQ(apic.highest_pending(), -1);
    write(LVT_TIMER, 0x40);
    EXPECT_EQ(read(LVT_TIMER), 0x10040U) << "stays masked while disabled";
    enable();
    write(LVT_TIMER, 0x40);
    EXPECT_EQ(read(LVT_TIMER), 0x40U);
    apic.accept(0x50, TriggerMode::Edge);
    write(SVR, 0xff);
    EXPECT_EQ(read(LVT_TIMER), 0x10040U);
    EXPECT_EQ(apic.highest_pending(), 0x50) << "what is in IRR stays deliverable";
}

TEST_F(LocalApicTest, PrioritiesNest) {
    enable();
    apic.accept(0x41, TriggerMode::Edge);
    apic.accept(0x45, TriggerMode::Edge);
    ASSERT_EQ(apic.highest_pending(), 0x45);
    apic.acknowledge(0x45);
    EXPECT_EQ(read(PPR), 0x40U);
    EXPECT_EQ(apic.highest_pending(), -1) << "the same class waits";
    apic.accept(0x91, TriggerMode::Edge);
    ASSERT_EQ(apic.highest_pending(), 0x91);
    apic.acknowledge(0x91);
    EXPECT_EQ(read(PPR), 0x90U);
    write(EOI, 0);
    EXPECT_EQ(read(PPR), 0x40U);
    EXPECT_EQ(apic.highest_pending(), -1);
    write(EOI, 0);
    EXPECT_EQ(read(PPR), 0U);
    EXPECT_EQ(apic.highest_pending(), 0x41);
}

TEST_F(LocalApicTest, TaskPriorityHoldsBack) {
    enable();
    apic.accept(0x57, TriggerMode::Edge);
    write(TPR, 0x50);
    EXPECT_EQ(apic.highest_pending(), -1);
    EXPECT_EQ(read(PPR), 0x50U);
    write(TPR, 0x4f);
    EXPECT_EQ(read(PPR), 0x4fU);
    EXPECT_EQ(apic.highest_pending(), 0x57);
    apic.page()[TPR] = 0x60; // by the hardware, behind our back
    EXPECT_EQ(apic.highest_pending(), -1);
    EXPECT_EQ(apic.task_priority(), 0x60);
}

TEST_F(LocalApicTest, EoiOfLevelReachesTheBus) {
    enable();
    apic.accept(0x61, TriggerMode::Level);
    EXPECT_EQ(read(TMR + 0x30), 2U);
    apic.acknowledge(0x61);
    write(EOI, 0);
    EXPECT_EQ(bus.ended, std::vector<u8>{0x61});
    apic.accept(0x61, TriggerMode::Edge);
    EXPECT_EQ(read(TMR + 0x30), 0U);
    apic.acknowledge(0x61);
    write(EOI, 0);
    write(EOI, 0); // nothing in service
    EXPECT_EQ(bus.ended.size(), 1U);
}

TEST_F(LocalApicTest, PostedInterruptsMergeWithTheirTriggerMode) {
    enable();
    EXPECT_FALSE(apic.merge_posted());
    EXPECT_TRUE(apic.post(0x31, TriggerMode::Level));
    EXPECT_FALSE(apic.post(0xff, TriggerMode::Edge)) << "already notified";
    EXPECT_FALSE(apic.post(0x31, TriggerMode::Level));
    EXPECT_EQ(apic.highest_pending(), -1);
    EXPECT_TRUE(apic.merge_posted());
    EXPECT_EQ(apic.highest_pending(), 0xff);
    EXPECT_TRUE(page->test(TMR, 0x31));
    EXPECT_FALSE(page->test(TMR, 0xff));
    EXPECT_TRUE(apic.post(0x31, TriggerMode::Edge));
    EXPECT_TRUE(apic.merge_posted());
    EXPECT_FALSE(page->test(TMR, 0x31));
}

TEST_F(LocalApicTest, PostedBeforeTheSwitchOffIsNotLost) {
    enable();
    apic.post(0x77, TriggerMode::Edge);
    write(SVR, 0xff);
    EXPECT_EQ(apic.highest_pending(), 0x77);
    apic.post(0x88, TriggerMode::Edge);
    EXPECT_FALSE(apic.merge_posted());
    EXPECT_EQ(apic.highest_pending(), 0x77);
}

TEST_F(LocalApicTest, IllegalVectorsAreErrors) {
    enable();
    write(LVT_ERROR, 0xfe);
    apic.accept(15, TriggerMode::Edge);
    EXPECT_EQ(apic.highest_pending(), 0xfe);
    EXPECT_EQ(read(ESR), 0U) << "latched by a write only";
    EXPECT_EQ(errors(), 0x40U);
    EXPECT_EQ(errors(), 0U);
    apic.post(3, TriggerMode::Edge);
    apic.merge_posted();
    EXPECT_EQ(errors(), 0x40U);
    write(ICR_LOW, 0x0f);
    EXPECT_EQ(errors(), 0x20U);
    EXPECT_TRUE(bus.sent.empty());
    write(LVT_ERROR, 5); // the error entry is itself illegal
    write(ICR_LOW, 0x0f);
    EXPECT_EQ(errors(), 0x60U);
}

TEST_F(LocalApicTest, IllegalRegistersAreErrorsAndReadOnlyOnesAreNot) {
    enable();
    read(0x00);
    EXPECT_EQ(errors(), 0x80U);
    read(0x400);
    EXPECT_EQ(errors(), 0x80U);
    write(SELF_IPI, 0x40);
    EXPECT_EQ(errors(), 0x80U);
    EXPECT_EQ(apic.highest_pending(), -1);
    u32 const version = read(VERSION);
    for (u32 offset : {ID, VERSION, PPR, ISR, IRR, TMR, CURRENT_COUNT})
        write(offset, 0xffffffff);
    EXPECT_EQ(errors(), 0U);
    EXPECT_EQ(read(VERSION), version);
    EXPECT_EQ(read(ISR) | read(IRR) | read(TMR), 0U);
}

TEST_F(LocalApicTest, OddAccessSizes) {
    EXPECT_EQ(apic.mmio_read(VERSION, 1), 0x14U);
    EXPECT_EQ(apic.mmio_read(VERSION + 2, 2), 0x5U);
    EXPECT_EQ(apic.mmio_read(VERSION + 3, 1), 0U);
    EXPECT_EQ(apic.mmio_read(VERSION, 8), 0x50014U);
    EXPECT_EQ(apic.mmio_read(VERSION + 4, 4), 0U);
    apic.mmio_write(TPR, 1, 0x30);
    apic.mmio_write(TPR + 4, 4, 0x30);
    apic.mmio_write(TPR, 8, 0x30);
    EXPECT_EQ(read(TPR), 0U);
}

TEST_F(LocalApicTest, LvtKeepsOnlyItsBits) {
    enable();
    for (u32 lvt = LVT_TIMER; lvt <= LVT_ERROR; lvt += 16)
        write(lvt, 0xffffffff);
    EXPECT_EQ(read(LVT_TIMER), 0x700ffU);
    EXPECT_EQ(read(LVT_THERMAL), 0x107ffU);
    EXPECT_EQ(read(LVT_PERFORMANCE), 0x107ffU);
    EXPECT_EQ(read(LVT_LINT0), 0x1a7ffU);
    EXPECT_EQ(read(LVT_LINT1), 0x1a7ffU);
    EXPECT_EQ(read(LVT_ERROR), 0x100ffU);
}

TEST_F(LocalApicTest, LinesOfThePicAndNmi) {
    enable();
    write(LVT_LINT0, 0x700);
    EXPECT_TRUE(apic.accepts_pic());
    write(LVT_LINT0, 0x10700);
    EXPECT_FALSE(apic.accepts_pic());
    write(LVT_LINT0, 0x31);
    EXPECT_FALSE(apic.accepts_pic());
    EXPECT_FALSE(apic.nmi_line());
    write(LVT_LINT1, 0x400);
    EXPECT_TRUE(apic.nmi_line());
    write(LVT_LINT1, 0x55);
    EXPECT_FALSE(apic.nmi_line());
    EXPECT_EQ(apic.highest_pending(), 0x55);
    EXPECT_EQ(apic.write_base(base_address), done);
    EXPECT_TRUE(apic.accepts_pic());
    EXPECT_TRUE(apic.nmi_line());
}

TEST_F(LocalApicTest, TimerInterrupts) {
    enable();
    write(LVT_TIMER, 0xec);
    write(DIVIDE, 0xb);
    write(INITIAL_COUNT, 1000);
    EXPECT_EQ(bus.armed, bus.now + 1000);
    bus.now += 400;
    EXPECT_EQ(read(CURRENT_COUNT), 600U);
    EXPECT_EQ(read(INITIAL_COUNT), 1000U);
    apic.timer_expired();
    EXPECT_EQ(apic.highest_pending(), -1);
    bus.now += 600;
    apic.timer_expired();
    EXPECT_EQ(apic.highest_pending(), 0xec);
    EXPECT_EQ(bus.notified, 1U);
    apic.acknowledge(0xec);
    write(LVT_TIMER, 0x400ec); // TSC deadline
    EXPECT_EQ(read(INITIAL_COUNT), 0U);
    apic.write_tsc_deadline(bus.now + 5);
    EXPECT_EQ(apic.tsc_deadline(), bus.now + 5);
    bus.now += 5;
    write(LVT_TIMER, 0x500ec); // masked: expires without an interrupt
    apic.timer_expired();
    EXPECT_EQ(apic.tsc_deadline(), 0U);
    EXPECT_EQ(read(IRR + 0x70), 0U);
}

TEST_F(LocalApicTest, IcrOfXApic) {
    enable();
    write(ICR_HIGH, 0x03ffffff);
    EXPECT_EQ(read(ICR_HIGH), 0x03000000U);
    write(ICR_LOW, 0x40fd);
    ASSERT_EQ(bus.sent.size(), 1U);
    EXPECT_EQ(bus.sent[0].vector, 0xfd);
    EXPECT_EQ(bus.sent[0].mode, DeliveryMode::Fixed);
    EXPECT_EQ(bus.sent[0].destination, 3U);
    EXPECT_FALSE(bus.sent[0].logical);
    EXPECT_EQ(read(ICR_LOW), 0x40fdU);
    write(ICR_HIGH, 0xff000000);
    write(ICR_LOW, 0x00fd);
    EXPECT_EQ(bus.sent[1].destination, vm::apic_broadcast);
    write(ICR_LOW, 0x08fd);
    EXPECT_EQ(bus.sent[2].destination, 0xffU) << "logical FFh is a set of eight";
    EXPECT_TRUE(bus.sent[2].logical);
    write(ICR_LOW, 0x0c4500); // INIT, all but self
    EXPECT_EQ(bus.sent[3].mode, DeliveryMode::Init);
    EXPECT_EQ(bus.sent[3].shorthand, Shorthand::AllExcludingSelf);
    write(ICR_LOW, 0x0c4608);
    EXPECT_EQ(bus.sent[4].mode, DeliveryMode::StartUp);
    EXPECT_EQ(bus.sent[4].vector, 8);
    write(ICR_LOW, 0x400);
    EXPECT_EQ(bus.sent[5].mode, DeliveryMode::Nmi);
    write(ICR_LOW, 0x0161);
    EXPECT_EQ(bus.sent[6].mode, DeliveryMode::LowestPriority);
    write(ICR_LOW, 0x0880fd);
    EXPECT_EQ(bus.sent[7].shorthand, Shorthand::AllIncludingSelf);
    EXPECT_EQ(bus.sent.size(), 8U);
}

TEST_F(LocalApicTest, IcrThatGoesNowhere) {
    enable();
    for (u32 low : {0x8500U,   // INIT level de-assert
                    0x0200U,   // SMI
                    0x0300U,   // reserved, once remote read
                    0x0700U,   // ExtINT
                    0x40400U,  // NMI to itself
                    0x40500U,  // INIT to itself
                    0x80400U,  // NMI to all including itself
                    0x80600U}) // SIPI to all including itself
        write(ICR_LOW, low);
    EXPECT_TRUE(bus.sent.empty());
    EXPECT_EQ(errors(), 0U);
}

TEST_F(LocalApicTest, SelfIpiNeedsNoBus) {
    enable();
    write(ICR_LOW, 0x40033);
    EXPECT_EQ(apic.highest_pending(), 0x33);
    EXPECT_TRUE(bus.sent.empty());
    to_x2apic();
    EXPECT_EQ(wrmsr(SELF_IPI, 0x44), done);
    EXPECT_EQ(apic.highest_pending(), 0x44);
    EXPECT_EQ(wrmsr(SELF_IPI, 0x144), fault);
    EXPECT_EQ(wrmsr(SELF_IPI, 0x4), done);
    EXPECT_EQ(wrmsr(ESR, 0), done);
    EXPECT_EQ(rdmsr(ESR), 0x40U);
}

TEST_F(LocalApicTest, BaseTransitions) {
    constexpr u64 off = base_address, x1 = base_address | 0x800, x2 = base_address | 0xc00, bad = base_address | 0x400;
    EXPECT_EQ(apic.write_base(bad), fault);
    EXPECT_EQ(apic.write_base(x1 | 1), fault);
    EXPECT_EQ(apic.write_base(x1 | 0x200), fault);
    EXPECT_EQ(apic.write_base(x1 | u64{1} << 40), fault);
    EXPECT_EQ(apic.write_base(off), done);
    EXPECT_EQ(apic.mode(), LocalApic::Mode::Disabled);
    EXPECT_EQ(apic.write_base(x2), fault) << "disabled to x2APIC";
    EXPECT_EQ(apic.write_base(x1), done);
    EXPECT_EQ(apic.write_base(x2), done);
    EXPECT_EQ(apic.mode(), LocalApic::Mode::X2Apic);
    EXPECT_EQ(apic.write_base(x1), fault) << "x2APIC to xAPIC";
    EXPECT_EQ(apic.write_base(bad), fault);
    EXPECT_EQ(apic.read_base(), x2);
    EXPECT_EQ(apic.write_base(off), done);
    EXPECT_EQ(apic.write_base(x1 | 0x100), done);
    EXPECT_EQ(apic.read_base(), x1 | 0x100);

    vm::LocalApicConfig old = config(1);
    old.has_x2apic = false;
    auto const other_page = std::make_unique<vm::ApicPage>();
    LocalApic without(old, *other_page, bus);
    EXPECT_EQ(without.write_base(x2), fault);
}

TEST_F(LocalApicTest, DisablingForgetsAndInitKeepsTheBase) {
    enable();
    apic.accept(0x40, TriggerMode::Edge);
    apic.post(0x41, TriggerMode::Edge);
    write(LVT_TIMER, 0x50);
    write(INITIAL_COUNT, 5);
    apic.write_base(base_address);
    apic.write_base(base_address | 0x800);
    EXPECT_EQ(read(SVR), 0xffU);
    EXPECT_EQ(apic.highest_pending(), -1);
    EXPECT_FALSE(bus.armed);
    EXPECT_FALSE(apic.merge_posted());

    TestApic ap(0x23);
    ap.enable();
    ap.to_x2apic();
    ap.apic.accept(0x40, TriggerMode::Edge);
    ap.apic.acknowledge(0x40);
    ap.apic.init_signal();
    EXPECT_EQ(ap.apic.mode(), LocalApic::Mode::X2Apic);
    EXPECT_EQ(ap.rdmsr(ID), 0x23U);
    EXPECT_EQ(ap.rdmsr(LDR), 0x20008U);
    EXPECT_EQ(ap.rdmsr(PPR), 0U);
    EXPECT_EQ(ap.rdmsr(SVR), 0xffU);
    ap.apic.reset();
    EXPECT_EQ(ap.apic.mode(), LocalApic::Mode::XApic);
    EXPECT_EQ(ap.read(ID), 0x23000000U);
    EXPECT_EQ(ap.read(LDR), 0U);
}

TEST_F(LocalApicTest, X2ApicMsrsExistOnlyInTheirMode) {
    u64 value = 0;
    for (u32 index = 0x800; index < 0x900; ++index) {
        EXPECT_EQ(apic.read_x2apic(index, value), fault);
        EXPECT_EQ(apic.write_x2apic(index, 0), fault);
    }
    to_x2apic();
    std::vector<u32> readable, writable;
    for (u32 index = 0x800; index < 0x900; ++index) {
        if (apic.read_x2apic(index, value) == done) readable.push_back(index);
        if (apic.write_x2apic(index, 0) == done) writable.push_back(index);
    }
    std::vector<u32> expected = {0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f};
    for (u32 i = 0x810; i <= 0x828; ++i)
        expected.push_back(i);
    for (u32 i : {0x830U, 0x832U, 0x833U, 0x834U, 0x835U, 0x836U, 0x837U, 0x838U, 0x839U, 0x83eU})
        expected.push_back(i);
    EXPECT_EQ(readable, expected);
    EXPECT_EQ(writable, (std::vector<u32>{0x808, 0x80b, 0x80f, 0x828, 0x830, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837,
                                          0x838, 0x83e, 0x83f}));
}

TEST_F(LocalApicTest, X2ApicReservedBitsFault) {
    to_x2apic();
    EXPECT_EQ(wrmsr(SVR, 0x1ff), done);
    for (u32 offset : {TPR, SVR, ESR, EOI, LVT_TIMER, LVT_ERROR, LVT_LINT0, INITIAL_COUNT, DIVIDE, SELF_IPI})
        EXPECT_EQ(wrmsr(offset, u64{1} << 32), fault) << std::hex << offset;
    EXPECT_EQ(wrmsr(TPR, 0x100), fault);
    EXPECT_EQ(wrmsr(SVR, 0x11ff), fault);
    EXPECT_EQ(wrmsr(EOI, 1), fault);
    EXPECT_EQ(wrmsr(ESR, 1), fault);
    EXPECT_EQ(wrmsr(DIVIDE, 4), fault);
    EXPECT_EQ(wrmsr(LVT_TIMER, 0x80000), fault);
    EXPECT_EQ(wrmsr(LVT_TIMER, 0x100), fault);
    EXPECT_EQ(wrmsr(LVT_ERROR, 0x400), fault);
    EXPECT_EQ(wrmsr(LVT_LINT0, 0x5700), done) << "read-only bits are not reserved";
    EXPECT_EQ(rdmsr(LVT_LINT0), 0x700U);
    for (unsigned reserved : {12U, 13U, 16U, 17U, 20U, 31U})
        EXPECT_EQ(wrmsr(ICR_LOW, u64{1} << reserved | 0x40), fault) << reserved;
    EXPECT_TRUE(bus.sent.empty());
}

TEST_F(LocalApicTest, IcrOfX2Apic) {
    to_x2apic();
    EXPECT_EQ(wrmsr(ICR_LOW, 0x12345678'000008f0), done);
    ASSERT_EQ(bus.sent.size(), 1U);
    EXPECT_EQ(bus.sent[0].destination, 0x12345678U);
    EXPECT_TRUE(bus.sent[0].logical);
    EXPECT_EQ(rdmsr(ICR_LOW), 0x12345678'000008f0U);
    EXPECT_EQ(wrmsr(ICR_LOW, 0xff'000000f0), done);
    EXPECT_EQ(bus.sent[1].destination, 0xffU) << "no broadcast here";
}

} // namespace
