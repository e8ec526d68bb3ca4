// SPDX-License-Identifier: MIT
// The fake CPU is what many tests trust: it must fail what the manual fails.
#include <lib/x86/instructions.hpp>

#include <gtest/gtest.h>

namespace {

namespace x86 = lib::x86;
using lib::u16;
using lib::u32;
using lib::u64;

constexpr u64 vmxon_region = 0x1000;
constexpr u64 vmcs = 0x2000;
constexpr u64 other_vmcs = 0x3000;
constexpr u64 GUEST_RIP = 0x681e;
constexpr u64 GUEST_CS_SELECTOR = 0x802;
constexpr u64 EPT_POINTER = 0x201a;
constexpr u64 EXIT_REASON = 0x4402;

class FakeVmx : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    void SetUp() override {
        cpu.populate_msr(0x3a, 5);
        cpu.cr4 |= 1 << 13;
        ASSERT_TRUE(x86::vmxon(vmxon_region));
        ASSERT_TRUE(x86::vmclear(vmcs));
    }
};

TEST(FakeCpu, FaultsOnUnknownAndReadOnlyMsrs) {
    fakes::Cpu cpu;
    cpu.populate_read_only_msr(0x480, 7);
    u64 value = 0;
    EXPECT_EQ(x86::rdmsr(0x480), 7U);
    EXPECT_FALSE(x86::wrmsr_safe(0x480, 1));
    EXPECT_FALSE(x86::rdmsr_safe(0x123, value));
    EXPECT_THROW(x86::rdmsr(0x123), fakes::Fault);
    EXPECT_TRUE(cpu.msr_writes.empty());
}

TEST(FakeCpu, HasNoDevicesButThoseRegistered) {
    fakes::Cpu cpu;
    cpu.add_plain_ports(0x60, 4);
    cpu.add_mmio(0x1000, 0x10, {.load = [](u64 offset, unsigned) { return offset; }, .store = {}, .widths = 4});
    x86::out16(0x60, 0x1234);
    EXPECT_EQ(x86::in8(0x61), 0x12);
    EXPECT_THROW(x86::in32(0x62), fakes::Unexpected);
    EXPECT_EQ(x86::load32(0x1008), 8U);
    EXPECT_THROW(x86::load8(0x1008), fakes::Unexpected);
    EXPECT_THROW(x86::load32(0x100a), fakes::Unexpected);
    EXPECT_THROW(x86::store32(0x1008, 0), fakes::Unexpected);
    EXPECT_THROW(x86::load32(0x2000), fakes::Unexpected);
}

TEST(FakeCpu, KnowsItsInterruptFlag) {
    fakes::Cpu cpu;
    x86::sti();
    EXPECT_EQ(x86::read_flags() & 0x200, 0x200U);
    x86::cli();
    EXPECT_EQ(x86::read_flags() & 0x200, 0U);
    EXPECT_THROW(x86::hlt(), fakes::Unexpected);
}

TEST(FakeCpu, NeedsVmxEnabled) {
    fakes::Cpu cpu;
    EXPECT_THROW(x86::vmclear(vmcs), fakes::Fault);
    EXPECT_THROW(x86::vmxon(vmxon_region), fakes::Fault); // CR4.VMXE
    cpu.cr4 |= 1 << 13;
    EXPECT_THROW(x86::vmxon(vmxon_region), fakes::Fault); // IA32_FEATURE_CONTROL
    cpu.populate_msr(0x3a, 5);
    EXPECT_FALSE(x86::vmxon(vmxon_region + 8));
    EXPECT_TRUE(x86::vmxon(vmxon_region));
}

TEST_F(FakeVmx, KeepsFieldsPerRegion) {
    ASSERT_TRUE(x86::vmptrld(vmcs));
    ASSERT_TRUE(x86::vmwrite(GUEST_RIP, 0x1111));
    ASSERT_TRUE(x86::vmptrld(other_vmcs));
    ASSERT_TRUE(x86::vmwrite(GUEST_RIP, 0x2222));
    EXPECT_EQ(cpu.vmx.peek(vmcs, GUEST_RIP), 0x1111U);
    EXPECT_EQ(cpu.vmx.peek(GUEST_RIP), 0x2222U);
}

TEST_F(FakeVmx, FailsWithoutACurrentVmcs) {
    u64 value = 77;
    EXPECT_FALSE(x86::vmread(GUEST_RIP, value));
    EXPECT_FALSE(x86::vmwrite(GUEST_RIP, 1));
    EXPECT_EQ(value, 77U);
    ASSERT_TRUE(x86::vmptrld(vmcs));
    ASSERT_TRUE(x86::vmclear(vmcs)); // makes it no longer current
    EXPECT_FALSE(x86::vmread(GUEST_RIP, value));
}

