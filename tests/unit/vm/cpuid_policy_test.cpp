// SPDX-License-Identifier: MIT
#include "vm/cpuid_hosts.hpp"

#include <gtest/gtest.h>
#include <string>

namespace {

using hosts::everything;
using hosts::policy;
using vm::CpuidDynamic;
using vm::CpuidRegs;
using vm::u32;
using vm::u64;

constexpr CpuidDynamic idle{};

void expect_within(CpuidRegs allowed, CpuidRegs actual, u32 leaf) {
    EXPECT_EQ(actual.eax & ~allowed.eax, 0U) << "eax of " << std::hex << leaf;
    EXPECT_EQ(actual.ebx & ~allowed.ebx, 0U) << "ebx of " << std::hex << leaf;
    EXPECT_EQ(actual.ecx & ~allowed.ecx, 0U) << "ecx of " << std::hex << leaf;
    EXPECT_EQ(actual.edx & ~allowed.edx, 0U) << "edx of " << std::hex << leaf;
}

// The masks here are written down a second time, from the manual, so that a slip in the allow-list shows.
TEST(CpuidPolicy, HostOfAllOnesLeaksNothingIntel) {
    vm::CpuidPolicy const guest = policy<hosts::all_ones_intel>(everything());
    expect_within({0x0fff3fff, 0x0004ffff, 0xf7fa3203, 0x1f8bfbff}, guest.lookup(1, 0, idle), 1);
    expect_within({4, 0, 0, 0}, guest.lookup(6, 0, idle), 6);
    expect_within({1, 0xf1bf27eb, 0x1a405f4e, 0x00804510}, guest.lookup(7, 0, idle), 7);
    expect_within({0x00801c37, 0, 0, 0}, guest.lookup(7, 1, idle), 7);
    EXPECT_EQ(guest.lookup(7, 2, idle), CpuidRegs{});
    expect_within({0xf, 0xffffffff, 0, 0}, guest.lookup(0xd, 1, idle), 0xd);
    expect_within({0x2e7, 0xffffffff, 0xffffffff, 0}, guest.lookup(0xd, 0, idle), 0xd);
    for (u32 component : {3U, 4U, 8U, 10U, 11U, 12U, 17U, 18U, 19U, 20U, 62U, 63U, 0xffffffffU})
        EXPECT_EQ(guest.lookup(0xd, component, idle), CpuidRegs{}) << component;
    expect_within({0, 0, 0x121, 0x2c100800}, guest.lookup(0x80000001, 0, idle), 0x80000001);
    expect_within({0, 0, 0, 0x100}, guest.lookup(0x80000007, 0, idle), 0x80000007);
    EXPECT_EQ(guest.lookup(0x80000008, 0, idle), (CpuidRegs{0x3024, 0, 0, 0})); // 255 bits are not to be believed
    for (u32 leaf : {3U,    5U,    8U,    9U,    0xaU,  0xcU,  0xeU,  0xfU,  0x10U, 0x11U, 0x12U,
                     0x13U, 0x14U, 0x17U, 0x18U, 0x19U, 0x1aU, 0x1bU, 0x1cU, 0x1dU, 0x1eU, 0x80000005U})
        EXPECT_EQ(guest.lookup(leaf, 0, idle), CpuidRegs{}) << leaf;
}

TEST(CpuidPolicy, HostOfAllOnesLeaksNothingAmd) {
    vm::CpuidPolicy const guest = policy<hosts::all_ones_amd>(everything());
    expect_within({0x0fff0fff, 0, 0x006109e3, 0xedd3fbff}, guest.lookup(0x80000001, 0, idle), 0x80000001);
    expect_within({0, 0, 0, 0x100}, guest.lookup(0x80000007, 0, idle), 0x80000007);
    expect_within({0x3024, 0x24000005, 0x2003, 0}, guest.lookup(0x80000008, 0, idle), 0x80000008);
    expect_within({7, 0, 0, 0}, guest.lookup(0x8000001a, 0, idle), 0x8000001a);
    expect_within({0x45, 0, 0, 0}, guest.lookup(0x80000021, 0, idle), 0x80000021);
    for (u32 leaf : {2U,          3U,          4U,          5U,          8U,          9U,          0xaU,
                     0xcU,        0xeU,        0x14U,       0x15U,       0x16U,       0x1fU,       0x80000009U,
                     0x8000000aU, 0x80000010U, 0x8000001bU, 0x8000001cU, 0x8000001fU, 0x80000020U, 0x80000022U})
        EXPECT_EQ(guest.lookup(leaf, 0, idle), CpuidRegs{}) << leaf;
}

TEST(CpuidPolicy, EveryLeafOfEveryRangeAnswersWithoutTheHostsSecrets) {
    // No leaf that the allow-list does not know may carry an all-ones register.
    vm::CpuidPolicy const guest = policy<hosts::all_ones_amd>(everything());
    for (u32 range : {0U, 0x40000000U, 0x80000000U, 0xc0000000U})
        for (u32 leaf = range; leaf < range + 0x200; ++leaf) {
            bool const strings =
                leaf == 0 || (leaf >= 0x80000000 && leaf <= 0x80000006) || leaf == 0x80000019 || leaf == 0x8000001d;
            if (strings) continue;
            CpuidRegs const regs = guest.lookup(leaf, 0, idle);
            EXPECT_TRUE(regs.eax != ~0U && regs.ecx != ~0U && regs.edx != ~0U) << std::hex << leaf;
        }
}

TEST(CpuidPolicy, Leaf1OfSkylake) {
    vm::CpuidPolicy const guest = policy<hosts::skylake_x>(everything(4));
    CpuidRegs const plain = guest.lookup(1, 0, {.apic_id = 3});
    EXPECT_EQ(plain.eax, 0x50654U);
    EXPECT_EQ(plain.ebx, 0x03040800U);
    EXPECT_EQ(plain.ecx & (1U << 31), 1U << 31) << "a hypervisor is present";
    EXPECT_EQ(plain.ecx & 0x0000017cU, 0U) << "no DTES64, MONITOR, DS-CPL, VMX, SMX, TM2";
    EXPECT_EQ(plain.ecx & (1U << 27), 0U) << "OSXSAVE follows CR4";
    EXPECT_EQ(plain.edx & (1U << 9), 1U << 9);
    EXPECT_EQ(plain.edx & (1U << 28), 1U << 28);
    CpuidRegs const other = guest.lookup(1, 7, {.cr4 = vm::cr4::OSXSAVE, .apic_enabled = false});
    EXPECT_EQ(other.ecx & (1U << 27), 1U << 27);
    EXPECT_EQ(other.edx & (1U << 9), 0U);
    EXPECT_EQ(policy<hosts::skylake_x>(everything(1)).lookup(1, 0, idle).edx & (1U << 28), 0U);
}

TEST(CpuidPolicy, SwitchesTurnFeaturesOff) {
    vm::PlatformFacts none;
    none.tsc_hz = 100'000'000;
    none.xcr0_allowed = 0;
    none.x2apic = none.tsc_deadline = false;
    vm::CpuidPolicy const guest = policy<hosts::skylake_x>(none);
    EXPECT_EQ(guest.lookup(1, 0, idle).ecx & 0x35201000U, 0U) << "AVX, F16C, FMA, XSAVE, x2APIC, deadline";
    EXPECT_EQ(guest.lookup(7, 0, idle).ebx & 0xf0230420U, 0U) << "AVX2, AVX-512, INVPCID";
    EXPECT_EQ(guest.lookup(7, 0, idle).ecx & 0x8U, 0U);
    EXPECT_EQ(guest.lookup(0xd, 0, idle), CpuidRegs{});
    EXPECT_EQ(guest.lookup(0x80000001, 0, idle).edx & (1U << 27), 0U);
    EXPECT_EQ(guest.lookup(0x80000007, 0, idle).edx, 0U);
    EXPECT_EQ(guest.rules().xcr0, 0U);
    EXPECT_EQ(guest.rules().cr4 & (vm::cr4::OSXSAVE | vm::cr4::PKE), 0U);
    EXPECT_FALSE(guest.has_x2apic() || guest.has_tsc_deadline() || guest.has_tsc_aux() || guest.has_xsaves());
}

TEST(CpuidPolicy, XsaveSizesFollowXcr0) {
    vm::CpuidPolicy const guest = policy<hosts::skylake_x>(everything());
    EXPECT_EQ(guest.lookup(0xd, 0, idle), (CpuidRegs{0x2e7, 576, 0xa88, 0}));
    EXPECT_EQ(guest.lookup(0xd, 0, {.xcr0 = 7}).ebx, 0x340U);
    EXPECT_EQ(guest.lookup(0xd, 0, {.xcr0 = 0xe7}).ebx, 0xa80U);
    EXPECT_EQ(guest.lookup(0xd, 1, {.xcr0 = 0x207}), (CpuidRegs{0xf, 576 + 0x100 + 8, 0, 0}));
    EXPECT_EQ(guest.lookup(0xd, 2, idle), (CpuidRegs{0x100, 0x240, 0, 0}));
    EXPECT_EQ(guest.lookup(0xd, 9, idle), (CpuidRegs{8, 0xa80, 0, 0}));
    vm::PlatformFacts no_avx512 = everything();
    no_avx512.xcr0_allowed = 0x47; // one of the three AVX-512 components is none
    no_avx512.xsaves = no_avx512.pku = false;
    vm::CpuidPolicy const smaller = policy<hosts::skylake_x>(no_avx512);
    EXPECT_EQ(smaller.rules().xcr0, 7U);
    EXPECT_EQ(smaller.lookup(0xd, 1, idle).eax, 7U);
    EXPECT_EQ(smaller.lookup(7, 0, idle).ebx & 0xf0230000U, 0U);
    EXPECT_EQ(policy<hosts::haswell>(everything()).lookup(0xd, 1, {.xcr0 = 7}).ebx, 0U) << "no compaction, no size";
}

TEST(CpuidPolicy, Frequencies) {
    vm::CpuidPolicy const guest = policy<hosts::haswell>(everything());
    EXPECT_EQ(guest.lookup(0, 0, idle).eax, 0x16U);
    EXPECT_EQ(guest.lookup(0x15, 0, idle), (CpuidRegs{1, 1, 2'500'000'000, 0}));
    EXPECT_EQ(guest.lookup(0x16, 0, idle), (CpuidRegs{2500, 2500, 100, 0}));
    EXPECT_EQ(guest.lookup(0x40000010, 0, idle), (CpuidRegs{2'500'000, 2'500'000, 0, 0}));
    static_assert(vm::crystal_of(4'294'967'295).multiplier == 1);
    static_assert(vm::crystal_of(4'294'967'296).multiplier == 2 && vm::crystal_of(4'294'967'296).hz == 2'147'483'648);
    static_assert(vm::crystal_of(10'000'000'000).multiplier == 3);
    EXPECT_EQ(policy<hosts::epyc>(everything()).lookup(0x15, 0, idle), CpuidRegs{});
}

TEST(CpuidPolicy, HypervisorLeaves) {
    vm::CpuidPolicy const guest = policy<hosts::epyc>(everything());
    CpuidRegs const regs = guest.lookup(0x40000000, 0, idle);
    EXPECT_EQ(regs.eax, 0x40000010U);
    u32 const words[3] = {regs.ebx, regs.ecx, regs.edx};
    std::string text;
    for (u32 word : words)
        for (unsigned i = 0; i < 4; ++i)
            text += static_cast<char>(word >> (8 * i));
    EXPECT_EQ(text, std::string("MullionVMM\0\0", 12));
    EXPECT_EQ(guest.lookup(0x40000001, 0, idle), CpuidRegs{}) << "KVM's feature bits, to whom does not ask who we are";
    EXPECT_EQ(guest.lookup(0x40000005, 0, idle), CpuidRegs{});
}

TEST(CpuidPolicy, KvmIsASecondHypervisorWithAClockOnly) {
    vm::CpuidPolicy const amd = policy<hosts::epyc>(everything()), intel = policy<hosts::skylake_x>(everything());
    for (auto const* guest : {&amd, &intel}) {
        EXPECT_EQ(guest->lookup(0x40000100, 0, idle), (CpuidRegs{0x40000110, 0x4b4d564b, 0x564b4d56, 0x4d}));
        EXPECT_EQ(guest->lookup(0x40000101, 0, idle), (CpuidRegs{1U << 1 | 1U << 3 | 1U << 24, 0, 0, 0}));
        EXPECT_EQ(guest->lookup(0x40000102, 0, idle), CpuidRegs{});
        EXPECT_EQ(guest->lookup(0x40000110, 0, idle), (CpuidRegs{2'500'000, 2'500'000, 0, 0}));
        EXPECT_EQ(guest->lookup(0x40000200, 0, idle), guest->lookup(0x40000011, 0, idle)) << "beyond both";
    }
}

TEST(CpuidPolicy, TopologyIsOneThreadPerCore) {
    for (u32 vcpus : {1U, 2U, 3U, 4U, 5U, 8U, 64U}) {
        vm::CpuidPolicy const guest = policy<hosts::skylake_x>(everything(vcpus));
        CpuidDynamic const last{.apic_id = vcpus - 1};
        EXPECT_EQ(guest.lookup(0xb, 0, last), (CpuidRegs{0, 1, 0x100, vcpus - 1}));
        CpuidRegs const core = guest.lookup(0xb, 1, last);
        EXPECT_EQ(core.ebx, vcpus);
        EXPECT_EQ((vcpus - 1) >> core.eax, 0U) << "every id is in package 0";
        EXPECT_EQ(core.ecx, 0x201U);
        EXPECT_EQ(guest.lookup(0xb, 0x102, last), (CpuidRegs{0, 0, 2, vcpus - 1}));
        CpuidRegs const l1 = guest.lookup(4, 0, last);
        CpuidRegs const l3 = guest.lookup(4, 3, last);
        EXPECT_EQ((l1.eax >> 14) & 0xfff, 0U);
        EXPECT_GE(((l3.eax >> 14) & 0xfff) + 1, vcpus);
        EXPECT_GE((l1.eax >> 26) + 1, vcpus);
        EXPECT_EQ(l3.ecx, 0x4fffU);
        EXPECT_EQ(guest.lookup(4, 4, last), CpuidRegs{});
    }
    vm::CpuidPolicy const amd = policy<hosts::epyc>(everything(6));
    EXPECT_EQ(amd.lookup(0x80000008, 0, idle).ecx, 0x3005U);
    EXPECT_EQ(amd.lookup(0x8000001e, 0, {.apic_id = 5}), (CpuidRegs{5, 5, 0, 0}));
    EXPECT_EQ((amd.lookup(0x8000001d, 3, idle).eax >> 14) & 0xfff, 7U);
    EXPECT_EQ(amd.lookup(0x80000001, 0, idle).ecx & 2, 2U);
}

TEST(CpuidPolicy, LeavesBeyondTheRangesFollowTheVendor) {
    vm::CpuidPolicy const intel = policy<hosts::skylake_x>(everything());
    CpuidRegs const highest = intel.lookup(0x16, 0, idle);
    for (u32 leaf : {0x17U, 0x3fU, 0x40U, 0x3fffffffU, 0x40000011U, 0x40000111U, 0x80000009U, 0x80860000U, 0xc0000000U,
                     0xffffffffU})
        EXPECT_EQ(intel.lookup(leaf, 0, idle), highest) << std::hex << leaf;
    vm::CpuidPolicy const amd = policy<hosts::epyc>(everything());
    for (u32 leaf : {0xeU, 0x17U, 0x40U, 0x40000011U, 0x80000020U, 0x80000040U, 0xc0000000U, 0xffffffffU})
        EXPECT_EQ(amd.lookup(leaf, 0, idle), CpuidRegs{}) << std::hex << leaf;
    vm::CpuidPolicy const newer = policy<hosts::all_ones_intel>(everything());
    EXPECT_EQ(newer.lookup(0x20, 1, {.apic_id = 9}), newer.lookup(0x1f, 1, {.apic_id = 9}));
}

TEST(CpuidPolicy, RulesForControlRegisters) {
    vm::ControlRegisterRules const intel = policy<hosts::skylake_x>(everything()).rules();
    EXPECT_EQ(intel.cr4, 0x77'07ffU);
    EXPECT_EQ(intel.efer, 0xd01U);
    EXPECT_EQ(intel.xcr0, 0x2e7U);
    EXPECT_EQ(intel.xss, 0U);
    EXPECT_EQ(intel.physical_bits, 46);
    vm::ControlRegisterRules const amd = policy<hosts::epyc>(everything()).rules();
    EXPECT_EQ(amd.cr4, 0x35'07ffU);
    EXPECT_EQ(amd.physical_bits, 48);
}

TEST(CpuidPolicy, OspkeFollowsCr4) {
    vm::CpuidPolicy const guest = policy<hosts::skylake_x>(everything());
    EXPECT_EQ(guest.lookup(7, 0, idle).ecx & 0x18, 0x8U);
    EXPECT_EQ(guest.lookup(7, 0, {.cr4 = vm::cr4::PKE}).ecx & 0x18, 0x18U);
}

} // namespace
