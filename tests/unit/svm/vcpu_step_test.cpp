// SPDX-License-Identifier: MIT
// NMIs, and the single steps by which they wait for the end of an IRET or a shadow.
#include "svm/vcpu_fixture.hpp"

namespace amd_machine {
namespace {

TEST_F(VcpuTest, NmisWaitForTheIretOfTheLast) {
    vcpu().post(vm::request::nmi);
    auto next = after({exit_code::INTR});
    // The request was taken on the first entry.
    EXPECT_EQ(entries.front().control.event_injection.raw, event(2, 2));
    EXPECT_TRUE(next.control.intercepts.has(exit_code::IRET));
    vcpu().post(vm::request::nmi);
    next = after({exit_code::INTR});
    EXPECT_EQ(injected(next), 0U) << "blocked";
    next = after({exit_code::IRET});
    EXPECT_EQ(injected(next), 0U) << "the IRET is still to come";
    EXPECT_NE(next.save.rflags & 0x100, 0U) << "stepped over";
    next = after({exit_code::EXCEPTION_DB, 0, 0, [](svm::Vmcb& b) {
                      b.save.rip = 0x2000;
                      b.save.rflags = 0x202; // what IRET has popped
                      b.save.dr6 |= 1U << 14;
                  }});
    EXPECT_EQ(injected(next), event(2, 2));
    EXPECT_EQ(next.save.dr6, 0xffff'0ff0U) << "the guest never hears of the step";
}

// An NMI that waits for the end of a shadow: the instruction in it is stepped over.
class StepTest : public VcpuTest {
protected:
    static constexpr u64 trap_flag = 0x100;
    svm::Vmcb step() {
        vmcb().control.interrupt_state.set<svm::InterruptState::Shadow>(true);
        vcpu().post(vm::request::nmi);
        auto const entry = after({exit_code::INTR});
        EXPECT_NE(entry.save.rflags & trap_flag, 0U);
        EXPECT_EQ(injected(entry), 0U);
        return entry;
    }
};

TEST_F(StepTest, TheNmiComesAfterTheInstructionInTheShadow) {
    step();
    auto const next = after({exit_code::EXCEPTION_DB, 0, 0, [](svm::Vmcb& b) {
                                 b.save.rip += 2;
                                 b.save.dr6 |= 1U << 14;
                                 b.control.interrupt_state = {};
                             }});
    EXPECT_EQ(injected(next), event(2, 2));
    EXPECT_EQ(next.save.rflags & trap_flag, 0U);
    EXPECT_EQ(next.save.dr6, 0xffff'0ff0U);
    EXPECT_FALSE(next.control.intercepts.has(exit_code::PUSHF));
    EXPECT_EQ(next.control.intercepts.exceptions & 1U << 14, 0U);
}

TEST_F(StepTest, AFaultsHandlerDoesNotSeeTheStep) {
    auto const entry = step();
    EXPECT_NE(entry.control.intercepts.exceptions & 1U << 14, 0U);
    auto next = after({exit_code::EXCEPTION_DE + 14, 7, 0x1234});
    EXPECT_EQ(injected(next), event(14, 3) | 1U << 11 | u64{7} << 32);
    EXPECT_EQ(next.save.cr2, 0x1234U);
    EXPECT_EQ(next.save.rflags, 0x1'0202U);
    EXPECT_EQ(next.control.intercepts.exceptions & 1U << 14, 0U);
    // The delivery of the fault has ended the shadow.
    next = after({exit_code::INTR, 0, 0, [](svm::Vmcb& b) { b.control.interrupt_state = {}; }});
    EXPECT_EQ(injected(next), event(2, 2));
}

TEST_F(StepTest, AFaultThatWeRaiseDoesNotShowTheStep) {
    step();
    auto const next = after({exit_code::RDPMC});
    EXPECT_EQ(injected(next), gp);
    EXPECT_EQ(next.save.rflags & trap_flag, 0U);
}

TEST_F(StepTest, AFaultInAnIretDoesNotShowTheStep) {
    vcpu().post(vm::request::nmi);
    run({});
    vcpu().post(vm::request::nmi);
    EXPECT_NE(after({exit_code::IRET}).save.rflags & trap_flag, 0U);
    auto const next = after({exit_code::EXCEPTION_DE + 13, 0x18});
    EXPECT_EQ(injected(next), gp | u64{0x18} << 32);
    EXPECT_EQ(next.save.rflags & trap_flag, 0U);
}

TEST_F(StepTest, WhatWouldShowTheFlagComesAfterTheNmi) {
    for (u32 const code :
         {exit_code::PUSHF, exit_code::POPF, exit_code::INTN, exit_code::IRET, exit_code::EXCEPTION_BP}) {
        auto const entry = step();
        EXPECT_TRUE(code == exit_code::EXCEPTION_BP || entry.control.intercepts.has(code)) << exit_code::name(code);
        auto const next = after({code});
        EXPECT_EQ(injected(next), event(2, 2)) << exit_code::name(code);
        EXPECT_EQ(next.save.rip, rip);
        EXPECT_EQ(next.save.rflags & trap_flag, 0U);
        EXPECT_FALSE(next.control.interrupt_state.get<svm::InterruptState::Shadow>());
        vcpu().drop_events();
    }
    for (u8 const opcode : {u8{0x05}, u8{0x34}}) { // SYSCALL, SYSENTER
        write_code(rip, {0x0f, opcode});
        vmcb().control.interrupt_state.set<svm::InterruptState::Shadow>(true);
        vcpu().post(vm::request::nmi);
        run({});
        EXPECT_EQ(injected(entries.back()), event(2, 2));
        EXPECT_EQ(entries.back().save.rflags & trap_flag, 0U);
        vcpu().drop_events();
    }
}

TEST_F(StepTest, AStepWithoutATrapDoesNotHoldInterruptsBack) {
    step();
    // Another exit comes first, and the shadow is over: whatever it was, the step is.
    vcpu().apic().accept(0x45, vm::TriggerMode::Edge);
    auto const next = after({exit_code::INTR, 0, 0, [](svm::Vmcb& b) {
                                 b.save.rip = 0x2000;
                                 b.control.interrupt_state = {};
                             }});
    EXPECT_EQ(injected(next), event(2, 2));
    EXPECT_EQ(next.save.rflags & trap_flag, 0U);
    after({exit_code::INTR, 0, 0, open});
    EXPECT_EQ(vcpu().apic().highest_isr(), 0x45) << "delivered";
}

TEST_F(StepTest, AGuestThatStepsItselfKeepsItsTrap) {
    vcpu().set_rflags(0x302);
    step();
    auto const next = after({exit_code::EXCEPTION_DB, 0, 0, [](svm::Vmcb& b) {
                                 b.save.rip += 2;
                                 b.save.dr6 |= 1U << 14;
                                 b.control.interrupt_state = {};
                             }});
    EXPECT_EQ(injected(next), event(1, 3));
    EXPECT_EQ(next.save.rflags & trap_flag, trap_flag);
    EXPECT_NE(next.save.dr6 & 1U << 14, 0U);
}

} // namespace
} // namespace amd_machine
