// SPDX-License-Identifier: MIT
// Where a frame goes: what is learned, for how long, and how much of it.
#include <gtest/gtest.h>
#include <network/switch.hpp>
#include <random>

namespace {

using lib::u32;
using lib::u64;
using network::EthernetAddress;
using network::Switch;

constexpr u64 max_age = 300;
constexpr EthernetAddress address(u64 n) { return n << 8 | 0x52; }
constexpr EthernetAddress group = 0x01;

struct SwitchTest : testing::Test {
    Switch ports{max_age};
    SwitchTest() {
        for (u32 i = 0; i < 4; i++)
            ports.plug(i, 7);
        ports.plug(4, 8);
        ports.plug(5, 8);
    }
};

TEST_F(SwitchTest, UnknownAddressGoesToAllOthersOfTheNetwork) {
    EXPECT_EQ(ports.targets(0, address(1), 0), 0b1110U);
    EXPECT_EQ(ports.targets(2, address(1), 0), 0b1011U);
    EXPECT_EQ(ports.targets(4, address(1), 0), 0b10'0000U);
    EXPECT_EQ(ports.targets(9, address(1), 0), 0U); // is not plugged in
}

TEST_F(SwitchTest, KnownAddressGoesToItsPort) {
    EXPECT_TRUE(ports.learn(2, address(1), 0));
    EXPECT_EQ(ports.targets(0, address(1), 0), 0b100U);
    EXPECT_EQ(ports.targets(0, address(2), 0), 0b1110U);
}

TEST_F(SwitchTest, FrameForItsOwnPortGoesNowhere) {
    ports.learn(2, address(1), 0);
    EXPECT_EQ(ports.targets(2, address(1), 0), 0U);
}

TEST_F(SwitchTest, GroupsGoToAllOthersEvenIfOneWasLearned) {
    ports.learn(2, group, 0); // no frame of a NIC has such a source
    EXPECT_EQ(ports.targets(0, group, 0), 0b1110U);
    EXPECT_EQ(ports.targets(0, ~u64{0} >> 16, 0), 0b1110U);
}

TEST_F(SwitchTest, SameAddressInTwoNetworksIsTwoPlaces) {
    ports.learn(1, address(1), 0);
    ports.learn(5, address(1), 0);
    EXPECT_EQ(ports.targets(0, address(1), 0), 0b10U);
    EXPECT_EQ(ports.targets(4, address(1), 0), 0b10'0000U);
    EXPECT_EQ(ports.targets(5, address(1), 0), 0U);
}

TEST_F(SwitchTest, AddressThatMovesIsFoundAtItsNewPort) {
    ports.learn(1, address(1), 0);
    ports.learn(2, address(1), 1);
    EXPECT_EQ(ports.targets(0, address(1), 1), 0b100U);
    EXPECT_EQ(ports.known(1), 0U);
    ports.learn(1, address(1), 2); // and back, though it was the last one that this port learned
    EXPECT_EQ(ports.targets(0, address(1), 2), 0b10U);
    EXPECT_EQ(ports.known(2), 0U);
}

TEST_F(SwitchTest, AddressIsForgottenAfterItsTime) {
    ports.learn(1, address(1), 1000);
    EXPECT_EQ(ports.targets(0, address(1), 1000 + max_age), 0b10U);
    EXPECT_EQ(ports.targets(0, address(1), 1001 + max_age), 0b1110U);
    ports.learn(1, address(1), 1001 + max_age);
    EXPECT_EQ(ports.targets(0, address(1), 1001 + 2 * max_age), 0b10U);
}

TEST_F(SwitchTest, TimeThatStepsBackAgesNothing) {
    ports.learn(1, address(1), 1000);
    EXPECT_EQ(ports.targets(0, address(1), 0), 0b10U);
}

TEST_F(SwitchTest, PortLearnsNoMoreThanItsLimit) {
    for (u32 i = 0; i < Switch::port_addresses; i++)
        EXPECT_TRUE(ports.learn(1, address(i), i));
    EXPECT_FALSE(ports.learn(1, address(999), 50));
    EXPECT_EQ(ports.known(1), Switch::port_addresses);
    EXPECT_EQ(ports.targets(0, address(999), 50), 0b1110U);
    EXPECT_TRUE(ports.learn(2, address(999), 50)); // others have their own places
    EXPECT_TRUE(ports.learn(1, address(3), 50));   // known already
}

TEST_F(SwitchTest, OldAddressMakesRoomForANewOne) {
    for (u32 i = 0; i < Switch::port_addresses; i++)
        ports.learn(1, address(i), i == 5 ? 0 : 100);
    EXPECT_FALSE(ports.learn(1, address(999), max_age));
    EXPECT_TRUE(ports.learn(1, address(999), max_age + 1));
    EXPECT_EQ(ports.targets(0, address(999), max_age + 1), 0b10U);
    EXPECT_EQ(ports.targets(0, address(5), max_age + 1), 0b1110U);
    EXPECT_EQ(ports.targets(0, address(6), max_age + 1), 0b10U);
}

TEST_F(SwitchTest, UnpluggedPortIsForgotten) {
    ports.learn(1, address(1), 0);
    ports.unplug(1);
    EXPECT_EQ(ports.targets(0, address(1), 0), 0b1100U);
    ports.plug(1, 8);
    EXPECT_EQ(ports.targets(0, address(1), 0), 0b1100U);
    EXPECT_EQ(ports.targets(4, address(1), 0), 0b10'0010U);
    EXPECT_EQ(ports.known(1), 0U);
}

// Against a plain list: the same answers, whatever happens.
TEST_F(SwitchTest, AnswersAreThoseOfAPlainList) {
    struct Known {
        u32 port;
        EthernetAddress address;
        u64 seen;
    };
    std::vector<Known> list;
    std::mt19937 random(1);
    u64 now = 0;
    u32 const networks[6] = {7, 7, 7, 7, 8, 8};
    for (u32 step = 0; step < 30'000; step++) {
        u32 const port = random() % 6;
        EthernetAddress const who = address(random() % 60);
        now += random() % 8;
        if (random() % 500 == 0) {
            ports.plug(port, networks[port]);
            std::erase_if(list, [&](Known const& one) { return one.port == port; });
        }
        bool const is_learned = ports.learn(port, who, now);
        auto const in_network = [&](Known const& one) {
            return one.address == who && networks[one.port] == networks[port];
        };
        if (!is_learned) {
            ASSERT_EQ(ports.known(port), Switch::port_addresses);
            for (Known const& one : list)
                ASSERT_FALSE(one.port == port && (one.address == who || now - one.seen > max_age));
            std::erase_if(list, in_network); // elsewhere it is no longer
        } else {
            std::erase_if(list, in_network);
            list.push_back({port, who, now});
        }
        u32 const from = random() % 6;
        EthernetAddress const to = address(random() % 60);
        u32 expected = (from < 4 ? 0b1111U : 0b11'0000U) & ~(1U << from);
        for (Known const& one : list)
            if (one.address == to && networks[one.port] == networks[from] && now - one.seen <= max_age)
                expected = one.port == from ? 0 : 1U << one.port;
        ASSERT_EQ(ports.targets(from, to, now), expected) << step;
    }
}

} // namespace
