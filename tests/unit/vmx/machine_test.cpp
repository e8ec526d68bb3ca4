// SPDX-License-Identifier: MIT
// That the tests' machine refuses the VM entries that it should, and what becomes of CPUs and memory.
#include "vmx/machine.hpp"

namespace intel_machine {

namespace field = vmx::field;
namespace x86 = lib::x86;

namespace {

class MachineTest : public VmxMachine {};

TEST_F(MachineTest, RunsAndLeavesWhenAsked) {
    create();
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(entries.size(), 1U);
    EXPECT_FALSE(entries[0].is_launched);
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_TRUE(entries[1].is_launched);
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

TEST_F(MachineTest, ACpuThatFirmwareLeftWithoutVtxIsLeftOut) {
    auto made = vmx::Backend::create({});
    ASSERT_TRUE(made);
    auto const refusal = [&] {
        auto const enabled = (*made)->enable_on_this_cpu();
        return enabled ? std::string_view{} : enabled.error().what;
    };
    cpu.populate_msr(x86::IA32_FEATURE_CONTROL, 1); // this one is locked, the first was not
    EXPECT_NE(refusal().find("locked off by firmware"), std::string_view::npos);
    EXPECT_FALSE(cpu.vmx.vmxon_region);
    cpu.populate_msr(x86::IA32_FEATURE_CONTROL, 5);
    auto const features = cpu.cpuid(1, 0);
    cpu.set_cpuid(1, 0, {features.eax, features.ebx, features.ecx & ~(1U << 5), features.edx});
    EXPECT_NE(refusal().find("no VT-x"), std::string_view::npos);
    cpu.set_cpuid(1, 0, features);
    EXPECT_EQ(refusal(), "");
    (*made)->disable_on_this_cpu();
}

TEST_F(MachineTest, ACpuWhoseVtxDiffersIsLeftOut) {
    auto made = vmx::Backend::create({});
    ASSERT_TRUE(made);
    VmxMsrs other = skylake();
    other.cpu2 &= ~(u64{1} << (32 + 9)); // no virtual-interrupt delivery
    populate(cpu, other);
    auto const enabled = (*made)->enable_on_this_cpu();
    ASSERT_FALSE(enabled);
    EXPECT_NE(enabled.error().what.find("differs"), std::string_view::npos);
    EXPECT_FALSE(cpu.vmx.vmxon_region);
}

TEST_F(MachineTest, StateIsPrintedWithoutFieldsThatTheCpuLacks) {
    vmx::Disabled disabled;
    ASSERT_TRUE(disabled.parse("vpid"));
    cpu.vmx.unsupported_fields.insert(vmx::field::VPID.encoding);
    create(disabled);
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    std::array<char, 4096> text{};
    lib::BufferSink sink(text);
    vcpu().print_state(sink);
    EXPECT_NE(sink.view().find("vpid 0"), std::string_view::npos);
}

class AffectedByMultihit : public VmxMachine {
protected:
    AffectedByMultihit() {
        auto const leaf = cpu.cpuid(7, 0);
        cpu.set_cpuid(7, 0, {leaf.eax, leaf.ebx, leaf.ecx, leaf.edx & ~(1U << 29)});
    }
    Exit fetch(u64 at) {
        return {vmx::reason::ept_violation, 0x184, 0, [this, at] { poke(field::GUEST_PHYSICAL_ADDRESS, at); }};
    }
    unsigned size_in_bits(u64 at) { // of the page that translates `at`
        lib::HostPhys table{field(field::EPT_POINTER) & ~u64{0xfff}};
        for (unsigned shift = 39;; shift -= 9) {
            u64 const entry = kernel::phys_to_virt<u64>(table)[at >> shift & 511];
            if (shift == 12 || (entry >> 7 & 1) != 0) return shift;
            table = lib::HostPhys{entry & 0x000f'ffff'ffff'f000};
        }
    }
};

TEST_F(AffectedByMultihit, CodeIsExecutedFromSmallPagesOnly) {
    create();
    settle();
    auto const available = [] { return kernel::memory_use().free - kernel::memory_use().promised; };
    u64 const before = available();
    EXPECT_EQ(size_in_bits(0x10'0000), 21U);
    run({fetch(0x10'0000), fetch(0x10'0000)}); // the second comes from another vCPU that was late
    EXPECT_EQ(size_in_bits(0x10'0000), 12U);
    EXPECT_EQ(size_in_bits(0x20'0000), 21U);
    EXPECT_EQ(injected(entries.size() - 1), 0U);
    EXPECT_EQ(available(), before) << "the tables' frames are promised when the VM is created";
    entries.clear();
    run({fetch(0xd000'0000)});
    EXPECT_EQ(injected(1), hardware_exception(6, false)) << "where there is no memory";
}

TEST_F(MachineTest, CpusThatAreNotAffectedKeepLargePages) {
    create();
    settle();
    run({{vmx::reason::ept_violation, 0x184, 0, [this] { poke(field::GUEST_PHYSICAL_ADDRESS, 0xd000'0000); }}});
    EXPECT_EQ(injected(1), hardware_exception(6, false));
}

TEST_F(MachineTest, GuestsGetProtectionKeysWhereTheCpuHasThem) {
    create();
    constexpr u64 pkru = 1U << 9;
    constexpr u32 pku = 1U << 3;
    EXPECT_NE(vm->cpuid().rules().xcr0 & pkru, 0U);
    EXPECT_NE(vm->cpuid().lookup(7, 0, {}).ecx & pku, 0U);
}

TEST_F(MachineTest, ReturnsAllMemory) {
    u64 const before = kernel::memory_use().free;
    {
        auto made = vmx::Backend::create({});
        ASSERT_TRUE(made);
        ASSERT_TRUE((*made)->enable_on_this_cpu());
        u64 const with_region = kernel::memory_use().free; // the VMXON region stays with the CPU
        {
            auto machine = vm::Vm::create({.name = "test", .memory = 4 * lib::MiB, .vcpu_count = 3}, **made, platform);
            ASSERT_TRUE(machine);
            for (u32 i = 0; i < 3; i++)
                (*machine)->vcpu(i).unload();
        }
        EXPECT_EQ(kernel::memory_use().free, with_region);
        EXPECT_GE(before, with_region);
        (*made)->disable_on_this_cpu();
    }
}

TEST_F(MachineTest, AVmForWhichMemoryIsShortLeavesNothingBehind) {
    auto made = vmx::Backend::create({});
    ASSERT_TRUE(made);
    ASSERT_TRUE((*made)->enable_on_this_cpu());
    u64 const before = kernel::memory_use().free;
    for (unsigned left = 0; left < 16; left++) {
        // RAM fits, what comes behind it does not.
        auto const ram = kernel::allocate_frames(kernel::FrameAllocator::order_2m);
        ASSERT_TRUE(ram);
        {
            support::MemoryShortage const shortage(left);
            kernel::free_frames(*ram, kernel::FrameAllocator::order_2m);
            auto machine = vm::Vm::create({.name = "test", .memory = 2 * lib::MiB, .vcpu_count = 1}, **made, platform);
            if (machine)
                (*machine)->vcpu(0).unload();
            else
                EXPECT_EQ(machine.error(), lib::Errc::NoMemory);
        }
        EXPECT_EQ(kernel::memory_use().free, before) << left;
    }
    (*made)->disable_on_this_cpu();
}

} // namespace
} // namespace intel_machine
