// SPDX-License-Identifier: MIT
#include "e1000_world.hpp"

namespace net_test {

namespace {

constexpr u32 IMS = 0xd0, RCTL = 0x100, IVAR = 0xe4, ITR = 0xc4;

class E1000Start : public E1000Kinds {};
INSTANTIATE_TEST_SUITE_P(Kinds, E1000Start, testing::Values(0, 1, 2, 3));

} // namespace

TEST_P(E1000Start, TakesTheAddressOfTheFirstReceiveAddress) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.driver.address(), world.fake.setup.address);
    EXPECT_EQ(world.fake.resets, 1U);
    EXPECT_TRUE(world.has_logged("the link is up at 1000 Mb/s, full duplex"));
}

TEST_P(E1000Start, ReadsTheAddressFromTheEepromIfTheReceiveAddressIsInvalid) {
    auto with = setup();
    with.has_receive_address = false;
    E1000World world(with, uses_interrupts());
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.driver.address(), with.address);
}

TEST_P(E1000Start, ReceivesEveryAddress) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    constexpr u32 promiscuous = 1U << 3 | 1U << 4 | 1U << 15;
    EXPECT_EQ(world.fake.reg(RCTL) & promiscuous, promiscuous);
}

TEST_P(E1000Start, TakesOverFromADriverThatLeftItRunning) {
    auto with = setup();
    with.is_running = true;
    E1000World world(with, uses_interrupts());
    ASSERT_TRUE(world.start());
    world.fake.incoming.push_back({.bytes = frame_of(100, 1)});
    EXPECT_TRUE(world.run([&] { return world.received.size() == 1; }));
}

// Bochs, and QEMU before 2010.
TEST(E1000Quirk, DependsOnNoResetForARunningDevice) {
    E1000World world({.chip = Chip::I82540, .ignores_reset = true, .is_running = true}, false);
    ASSERT_TRUE(world.start());
    EXPECT_TRUE(world.send_room(frame_of(200, 5)));
    world.driver.ring();
    world.fake.incoming.push_back({.bytes = frame_of(100, 1)});
    EXPECT_TRUE(world.run([&] { return world.received.size() == 1 && world.fake.sent.size() == 1; }));
    EXPECT_EQ(world.fake.sent[0], frame_of(200, 5));
}

TEST_P(E1000Start, EveryCauseSendsMessageZeroAtMostAsOftenAsTheGapAllows) {
    E1000World world(setup(), uses_interrupts());
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.fake.reg(ITR), 195U); // 50 us
    if (setup().chip == Chip::I82574) EXPECT_EQ(world.fake.reg(IVAR), 0x0008'0808U);
    if (!uses_interrupts()) EXPECT_EQ(world.fake.reg(IMS), 0U);
}

TEST(E1000Fails, OfAnotherKind) {
    E1000World world({.id = 0x10c9'8086});
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "is of a kind that this driver does not know");
    EXPECT_EQ(world.driver.deadline(), net::NetDevice::never);
}

TEST(E1000Fails, WithTooFewRegisters) {
    E1000World world({.bar_size = 4096});
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "has too few registers");
}

TEST(E1000Fails, WithTooLittleMemory) {
    E1000World world({.shared_size = 256 * lib::KiB});
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "got too little memory");
}

TEST(E1000Fails, IfItDoesNotComeOutOfItsReset) {
    E1000World world({.never_comes_back = true});
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "does not come out of its reset");
    EXPECT_LE(world.fake.now, 2'000 * ticks_per_millisecond);
}

TEST(E1000Fails, IfItNeverReadsItsNvm) {
    E1000World world({.never_reads_nvm = true});
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "does not read its memory of settings");
}

TEST(E1000Fails, IfTheEepromDoesNotAnswer) {
    E1000World world({.has_receive_address = false, .never_reads_word = true});
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "does not answer when its address is read");
}

TEST(E1000Fails, IfItsAddressIsThatOfAGroup) {
    E1000World world({.address = {0x01, 0, 0, 0, 0, 1}});
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "has no address");
}

TEST(E1000Fails, IfItIsGone) {
    E1000World world;
    world.fake.gone = true;
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "does not answer");
}

TEST(E1000Fails, IfItGoesWhileItRuns) {
    E1000World world;
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.send_pieces(frame_of(100, 1), 7, 2, 0));
    world.fake.gone = true;
    ASSERT_TRUE(world.run_until(State::Failed));
    EXPECT_EQ(world.driver.failure(), "is gone");
    EXPECT_TRUE(world.run([&] { return world.ended.size() == 1; }));
    EXPECT_EQ(world.driver.deadline(), net::NetDevice::never);
    EXPECT_FALSE(world.driver.has_link());
}

TEST(E1000Limits, ARequestThatNeverEndsDelaysTheResetByItsLimitOnly) {
    E1000World world({.never_quiet = true});
    ASSERT_TRUE(world.start());
    EXPECT_GE(world.fake.now, 100 * ticks_per_millisecond);
    EXPECT_LE(world.fake.now, 200 * ticks_per_millisecond);
}

TEST(E1000Limits, ACallBeforeTheDeadlineTouchesNoRegisterDuringAReset) {
    E1000World world;
    for (u32 i = 0; i < 4000 && world.driver.state() == State::Starting; i++) {
        world.poll(false); // the fake would complain
        world.fake.now += 10;
    }
    EXPECT_EQ(world.driver.state(), State::Ready);
}

} // namespace net_test
