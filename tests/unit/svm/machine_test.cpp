// SPDX-License-Identifier: MIT
// That the tests' machine refuses the VM entries that it should, and what becomes of CPUs and memory.
#include "svm/machine.hpp"

namespace amd_machine {
namespace x86 = lib::x86;

namespace {

class Machine : public SvmMachine {};

TEST_F(Machine, ACpuThatFirmwareLeftWithoutAmdVIsLeftOut) {
    auto made = svm::Backend::create({});
    ASSERT_TRUE(made);
    auto const refusal = [&] {
        auto const enabled = (*made)->enable_on_this_cpu();
        return enabled ? std::string_view{} : enabled.error().what;
    };
    cpu.populate_msr(0xc001'0114, 1U << 4 | 1U << 3);
    EXPECT_NE(refusal().find("locked off by firmware"), std::string_view::npos);
    EXPECT_EQ(cpu.peek_msr(x86::IA32_EFER) & x86::Efer::SVME::mask, 0U);
    cpu.populate_msr(0xc001'0114, 0);
    auto const svm_leaf = cpu.cpuid(0x8000'000a, 0);
    cpu.set_cpuid(0x8000'000a, {svm_leaf.eax, svm_leaf.ebx * 2, 0, svm_leaf.edx});
    EXPECT_NE(refusal().find("differs"), std::string_view::npos);
    cpu.set_cpuid(0x8000'000a, svm_leaf);
    cpu.populate_msr(0xc001'0114, 1U << 4);
    EXPECT_EQ(refusal(), "");
    EXPECT_EQ(cpu.peek_msr(0xc001'0114), 0U);
    (*made)->disable_on_this_cpu();
}

TEST_F(Machine, RunsAndLeavesWhenAsked) {
    create();
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(entries.size(), 1U);
    EXPECT_EQ(cpu.interrupt_windows, 1U) << "the interrupt that ended the run is taken";
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

TEST_F(Machine, ReturnsAllMemory) {
    auto made = svm::Backend::create({});
    ASSERT_TRUE(made);
    ASSERT_TRUE((*made)->enable_on_this_cpu());
    u64 const before = kernel::memory_use().free; // what a CPU needs stays with it
    {
        auto machine = vm::Vm::create({.name = "test", .memory = 4 * lib::MiB, .vcpu_count = 3}, **made, platform);
        ASSERT_TRUE(machine);
    }
    EXPECT_EQ(kernel::memory_use().free, before);
    (*made)->disable_on_this_cpu();
    EXPECT_EQ(cpu.peek_msr(x86::IA32_EFER) & vm::efer::SVME, 0U);
}

} // namespace
} // namespace amd_machine
