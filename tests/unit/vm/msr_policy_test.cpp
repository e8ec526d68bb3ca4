// SPDX-License-Identifier: MIT
#include "vm/cpuid_hosts.hpp"

#include <gtest/gtest.h>
#include <map>
#include <vm/msr_policy.hpp>

namespace {

using vm::HardwareMsr;
using vm::MsrResult;
using vm::u32;
using vm::u64;
constexpr MsrResult done = MsrResult::Done;
constexpr MsrResult fault = MsrResult::GeneralProtection;

struct FakeVcpu final : vm::MsrHooks {
    std::map<HardwareMsr, u64> hardware;
    u64 cr0_value = 0;
    u64 host_tsc = 1000, offset = 0, deadline = 0, apic_base = 0xfee00900;
    u64 read_hardware(HardwareMsr which) override { return hardware[which]; }
    void write_hardware(HardwareMsr which, u64 value) override { hardware[which] = value; }
    u64 cr0() override { return cr0_value; }
    u64 guest_tsc() override { return host_tsc + offset; }
    void shift_tsc(u64 delta) override { offset += delta; }
    std::vector<std::pair<u64, u64>> published; // where, and by how much the TSC was moved
    std::vector<u64> wall_clocks;
    void publish_time(u64 at, u64 moved) override { published.push_back({at, moved}); }
    void publish_wall_clock(u64 at) override { wall_clocks.push_back(at); }
    u64 read_tsc_deadline() override { return deadline; }
    void write_tsc_deadline(u64 value) override { deadline = value; }
    u64 read_apic_base() override { return apic_base; }
    MsrResult write_apic_base(u64 value) override {
        apic_base = value;
        return done;
    }
    MsrResult read_x2apic(u32 index, u64& value) override {
        value = index;
        return index == 0x802 ? done : fault;
    }
    MsrResult write_x2apic(u32 index, u64) override { return index == 0x80b ? done : fault; }
};

struct MsrTest : ::testing::Test {
    FakeVcpu vcpu;
    vm::MsrPolicy msrs{facts(vm::CpuVendor::Intel), vcpu};

