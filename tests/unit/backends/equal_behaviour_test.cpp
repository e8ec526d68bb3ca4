// SPDX-License-Identifier: MIT
// What a guest may rely on, whichever vendor's CPU it runs on: the same test for both.
#include "backends/guest.hpp"

namespace backends {
namespace {

using lib::x86::exception_ac;
using lib::x86::exception_db;
using vm::Gpr;

constexpr u64 interrupts_on = 0x202, interrupts_off = 2, trap_flag = 0x100, resume_flag = 1U << 16;

template <typename Machine> class EqualBehaviour : public Machine {
protected:
    void SetUp() override { this->start(); }
    // The guest's registers before and after.
    u64 rip() { return this->guest().rip(); }
    void flags(u64 value) { this->guest().set_rflags(value); }
    void send(u8 vector) { this->guest().post_interrupt(vector, vm::TriggerMode::Edge); }
};
using Machines = ::testing::Types<Intel, Amd>;
TYPED_TEST_SUITE(EqualBehaviour, Machines);

TYPED_TEST(EqualBehaviour, AnInstructionThatIsDoneForTheGuestIsBehindIt) {
    u64 const begin = this->rip();
    this->guest().gpr(Gpr::Rax) = 0;
    EXPECT_EQ(this->play({{Cause::Cpuid}}), RunResult::Work);
    EXPECT_EQ(this->rip(), begin + 2);
    EXPECT_NE(this->guest().gpr(Gpr::Rbx), 0U);
    this->play({{Cause::Hypercall}, {Cause::PortOut}});
    EXPECT_EQ(this->rip(), begin + 2 + 3 + 2);
}

TYPED_TEST(EqualBehaviour, AnMsrThatDoesNotExistIsAFaultAtTheInstruction) {
    u64 const begin = this->rip();
    for (auto const cause : {Cause::ReadMsr, Cause::WriteMsr}) {
        this->guest().gpr(Gpr::Rcx) = 0x1234'5678;
        this->play({{cause}});
        EXPECT_EQ(this->arrived(1), fault(13, 0));
        EXPECT_EQ(this->rip(), begin);
        EXPECT_NE(this->guest().rflags() & resume_flag, 0U) << "the instruction's breakpoint does not strike again";
    }
}

TYPED_TEST(EqualBehaviour, AHaltSleepsUntilAnInterrupt) {
    EXPECT_EQ(this->play({{Cause::Hlt}}), RunResult::Sleep);
    EXPECT_FALSE(this->guest().has_wake_event());
    EXPECT_EQ(this->play({}), RunResult::Sleep);
    EXPECT_EQ(this->entry_count(), 0U);
    this->send(0x41);
    EXPECT_TRUE(this->guest().has_wake_event());
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), interrupt(0x41));
}

TYPED_TEST(EqualBehaviour, AHaltWithInterruptsOffSleepsOverAnInterruptButNotOverAnNmi) {
    this->flags(interrupts_off);
    EXPECT_EQ(this->play({{Cause::Hlt}}), RunResult::Sleep);
    this->send(0x41);
    EXPECT_EQ(this->play({}), RunResult::Sleep);
    this->guest().post(vm::request::nmi);
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), non_maskable());
}

TYPED_TEST(EqualBehaviour, AHaltWithAnInterruptWaitingIsOverAtOnce) {
    u64 const begin = this->rip();
    EXPECT_EQ(this->play({{.cause = Cause::Hlt, .arrives = 0x41}}), RunResult::Work);
    EXPECT_EQ(this->rip(), begin + 1);
    EXPECT_EQ(this->arrived(1), interrupt(0x41));
}

TYPED_TEST(EqualBehaviour, APauseLetsOthersGoFirst) {
    u64 const begin = this->rip();
    EXPECT_EQ(this->play({{Cause::Pause}}), RunResult::Yield);
    EXPECT_EQ(this->rip(), begin + 2);
}

TYPED_TEST(EqualBehaviour, AnInterruptWaitsForTheFlagAndForTheEndOfAShadow) {
    this->flags(interrupts_off);
    this->send(0x51);
    this->play({});
    EXPECT_EQ(this->arrived(0), Event{});
    EXPECT_TRUE(this->has_interrupt_window());
    this->flags(interrupts_on);
    this->set_shadow();
    this->guest().post(vm::request::interrupt);
    this->play({});
    EXPECT_EQ(this->arrived(0), Event{});
    EXPECT_TRUE(this->has_interrupt_window());
}

