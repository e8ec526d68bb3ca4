// SPDX-License-Identifier: MIT
#include "svm/machine.hpp"

namespace amd_machine {
namespace {

struct CapabilitiesTest : ::testing::Test {
    fakes::Cpu cpu;
    CapabilitiesTest() { populate(cpu, features_zen2, 32768); }
    std::string refusal() {
        auto const found = svm::read_capabilities({});
        return found ? "" : std::string(found.error().what);
    }
    std::string words(svm::Disabled const& disabled = {}) {
        std::array<char, 400> text{};
        lib::BufferSink sink(text);
        svm::read_capabilities(disabled)->describe(sink);
        return std::string(sink.view());
    }
};

TEST_F(CapabilitiesTest, RefusesACpuWithoutSvm) {
    cpu.set_cpuid(0x8000'0001, {0, 0, 0, 0});
    EXPECT_NE(refusal().find("no AMD-V"), std::string::npos);
}

TEST_F(CapabilitiesTest, RefusesWhatFirmwareLockedOff) {
    cpu.populate_msr(0xc001'0114, 1U << 4 | 1U << 3);
    EXPECT_NE(refusal().find("locked off by firmware"), std::string::npos);
    EXPECT_NE(svm::read_capabilities({}).error().remedy.find("firmware setup"), std::string::npos);
    cpu.populate_msr(0xc001'0114, 1U << 4);
    EXPECT_EQ(refusal(), "") << "without the lock it can be turned on";
    cpu.populate_msr(0xc001'0114, 1U << 3); // locked open
    EXPECT_EQ(refusal(), "");
}

TEST_F(CapabilitiesTest, UnlocksWhatIsNotLocked) {
    cpu.populate_msr(0xc001'0114, 1U << 4 | 1U << 1);
    EXPECT_TRUE(svm::unlock_svm());
    EXPECT_EQ(cpu.peek_msr(0xc001'0114), 1U << 1);
    u64 stubborn = 1U << 4; // as in a virtual machine
    cpu.hook_msr(0xc001'0114, [&] { return stubborn; }, [](u64) { return true; });
    EXPECT_FALSE(svm::unlock_svm());
    cpu.remove_msr(0xc001'0114);
    EXPECT_TRUE(svm::unlock_svm());
}

TEST_F(CapabilitiesTest, LivesWithoutVmCr) {
    cpu.remove_msr(0xc001'0114);
    EXPECT_EQ(refusal(), "");
}

TEST_F(CapabilitiesTest, RefusesACpuWithoutNestedPaging) {
    cpu.set_cpuid(0x8000'000a, {1, 64, 0, features_zen2 & ~1U});
    EXPECT_NE(refusal().find("nested paging"), std::string::npos);
}

TEST_F(CapabilitiesTest, NeedsAnAsidForGuests) {
    cpu.set_cpuid(0x8000'000a, {1, 1, 0, features_zen2});
    EXPECT_NE(refusal().find("identifiers"), std::string::npos);
}

TEST_F(CapabilitiesTest, TellsWhatItUsesAndWhatNot) {
    auto const text = words();
    EXPECT_NE(text.find("next-RIP decode-assists flush-by-ASID clean-bits"), std::string::npos) << text;
    EXPECT_NE(text.find("not used:"), std::string::npos) << text;
    EXPECT_NE(text.find("AVIC"), std::string::npos) << text;
    svm::Disabled disabled;
    ASSERT_TRUE(disabled.parse("next-rip,large-pages"));
    EXPECT_EQ(words(disabled).find("next-RIP"), std::string::npos);
    EXPECT_EQ(words(disabled).find("1G-pages"), std::string::npos);
    EXPECT_FALSE(disabled.parse("next-rip,ept"));
}

TEST_F(CapabilitiesTest, AvicNeedsItsFriends) {
    auto const found = [&](u32 features, svm::Disabled const& disabled = {}) {
        cpu.set_cpuid(0x8000'000a, {1, 64, 0, features});
        return *svm::read_capabilities(disabled);
    };
    EXPECT_TRUE(found(features_zen4).has_avic && found(features_zen4).has_x2avic);
    EXPECT_TRUE(found(features_zen2).has_avic && !found(features_zen2).has_x2avic);
    EXPECT_FALSE(found(features_zen4 & ~(1U << 13)).has_x2avic) << "x2AVIC alone";
    EXPECT_FALSE(found(features_zen4 & ~(1U << 6)).has_avic) << "without flush by ASID";
    svm::Disabled disabled;
    ASSERT_TRUE(disabled.parse("x2avic"));
    EXPECT_TRUE(found(features_zen4, disabled).has_avic && !found(features_zen4, disabled).has_x2avic);
    ASSERT_TRUE(disabled.parse("avic"));
    EXPECT_FALSE(found(features_zen4, disabled).has_avic);
    EXPECT_NE(words().find(" AVIC x2AVIC"), std::string::npos) << words();
}

TEST_F(CapabilitiesTest, Erratum1235IsThatOfFamily17) {
    cpu.set_cpuid(0x8000'000a, {1, 64, 0, features_zen4});
    EXPECT_FALSE(svm::read_capabilities({})->has_avic_running);
    cpu.set_cpuid(1, {signature_zen4, 0, 0, 0});
    EXPECT_TRUE(svm::read_capabilities({})->has_avic_running);
}

} // namespace
} // namespace amd_machine