    static vm::MsrFacts facts(vm::CpuVendor vendor) {
        vm::MsrFacts result = vm::msr_facts_of(hosts::policy<hosts::skylake_x>(hosts::everything()));
        result.vendor = vendor;
        result.microcode_revision = 0x2006;
        return result;
    }
    u64 read(u32 index) {
        u64 value = 0xdead;
        EXPECT_EQ(msrs.read(index, value), done) << std::hex << index;
        return value;
    }
    MsrResult try_read(u32 index) {
        u64 value = 0;
        return msrs.read(index, value);
    }
};

TEST_F(MsrTest, OnlyTheseExistOnIntel) {
    std::vector<u32> found;
    for (u32 base : {0U, 0x40000000U, 0x4b564000U, 0xc0000000U, 0xc0010000U, 0xc0011000U, 0xfffff000U})
        for (u32 index = base; index - base < 0x1000; ++index)
            if (msrs.find(index) != nullptr) found.push_back(index);
    std::vector<u32> expected = {0x0,   0x1,   0x10,  0x17,  0x1b,  0x2a,  0x3a,  0x3b,  0x79,  0x8b,  0xc1,
                                 0xc2,  0xcd,  0xce,  0xe2,  0xfe,  0x11e, 0x140, 0x174, 0x175, 0x176, 0x179,
                                 0x17a, 0x186, 0x187, 0x198, 0x199, 0x1a0, 0x1d9, 0x1db, 0x1dc, 0x1dd, 0x1de};
    for (u32 i = 0x200; i <= 0x20f; ++i)
        expected.push_back(i);
    for (u32 i : {0x250U, 0x258U, 0x259U})
        expected.push_back(i);
    for (u32 i = 0x268; i <= 0x26f; ++i)
        expected.push_back(i);
    for (u32 i : {0x277U,      0x2ffU,      0x606U,      0x611U,      0x619U,      0x639U,      0x641U,
                  0x6e0U,      0xda0U,      0x4b564d00U, 0x4b564d01U, 0xc0000080U, 0xc0000081U, 0xc0000082U,
                  0xc0000083U, 0xc0000084U, 0xc0000100U, 0xc0000101U, 0xc0000102U, 0xc0000103U})
        expected.push_back(i);
    EXPECT_EQ(found, expected);
}

TEST_F(MsrTest, WhatTheTableDoesNotNameIsGeneralProtection) {
    for (u32 index : {2U, 0x34U, 0x48U, 0x49U, 0x10aU, 0x122U, 0x345U, 0x38fU, 0x480U, 0x600U, 0x7ffU, 0x900U,
                      0xc0010015U, 0xc0010117U, 0xffffffffU, 0x80000000U}) {
        EXPECT_EQ(try_read(index), fault) << std::hex << index;
        EXPECT_EQ(msrs.write(index, 0), fault) << std::hex << index;
    }
}

TEST_F(MsrTest, LinuxMayAskAmdForConfigurationSpaceByPortsAndGetsNone) {
    msrs = vm::MsrPolicy(facts(vm::CpuVendor::Amd), vcpu);
    EXPECT_EQ(msrs.write(0xc001001f, u64{1} << 46), done);
    u64 value = 1;
    EXPECT_EQ(msrs.read(0xc001001f, value), done);
    EXPECT_EQ(value, 0U);
    EXPECT_EQ(msrs.write(0xc001001f, 1), fault);
    EXPECT_EQ(msrs.read(0xc0011020, value), fault) << "no switch of speculative store bypass is promised";
}

TEST_F(MsrTest, AmdHasItsOwnAndNotIntels) {
    msrs = vm::MsrPolicy(facts(vm::CpuVendor::Amd), vcpu);
    EXPECT_EQ(try_read(vm::msr::IA32_MISC_ENABLE), fault);
    EXPECT_EQ(try_read(vm::msr::IA32_FEATURE_CONTROL), fault);
    EXPECT_EQ(read(vm::msr::SYSCFG), 0U);
    EXPECT_EQ(msrs.write(vm::msr::SYSCFG, 1U << 18 | 1U << 20), done);
    EXPECT_EQ(read(vm::msr::SYSCFG), 1U << 18 | 1U << 20);
    EXPECT_EQ(msrs.write(vm::msr::SYSCFG, 1U << 19), fault) << "fixed MTRRs have no more bits than on Intel";
    EXPECT_EQ(msrs.write(vm::msr::VM_CR, 0), done);
    EXPECT_EQ(read(vm::msr::VM_CR), 0x18U) << "locked";
    EXPECT_EQ(read(vm::msr::HWCR), 1U << 24);
    EXPECT_EQ(msrs.write(vm::msr::HWCR, 1U << 24 | 1U << 6), done);
    EXPECT_EQ(msrs.write(vm::msr::HWCR, 1U << 24 | 1U << 4), done);
    EXPECT_EQ(msrs.write(vm::msr::HWCR, 1U << 24 | 1U << 18), fault) << "machine-check banks cannot be written";
    EXPECT_EQ(read(vm::msr::IA32_BIOS_SIGN_ID), 0x2006U);
    EXPECT_EQ(msrs.write(vm::msr::IA32_BIOS_SIGN_ID, 0), fault);
    EXPECT_EQ(msrs.write(vm::msr::DE_CFG, 2), fault) << "a promise that the host does not keep";
    EXPECT_EQ(msrs.write(vm::msr::DE_CFG, 0), done);
    vm::MsrFacts serialising = facts(vm::CpuVendor::Amd);
    serialising.lfence_serialising = true;
    msrs = vm::MsrPolicy(serialising, vcpu);
    EXPECT_EQ(read(vm::msr::DE_CFG), 2U);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_AUX, 0x1'0000'0005), done);
    EXPECT_EQ(vcpu.hardware[HardwareMsr::TscAux], 5U);
}