TEST_F(FakeVmx, FailsWritesOfReadOnlyAndUnknownFields) {
    ASSERT_TRUE(x86::vmptrld(vmcs));
    EXPECT_FALSE(x86::vmwrite(EXIT_REASON, 1));
    EXPECT_EQ(cpu.vmx.peek(fakes::VmxModel::VM_INSTRUCTION_ERROR), 13U);
    cpu.vmx.unsupported_fields.insert(EPT_POINTER);
    EXPECT_FALSE(x86::vmwrite(EPT_POINTER, 1));
    EXPECT_EQ(cpu.vmx.peek(fakes::VmxModel::VM_INSTRUCTION_ERROR), 12U);
    EXPECT_FALSE(x86::vmwrite(0x1'0000'0000, 1));
}

TEST_F(FakeVmx, CutsFieldsToTheirWidth) {
    ASSERT_TRUE(x86::vmptrld(vmcs));
    ASSERT_TRUE(x86::vmwrite(GUEST_CS_SELECTOR, 0x12'3456));
    ASSERT_TRUE(x86::vmwrite(EPT_POINTER, 0x1111'1111'2222'2222));
    u64 value = 0;
    ASSERT_TRUE(x86::vmread(GUEST_CS_SELECTOR, value));
    EXPECT_EQ(value, 0x3456U);
    ASSERT_TRUE(x86::vmread(EPT_POINTER + 1, value)); // high access
    EXPECT_EQ(value, 0x1111'1111U);
}

TEST_F(FakeVmx, AnUnwrittenFieldIsNotReadAndHoldsAPattern) {
    ASSERT_TRUE(x86::vmptrld(vmcs));
    u64 value = 0;
    EXPECT_THROW(x86::vmread(GUEST_RIP, value), std::logic_error);
    EXPECT_NE(cpu.vmx.peek(GUEST_RIP), 0U);
    ASSERT_TRUE(x86::vmwrite(GUEST_RIP, 0));
    EXPECT_TRUE(x86::vmread(GUEST_RIP, value));
}

TEST_F(FakeVmx, EntryUsesTheFieldsThatItsControlsName) {
    ASSERT_TRUE(x86::vmptrld(vmcs));
    constexpr u64 cpu_controls = 0x4002, tsc_offset = 0x2010, event = 0x4016, error_code = 0x4018;
    std::set<u64> written;
    for (auto missing = cpu.vmx.unwritten_field(); missing; missing = cpu.vmx.unwritten_field()) {
        ASSERT_TRUE(written.insert(*missing).second);
        ASSERT_TRUE(x86::vmwrite(*missing, 0));
    }
    EXPECT_TRUE(written.contains(0x4826) && written.contains(0x6c16)); // activity state, HOST_RIP
    EXPECT_FALSE(written.contains(tsc_offset));
    ASSERT_TRUE(x86::vmwrite(cpu_controls, 1U << 3));
    EXPECT_EQ(cpu.vmx.unwritten_field(), tsc_offset);
    ASSERT_TRUE(x86::vmwrite(tsc_offset, 0));
    ASSERT_TRUE(x86::vmwrite(event, 1U << 31 | 3U << 8 | 1U << 11 | 13)); // #GP
    EXPECT_EQ(cpu.vmx.unwritten_field(), error_code);
}

TEST_F(FakeVmx, RefusesTheVmxonRegionAsVmcs) {
    EXPECT_FALSE(x86::vmclear(vmxon_region));
    EXPECT_FALSE(x86::vmptrld(vmxon_region));
    EXPECT_FALSE(x86::vmptrld(vmcs + 4));
}

TEST_F(FakeVmx, RecordsInvalidations) {
    ASSERT_TRUE(x86::vmptrld(vmcs));
    EXPECT_TRUE(x86::invept(1, {.eptp = 0x5000 | 0x1e, .reserved = 0}));
    EXPECT_FALSE(x86::invept(1, {.eptp = 0x5000, .reserved = 0})); // no page-walk length
    EXPECT_TRUE(x86::invvpid(1, {.vpid = 3, .reserved = {}, .linear_address = 0}));
    EXPECT_FALSE(x86::invvpid(1, {.vpid = 0, .reserved = {}, .linear_address = 0}));
    ASSERT_EQ(cpu.vmx.invepts.size(), 1U);
    EXPECT_EQ(cpu.vmx.invepts[0].eptp, 0x501eU);
    EXPECT_EQ(cpu.vmx.invvpids[0].vpid, 3);
}

} // namespace
