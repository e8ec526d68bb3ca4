// SPDX-License-Identifier: MIT
// NICs as their drivers see them. What they share with disks is tested there.
#include "served_device.hpp"

namespace {

using namespace served;

struct NicTest : ServedDevice {
    static constexpr std::array<u8, 6> mac{0x52, 0x54, 0, 0x12, 0x34, 0x56};

    NicTest() : ServedDevice(lib::max_disks + 1, 7) {}
    void SetUp() override { build({mac, true}); }
    void build(platform::NicFacts const& facts) {
        host.facts.nics = {};
        host.facts.nics[1] = facts;
        ServedDevice::build();
    }
    std::vector<u8> save() {
        std::vector<u8> bytes(platform->saved_size());
        EXPECT_TRUE(platform->save(bytes));
        return bytes;
    }
};

TEST_F(NicTest, IsAModernEthernetDeviceOfItsOwnSlot) {
    EXPECT_EQ(function(0), 0x1041'1af4U);
    EXPECT_EQ(function(8), 0x0200'0001U) << "Ethernet, modern only";
    EXPECT_EQ(function(0x2c), 0x0001'1af4U);
    for (u32 const other : {2U, 3U, 4U, 5U, 6U, 8U})
        EXPECT_EQ(function(0, other), ~0U) << "no device, no function in slot " << other;
    EXPECT_EQ(in(18, 2), 2U) << "queues: one receives, one transmits";
    EXPECT_EQ(in(24, 2), 64U) << "entries of a queue";
    host.facts.nics = {{{mac, true}, {mac, true}}};
    platform = std::make_unique<platform::Platform>(host, host.memory, host.facts);
    EXPECT_EQ(function(0, 6), 0x1041'1af4U);
    EXPECT_EQ(function(0, 7), 0x1041'1af4U);
}

TEST_F(NicTest, OffersWhatTheServiceCanDo) {
    EXPECT_EQ(offered(), VERSION_1 | INDIRECT_DESC | EVENT_IDX | lib::service::net_features);
    constexpr u64 MAC = 1 << 5, STATUS = 1 << 16;
    EXPECT_EQ(offered() & (MAC | STATUS), MAC | STATUS);
    EXPECT_EQ(offered() >> 17 & 1, 0U) << "no control queue";
}

TEST_F(NicTest, ItsConfigurationHasAddressAndLink) {
    std::array<u8, 0x20> expected{0x52, 0x54, 0, 0x12, 0x34, 0x56, 1, 0, 1, 0};
    if ((lib::service::net_features & 1 << 3) != 0) lib::store_sized(&expected[10], 2, 1500);
    auto const compare = [&] {
        for (u8 const size : {u8{1}, u8{2}, u8{4}})
            for (u32 at = 0; at + size <= expected.size(); at++)
                EXPECT_EQ(in(configuration + at, size), lib::load_sized(&expected[at], size)) << at << ' ' << +size;
    };
    compare();
    for (u32 at = 0; at < expected.size(); at += 4)
        out(configuration + at, ~u64{0}, 4);
    compare();
}

TEST_F(NicTest, TellsTheHostOfItsFeaturesQueuesAndDoorbells) {
    negotiate(VERSION_1 | EVENT_IDX | lib::service::net_features);
    enable(0);
    enable(1);
    ASSERT_EQ(host.served_calls.size(), 2U);
    EXPECT_EQ(host.served_calls[1].setup.features, lib::service::net_features);
    EXPECT_EQ(host.served_calls[1].setup.descriptors, descriptors_of(1));
    set_status(running);
    ring(1);
    EXPECT_EQ(told(), "S0S1D0D1D1");
    platform->served_interrupt(number, 0);
    EXPECT_EQ(take_interrupts(), 1);
    for (u32 const other : {0U, 1U, 2U, 3U, 4U, 6U})
        platform->served_interrupt(other, 0);
    EXPECT_EQ(take_interrupts(), 0);
    set_status(0);
    EXPECT_EQ(told(), "X");
    EXPECT_EQ(get_status(), running);
    platform->served_stopped(number);
    EXPECT_EQ(get_status(), 0);
}

TEST_F(NicTest, RefusesFeaturesThatItDoesNotOffer) {
    constexpr u64 CTRL_VQ = 1 << 17;
    negotiate(VERSION_1 | CTRL_VQ);
    EXPECT_EQ(get_status(), set_up) << "FEATURES_OK does not stay";
}

TEST_F(NicTest, MisuseNeedsAReset) {
    start(2);
    platform->served_misused(number);
    EXPECT_EQ(get_status(), running | NEEDS_RESET);
}

TEST_F(NicTest, ARestoredNicStartsItsQueuesAgain) {
    start(2);
    auto const saved = save();
    build({mac, true});
    ASSERT_TRUE(platform->restore(saved));
    EXPECT_EQ(told(), "S0S1D0D1");
    EXPECT_EQ(save(), saved);
    for (platform::NicFacts const& other :
         {platform::NicFacts{{0x52, 0x54, 0, 0x12, 0x34, 0x57}, true}, platform::NicFacts{mac, false}}) {
        build(other);
        EXPECT_EQ(platform->restore(saved).error(), lib::Errc::BadFormat);
        EXPECT_EQ(told(), "");
    }
}

} // namespace