// Each of these is on every CPU of the vendor, and some kernel uses it without asking CPUID first.
TEST_F(MsrTest, WhatEveryCpuHasTakesWritesAndStaysAsItWas) {
    struct Expected {
        vm::CpuVendor vendor;
        u32 index;
        u64 value;
    };
    constexpr auto intel = vm::CpuVendor::Intel, amd = vm::CpuVendor::Amd;
    std::vector<Expected> all = {{intel, 0x0, 0},
                                 {intel, 0x1, 0},
                                 {intel, 0x2a, 0},
                                 {intel, 0xc1, 0},
                                 {intel, 0xc2, 0},
                                 {intel, 0xe2, 0x8000},
                                 {intel, 0x11e, 0x101},
                                 {intel, 0x186, 0},
                                 {intel, 0x187, 0},
                                 {intel, 0x199, 0},
                                 {intel, 0x198, 0xa00'0000'0a00},
                                 {amd, 0x0, 0},
                                 {amd, 0x1, 0},
                                 {amd, 0x2a, 0},
                                 {amd, 0xc0010112, 0},
                                 {amd, 0xc0010113, 0},
                                 {amd, 0xc0011021, 0},
                                 {amd, 0xc0011022, 0},
                                 {amd, 0xc0011023, 0},
                                 {amd, 0xc001102a, 0},
                                 {amd, 0xc001102c, 0},
                                 {amd, 0xc001001b, 0x2000'0000}};
    for (u32 i = 0; i < 8; ++i) // performance event selects and counters: no CPUID flag says that they are there
        all.push_back({amd, 0xc0010000 + i, 0});
    for (u32 i = 0; i < 7; ++i)
        all.push_back({amd, 0xc0010044 + i, 0});
    for (u32 i = 0; i < 11; ++i) // P-states: none is defined (bit 63 of 64h and on)
        all.push_back({amd, 0xc0010061 + i, 0});
    for (u32 i = 0; i < 4; ++i)
        for (auto const vendor : {intel, amd})
            all.push_back({vendor, 0x1db + i, 0});
    for (Expected const& each : all) {
        msrs = vm::MsrPolicy(facts(each.vendor), vcpu);
        EXPECT_EQ(read(each.index), each.value) << std::hex << each.index;
        EXPECT_EQ(msrs.write(each.index, 0xabcd), done) << std::hex << each.index;
        EXPECT_EQ(msrs.write(each.index, ~u64{0}), done) << std::hex << each.index;
        EXPECT_EQ(read(each.index), each.value) << std::hex << each.index;
    }
}

TEST_F(MsrTest, WhatTheOtherVendorHasFaults) {
    for (u32 index : {0x17U, 0x79U, 0xc1U, 0xcdU, 0xe2U, 0x11eU, 0x186U, 0x198U, 0x199U, 0x1a0U, 0x606U}) {
        msrs = vm::MsrPolicy(facts(vm::CpuVendor::Amd), vcpu);
        EXPECT_EQ(try_read(index), fault) << std::hex << index;
        EXPECT_EQ(msrs.write(index, 0), fault) << std::hex << index;
    }
    for (u32 index :
         {0xc0010000U, 0xc0010007U, 0xc0010020U, 0xc0010044U, 0xc0010064U, 0xc0010112U, 0xc0011022U, 0xc001102aU}) {
        msrs = vm::MsrPolicy(facts(vm::CpuVendor::Intel), vcpu);
        EXPECT_EQ(try_read(index), fault) << std::hex << index;
        EXPECT_EQ(msrs.write(index, 0), fault) << std::hex << index;
    }
}

TEST_F(MsrTest, MicrocodeUpdatesAreTakenAndChangeNothing) {
    EXPECT_EQ(msrs.write(vm::msr::IA32_BIOS_UPDT_TRIG, 0x12345670), done);
    EXPECT_EQ(try_read(vm::msr::IA32_BIOS_UPDT_TRIG), fault);
    EXPECT_EQ(read(vm::msr::IA32_BIOS_SIGN_ID), 0x2006'0000'0000U);
    msrs = vm::MsrPolicy(facts(vm::CpuVendor::Amd), vcpu);
    EXPECT_EQ(msrs.write(vm::msr::PATCH_LOADER, 0x12345670), done);
    EXPECT_EQ(try_read(vm::msr::PATCH_LOADER), fault);
    EXPECT_EQ(read(vm::msr::IA32_BIOS_SIGN_ID), 0x2006U);
}

// What kvm-unit-tests writes, and each bit that a table of [intel/vol4] lets software write.
TEST_F(MsrTest, MiscEnableKeepsWhatACpuKeeps) {
    constexpr u64 read_only = 0x1800;
    for (u64 value : {u64{0x4'00c5'0809}, u64{0xe4'00dd'0609}, u64{0}}) {
        EXPECT_EQ(msrs.write(vm::msr::IA32_MISC_ENABLE, value | read_only), done) << std::hex << value;
        EXPECT_EQ(read(vm::msr::IA32_MISC_ENABLE), value | read_only);
    }
    EXPECT_EQ(msrs.write(vm::msr::IA32_MISC_ENABLE, 0), fault) << "BTS and PEBS cannot be had";
    for (unsigned reserved : {1U, 2U, 5U, 21U, 24U, 33U, 35U, 63U})
        EXPECT_EQ(msrs.write(vm::msr::IA32_MISC_ENABLE, read_only | u64{1} << reserved), fault) << reserved;
}

TEST_F(MsrTest, FeaturesGateTheirMsrs) {
    vm::MsrFacts bare = facts(vm::CpuVendor::Intel);
    bare.tsc_aux = bare.tsc_deadline = bare.xsaves = false;
    msrs = vm::MsrPolicy(bare, vcpu);
    for (u32 index : {vm::msr::IA32_TSC_AUX, vm::msr::IA32_TSC_DEADLINE, vm::msr::IA32_XSS}) {
        EXPECT_EQ(try_read(index), fault);
        EXPECT_EQ(msrs.write(index, 0), fault);
    }
}

TEST_F(MsrTest, TscAndTscAdjustMoveTogether) {
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_ADJUST, 500), done);
    EXPECT_EQ(read(vm::msr::IA32_TSC), 1500U);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC, 100), done);
    EXPECT_EQ(read(vm::msr::IA32_TSC), 100U);
    EXPECT_EQ(read(vm::msr::IA32_TSC_ADJUST), u64{500} - 1400);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_ADJUST, 0), done);
    EXPECT_EQ(read(vm::msr::IA32_TSC), 1000U);
}