TYPED_TEST(EqualBehaviour, TheMostUrgentInterruptComesFirst) {
    this->send(0x41);
    this->send(0x91);
    this->send(0x61);
    this->play({{Cause::Interrupt}});
    EXPECT_EQ(this->arrived(0), interrupt(0x91));
    EXPECT_EQ(this->arrived(1), Event{}) << "the others are less urgent than the one in service";
}

TYPED_TEST(EqualBehaviour, WhatAnExitCutsOffIsDeliveredAgain) {
    for (Event const& event : {interrupt(0x51), non_maskable(), fault(14, 3), exception(6)}) {
        this->play({{Cause::Window, event}});
        EXPECT_EQ(this->arrived(1), event);
    }
}

TYPED_TEST(EqualBehaviour, AnAlignmentCheckGoesBeforeTheInterruptThatItCutOff) {
    this->flags(interrupts_off); // as the handler of the interrupt begins
    this->play({{Cause::AlignmentCheck, interrupt(0x51)}});
    EXPECT_EQ(this->arrived(1), fault(exception_ac, 0));
    this->play({});
    EXPECT_EQ(this->arrived(0), Event{});
    this->flags(interrupts_on);
    this->guest().post(vm::request::interrupt);
    this->play({});
    EXPECT_EQ(this->arrived(0), interrupt(0x51));
}

TYPED_TEST(EqualBehaviour, TheMachinesInterruptsAreTakenInAChainOfCutOffEvents) {
    auto const before = this->cpu.interrupt_windows;
    this->play({{Cause::AlignmentCheck, interrupt(0x51)}, {Cause::AlignmentCheck, exception(6)}});
    EXPECT_GT(this->cpu.interrupt_windows, before);
}

TYPED_TEST(EqualBehaviour, ARequestToLeaveIsObeyedBeforeAnEntry) {
    this->guest().post(vm::request::leave);
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->entry_count(), 0U);
}

TYPED_TEST(EqualBehaviour, WhileItIsHeldTheGuestDoesNotRun) {
    this->machine().hold(true);
    this->send(0x41);
    EXPECT_EQ(this->play({}), RunResult::Sleep);
    EXPECT_FALSE(this->guest().has_wake_event());
    EXPECT_EQ(this->entry_count(), 0U);
    this->machine().hold(false);
    EXPECT_TRUE(this->guest().has_wake_event());
    EXPECT_EQ(this->play({}), RunResult::Work);
    EXPECT_EQ(this->arrived(0), interrupt(0x41));
}

TYPED_TEST(EqualBehaviour, AVmThatIsHeldCanEnd) {
    this->machine().hold(true);
    this->machine().stop(vm::EndReason::PowerOff, "");
    EXPECT_EQ(this->play({}), RunResult::Stopped);
}

TYPED_TEST(EqualBehaviour, ATripleFaultEndsTheVm) {
    EXPECT_EQ(this->play({{Cause::TripleFault}}), RunResult::Stopped);
    EXPECT_EQ(this->machine().end_reason(), vm::EndReason::Crash);
    EXPECT_NE(this->machine().end_text().find("triple fault"), std::string_view::npos);
}

TYPED_TEST(EqualBehaviour, AnExitThatNobodyHandlesEndsTheVmOnly) {
    EXPECT_EQ(this->play({{Cause::Unheard}}), RunResult::Stopped);
    EXPECT_EQ(this->machine().end_reason(), vm::EndReason::Crash);
}

TYPED_TEST(EqualBehaviour, ResetPutsTheRegistersWhereACpuHasThem) {
    this->guest().reset();
    EXPECT_EQ(this->guest().rip(), 0xfff0U);
    EXPECT_EQ(this->guest().rflags(), 2U);
    EXPECT_EQ(this->guest().cr0(), 0x6000'0010U);
    EXPECT_EQ(this->guest().cr3(), 0U);
    EXPECT_EQ(this->guest().cr4(), 0U);
    EXPECT_EQ(this->guest().efer(), 0U);
    EXPECT_EQ(this->guest().dr7(), 0x400U);
    auto const cs = this->guest().segment(vm::SegmentName::Cs);
    EXPECT_EQ(cs.selector, 0xf000U);
    EXPECT_EQ(cs.base, 0xffff'0000U);
    EXPECT_EQ(cs.limit, 0xffffU);
}

// The single step of a guest over an instruction that Mullion carries out ends in its #DB, also over HLT.
TYPED_TEST(EqualBehaviour, ASingleStepOverWhatExitsIsSeen) {
    u64 const begin = this->rip();
    this->flags(interrupts_on | trap_flag);
    EXPECT_EQ(this->play({{Cause::Hlt}}), RunResult::Work) << "the step's trap ends the HLT";
    EXPECT_EQ(this->rip(), begin + 1);
}

} // namespace
} // namespace backends