TEST_F(MsrTest, KvmClockIsWrittenWhenItIsTurnedOnAndWhenTheTscMoves) {
    using Writes = std::vector<std::pair<u64, u64>>;
    EXPECT_EQ(msrs.write(vm::msr::KVM_SYSTEM_TIME_NEW, 0x2000), done);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_ADJUST, 5), done);
    EXPECT_EQ(vcpu.published, Writes{}) << "it is off";
    EXPECT_EQ(msrs.write(vm::msr::KVM_SYSTEM_TIME_NEW, 0x3005), done);
    EXPECT_EQ(read(vm::msr::KVM_SYSTEM_TIME_NEW), 0x3005U);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_ADJUST, 7), done);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC, read(vm::msr::IA32_TSC) + 3), done);
    EXPECT_EQ(vcpu.published, (Writes{{0x3004, 5}, {0x3004, 7}, {0x3004, 10}}));
    EXPECT_EQ(msrs.write(vm::msr::KVM_SYSTEM_TIME_NEW, 0), done);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_ADJUST, 0), done);
    EXPECT_EQ(vcpu.published.size(), 3U);
    EXPECT_EQ(msrs.write(vm::msr::KVM_SYSTEM_TIME_NEW, 3), fault);
    EXPECT_EQ(msrs.write(vm::msr::KVM_WALL_CLOCK_NEW, 0x4002), fault);
    EXPECT_EQ(msrs.write(vm::msr::KVM_WALL_CLOCK_NEW, 0x4004), done);
    EXPECT_EQ(vcpu.wall_clocks, std::vector<u64>{0x4004});
    for (u32 index : {0x4b564cffU, 0x4b564d02U, 0x11U, 0x12U}) // no asynchronous page faults, steal time, old clock
        EXPECT_EQ(try_read(index), fault) << std::hex << index;
}

TEST_F(MsrTest, HooksAreReached) {
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_DEADLINE, 77), done);
    EXPECT_EQ(read(vm::msr::IA32_TSC_DEADLINE), 77U);
    EXPECT_EQ(read(vm::msr::IA32_APIC_BASE), 0xfee00900U);
    EXPECT_EQ(read(0x802), 0x802U);
    EXPECT_EQ(try_read(0x80b), fault);
    EXPECT_EQ(msrs.write(0x80b, 0), done);
    EXPECT_EQ(msrs.write(0x8ff, 0), fault);
}

TEST_F(MsrTest, EferRules) {
    EXPECT_EQ(msrs.write(vm::msr::IA32_EFER, 0x901), done);
    EXPECT_EQ(vcpu.hardware[HardwareMsr::Efer], 0x901U);
    vcpu.cr0_value = vm::cr0::PG | vm::cr0::PE;
    vcpu.hardware[HardwareMsr::Efer] = 0xd01;
    EXPECT_EQ(msrs.write(vm::msr::IA32_EFER, 0xc01), fault) << "LME may not change while paging";
    EXPECT_EQ(msrs.write(vm::msr::IA32_EFER, 0x101), done);
    EXPECT_EQ(vcpu.hardware[HardwareMsr::Efer], 0x501U) << "LMA stays";
    for (unsigned reserved : {1U, 9U, 12U, 13U, 14U, 15U, 63U})
        EXPECT_EQ(msrs.write(vm::msr::IA32_EFER, 0x501 | u64{1} << reserved), fault) << reserved;
}

TEST_F(MsrTest, BasesMustBeCanonical) {
    for (u32 index : {vm::msr::IA32_LSTAR, vm::msr::IA32_FS_BASE, vm::msr::IA32_GS_BASE, vm::msr::IA32_KERNEL_GS_BASE,
                      vm::msr::IA32_CSTAR, vm::msr::IA32_SYSENTER_EIP, vm::msr::IA32_SYSENTER_ESP}) {
        EXPECT_EQ(msrs.write(index, 0x0000'8000'0000'0000), fault);
        EXPECT_EQ(msrs.write(index, 0xffff'7fff'ffff'ffff), fault);
        EXPECT_EQ(msrs.write(index, 0xffff'8000'0000'0000), done);
        EXPECT_EQ(read(index), 0xffff'8000'0000'0000);
        EXPECT_EQ(msrs.write(index, 0x0000'7fff'ffff'ffff), done);
    }
}

TEST_F(MsrTest, ReservedBitsFault) {
    EXPECT_EQ(msrs.write(vm::msr::IA32_FMASK, u64{1} << 32), fault);
    EXPECT_EQ(msrs.write(vm::msr::IA32_TSC_AUX, u64{1} << 32), fault);
    EXPECT_EQ(msrs.write(vm::msr::IA32_XSS, 0x100), fault);
    EXPECT_EQ(msrs.write(vm::msr::IA32_XSS, 0), done);
    EXPECT_EQ(msrs.write(vm::msr::IA32_DEBUGCTL, 3), done);
    EXPECT_EQ(read(vm::msr::IA32_DEBUGCTL), 0U) << "neither branch records nor branch steps";
    EXPECT_EQ(msrs.write(vm::msr::IA32_DEBUGCTL, 4), fault);
    EXPECT_EQ(msrs.write(vm::msr::IA32_DEBUGCTL, 0), done);
    EXPECT_EQ(read(vm::msr::IA32_MISC_ENABLE), 0x1801U);
    EXPECT_EQ(msrs.write(vm::msr::IA32_MISC_ENABLE, 0x1800), done);
    EXPECT_EQ(msrs.write(vm::msr::IA32_MTRRCAP, 0x508), fault);
    EXPECT_EQ(msrs.write(vm::msr::IA32_FEATURE_CONTROL, 5), fault);
    EXPECT_EQ(read(vm::msr::IA32_FEATURE_CONTROL), 1U);
    EXPECT_EQ(read(vm::msr::IA32_BIOS_SIGN_ID), 0x2006'0000'0000U);
    EXPECT_EQ(msrs.write(vm::msr::IA32_BIOS_SIGN_ID, 0), done);
    EXPECT_EQ(msrs.write(vm::msr::IA32_SYSENTER_CS, 0xf'0000'0010), done);
    EXPECT_EQ(read(vm::msr::IA32_SYSENTER_CS), 0x10U);
}

TEST_F(MsrTest, MtrrsAreStoredWhenValid) {
    EXPECT_EQ(read(vm::msr::IA32_MTRRCAP), 0x508U);
    EXPECT_EQ(msrs.write(vm::msr::IA32_MTRR_DEF_TYPE, 0xc06), done);
    EXPECT_EQ(msrs.write(vm::msr::IA32_MTRR_DEF_TYPE, 0xc02), fault);
    EXPECT_EQ(msrs.write(vm::msr::IA32_MTRR_DEF_TYPE, 0x1c06), fault);
    EXPECT_EQ(read(vm::msr::IA32_MTRR_DEF_TYPE), 0xc06U);
    for (u32 i = 0; i < 8; ++i) {
        EXPECT_EQ(msrs.write(0x200 + 2 * i, 0xc000'0001 + (u64{i} << 20)), done);
        EXPECT_EQ(msrs.write(0x201 + 2 * i, 0x3fff'c000'0800), done);
        EXPECT_EQ(read(0x200 + 2 * i), 0xc000'0001 + (u64{i} << 20));
    }
    EXPECT_EQ(msrs.write(0x200, 0x103), fault);
    EXPECT_EQ(msrs.write(0x200, 0x106), fault);
    EXPECT_EQ(msrs.write(0x201, 0x400), fault);
    EXPECT_EQ(msrs.write(0x201, u64{1} << 46), fault);
    EXPECT_EQ(msrs.write(0x26f, 0x0606'0606'0505'0401), done);
    EXPECT_EQ(msrs.write(0x26f, 0x0706'0606'0505'0401), fault);
    EXPECT_EQ(read(0x26f), 0x0606'0606'0505'0401U);
    EXPECT_EQ(read(0x26e), 0U);
}

TEST_F(MsrTest, FirmwareMtrrsSurviveAsWritten) {
    msrs.set_firmware_mtrrs(0xc000'0000);
    EXPECT_EQ(read(vm::msr::IA32_MTRR_DEF_TYPE), 0xc06U);
    EXPECT_EQ(read(0x200), 0xc000'0000U);
    EXPECT_EQ(read(0x201), 0x3fff'c000'0800U);
    EXPECT_EQ(read(0x250), 0x0606'0606'0606'0606U);
    EXPECT_EQ(read(0x259), 0U);
    EXPECT_EQ(read(0x26f), 0x0606'0606'0606'0606U);
    for (u32 index : {0x200U, 0x201U, 0x250U, 0x2ffU})
        EXPECT_EQ(msrs.write(index, read(index)), done);
    msrs.reset();
    EXPECT_EQ(read(vm::msr::IA32_MTRR_DEF_TYPE), 0U);
}

TEST(ControlRegisters, Pat) {
    static_assert(vm::is_valid_pat(vm::pat_reset));
    for (u64 type = 0; type < 256; ++type) {
        bool const valid = type == 0 || type == 1 || (type >= 4 && type <= 7);
        for (unsigned byte = 0; byte < 8; ++byte)
            EXPECT_EQ(vm::is_valid_pat(type << (8 * byte)), valid) << type;
    }
}

TEST(ControlRegisters, Cr0) {
    using namespace vm::cr0;
    u64 const lme = vm::efer::LME, lma = vm::efer::LME | vm::efer::LMA;
    EXPECT_FALSE(vm::is_valid_cr0_write(0, PG, 0, 0));
    EXPECT_FALSE(vm::is_valid_cr0_write(0, NW, 0, 0));
    EXPECT_FALSE(vm::is_valid_cr0_write(0, u64{1} << 32, 0, 0));
    EXPECT_TRUE(vm::is_valid_cr0_write(0, PE | PG, 0, 0));
    EXPECT_FALSE(vm::is_valid_cr0_write(PE, PE | PG, 0, lme)) << "long mode needs PAE";
    EXPECT_TRUE(vm::is_valid_cr0_write(PE, PE | PG, vm::cr4::PAE, lme));
    EXPECT_FALSE(vm::is_valid_cr0_write(PE, PE | PG, vm::cr4::PAE, lme, {.has_long_code = true}));
    EXPECT_FALSE(vm::is_valid_cr0_write(PE | PG, PE, vm::cr4::PAE, lma, {.has_long_code = true}));
    EXPECT_TRUE(vm::is_valid_cr0_write(PE | PG, PE, vm::cr4::PAE, lma));
    EXPECT_FALSE(vm::is_valid_cr0_write(PE | PG, PE, vm::cr4::PAE | vm::cr4::PCIDE, lma));
    EXPECT_EQ(vm::effective_cr0(0xffff'ffff), 0xe005'003fU);
}

TEST(ControlRegisters, Cr3Cr4Xcr0) {
    vm::ControlRegisterRules const rules{.cr4 = vm::cr4::PAE | vm::cr4::PCIDE | vm::cr4::PGE};
    u64 const lma = vm::efer::LMA;
    EXPECT_FALSE(vm::is_valid_cr4_write(0, vm::cr4::SMEP, 0, 0, rules));
    EXPECT_FALSE(vm::is_valid_cr4_write(vm::cr4::PAE, 0, 0, lma, rules));
    EXPECT_FALSE(vm::is_valid_cr4_write(0, vm::cr4::PCIDE | vm::cr4::PAE, 0, 0, rules));
    EXPECT_FALSE(vm::is_valid_cr4_write(vm::cr4::PAE, vm::cr4::PCIDE | vm::cr4::PAE, 0x1001, lma, rules));
    EXPECT_TRUE(vm::is_valid_cr4_write(vm::cr4::PAE, vm::cr4::PCIDE | vm::cr4::PAE, 0x1000, lma, rules));
    EXPECT_FALSE(vm::is_valid_cr3_write(u64{1} << 46, 0, lma, 46));
    EXPECT_FALSE(vm::is_valid_cr3_write(u64{1} << 63, 0, lma, 46));
    EXPECT_TRUE(vm::is_valid_cr3_write(u64{1} << 63 | 5, vm::cr4::PCIDE, lma, 46));
    EXPECT_TRUE(vm::is_valid_xcr0(1, 7));
    for (u64 bad : {u64{0}, u64{2}, u64{5}, u64{0x27}, u64{0xe3}, u64{0x207}})
        EXPECT_FALSE(vm::is_valid_xcr0(bad, 0xe7)) << bad;
    EXPECT_TRUE(vm::is_valid_xcr0(0xe7, 0xe7));
    EXPECT_FALSE(vm::is_canonical(0x8000'0000'0000));
    EXPECT_TRUE(vm::is_canonical(~u64{0}));
}

} // namespace
