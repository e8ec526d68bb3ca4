// SPDX-License-Identifier: MIT
// Outcomes that do not depend on a vendor; tests/unit/vmx goes through the rest with a VMCS around it.
#include "vm/fake_vcpu.hpp"
#include <kernel/page_table.hpp>
#include <kernel/panic.hpp>

namespace {

using fake::u32;
using fake::u64;
using fake::u8;
using vm::Exit;
using vm::ExitReason;
using vm::Outcome;
using vm::RegisterAccess;

class Router : public fake::VmTest {
protected:
    explicit Router(u32 vcpus = 1) : VmTest(vcpus) {}
    Outcome route(ExitReason reason) {
        Exit exit{};
        exit.reason = reason;
        return vm::route(vcpu(), exit);
    }
    Outcome move(RegisterAccess access) {
        Exit exit{};
        exit.reason = ExitReason::ControlRegister;
        exit.control = access;
        return vm::route(vcpu(), exit);
    }
};

TEST_F(Router, EveryReasonHasAnOutcomeAndIsCounted) {
    cpu.populate_msr(0x17a, 1); // MCG_STATUS.RIPV: a machine check would not be the end
    for (unsigned i = 0; i < vm::exit_reason_count; i++) {
        auto const reason = static_cast<ExitReason>(i);
        route(reason);
        EXPECT_EQ(vcpu().exit_counts()[i], 1U) << vm::name_of(reason);
        EXPECT_FALSE(vm::name_of(reason).empty());
    }
    EXPECT_EQ(vcpu().total_exits(), vm::exit_reason_count);
    EXPECT_EQ(vm->state(), vm::VmState::Stopping);
}

TEST_F(Router, WhatABackendKeepsToItselfStopsTheVm) {
    EXPECT_EQ(route(ExitReason::PreemptionTimer), Outcome::StopVm);
    EXPECT_EQ(vm->end_reason(), vm::EndReason::Crash);
    EXPECT_NE(vm->end_text().find("without a handler"), std::string_view::npos);
}

TEST_F(Router, AMachineCheckThatCanBeContainedStopsThatVmOnly) {
    cpu.populate_read_only_msr(0x179, 1);
    cpu.populate_msr(0x17a, 5);                       // RIPV, MCIP
    cpu.populate_msr(0x401, u64{0xb4} << 56 | 0x134); // VAL, UC, EN, ADDRV
    cpu.populate_msr(0x402, 0x1234'5000);
    EXPECT_EQ(route(ExitReason::MachineCheck), Outcome::StopVm);
    EXPECT_NE(vm->end_text().find("machine check"), std::string_view::npos);
    EXPECT_EQ(cpu.peek_msr(0x401), 0U);
    EXPECT_EQ(cpu.peek_msr(0x17a), 0U);
}

TEST_F(Router, AMachineCheckOfAnotherCpuStopsNobody) {
    cpu.populate_read_only_msr(0x179, 1);
    cpu.populate_msr(0x17a, 5);
    cpu.populate_msr(0x401, 0);
    EXPECT_EQ(route(ExitReason::MachineCheck), Outcome::Retry);
    EXPECT_EQ(vm->state(), vm::VmState::Running);
    EXPECT_EQ(cpu.peek_msr(0x17a), 0U);
}

TEST_F(Router, AMachineCheckThatLosesStateIsTheMachinesEnd) {
    ::testing::GTEST_FLAG(death_test_style) = "fast";
    kernel::set_panic_end([] { std::_Exit(3); });
    kernel::set_kernel_page_table(*kernel::PageTable::create({true, true})); // for the backtrace
    cpu.populate_read_only_msr(0x179, 1);
    cpu.populate_msr(0x17a, 5);
    cpu.populate_msr(0x401, u64{0xb6} << 56); // PCC
    EXPECT_EXIT(route(ExitReason::MachineCheck), testing::ExitedWithCode(3), "");
}

TEST_F(Router, SimpleOutcomes) {
    EXPECT_EQ(route(ExitReason::Hlt), Outcome::Sleep);
    EXPECT_EQ(route(ExitReason::Pause), Outcome::Yield);
    EXPECT_EQ(route(ExitReason::CacheControl), Outcome::Advance);
    EXPECT_EQ(route(ExitReason::Forbidden), Outcome::Inject);
    EXPECT_EQ(vcpu().exception().vector, 6);
    EXPECT_EQ(route(ExitReason::Privileged), Outcome::Inject);
    EXPECT_EQ(vcpu().exception().vector, 13);
}

TEST_F(Router, ControlRegistersThatDoNotExistAreInvalid) {
    for (u8 const number : {u8{1}, u8{2}, u8{5}, u8{15}})
        for (auto const kind : {RegisterAccess::Kind::Read, RegisterAccess::Kind::Write}) {
            EXPECT_EQ(move({number, 0, kind, 0}), Outcome::Inject);
            EXPECT_EQ(vcpu().exception().vector, 6);
        }
}

TEST_F(Router, TaskPriorityByCr8) {
    vcpu().gpr(vm::Gpr::R9) = 5;
    EXPECT_EQ(move({8, 9, RegisterAccess::Kind::Write, 0}), Outcome::Advance);
    EXPECT_EQ(vcpu().apic().task_priority(), 0x50);
    EXPECT_NE(vcpu().requests() & vm::request::interrupt, 0U);
    EXPECT_EQ(move({8, 2, RegisterAccess::Kind::Read, 0}), Outcome::Advance);
    EXPECT_EQ(vcpu().gpr(vm::Gpr::Rdx), 5U);
    vcpu().gpr(vm::Gpr::R9) = 16;
    EXPECT_EQ(move({8, 9, RegisterAccess::Kind::Write, 0}), Outcome::Inject);
}

TEST_F(Router, Cr3ChecksAddressBitsInLongModeOnly) {
    vcpu().gpr(vm::Gpr::Rax) = u64{1} << 45;
    EXPECT_EQ(move({3, 0, RegisterAccess::Kind::Write, 0}), Outcome::Advance);
    vcpu().set_efer(0x500);
    vcpu().set_cr0(0x8000'0011);
    EXPECT_EQ(move({3, 0, RegisterAccess::Kind::Write, 0}), Outcome::Inject);
}

TEST_F(Router, LongModeIsNotEnteredFromLongCodeOrA16BitTask) {
    vcpu().set_efer(0x100); // LME
    vcpu().set_cr4(vm::cr4::PAE);
    vcpu().set_cr0(0x11);
    vcpu().gpr(vm::Gpr::Rax) = 0x8000'0011;
    auto const enters = [&](lib::u16 code, lib::u16 task) {
        vcpu().set_segment(vm::SegmentName::Cs, {8, code, ~u32{0}, 0});
        vcpu().set_segment(vm::SegmentName::Tr, {16, task, 0xff, 0});
        bool const done = move({0, 0, RegisterAccess::Kind::Write, 0}) == Outcome::Advance;
        vcpu().set_cr0(0x11);
        return done;
    };
    EXPECT_TRUE(enters(vm::segment::code_32, vm::segment::busy_tss));
    EXPECT_FALSE(enters(vm::segment::code_32, 0x83));
    EXPECT_FALSE(enters(vm::segment::code_32, 0x81));
    EXPECT_FALSE(enters(vm::segment::long_code, vm::segment::busy_tss));
    vcpu().set_efer(0); // to 32-bit paging neither matters
    EXPECT_TRUE(enters(vm::segment::long_code, 0x83));
}

TEST_F(Router, StoppingTwiceKeepsTheFirstReason) {
    vm->stop(vm::EndReason::PowerOff, "the guest powered off");
    vm->stop(vm::EndReason::Crash, "later");
    EXPECT_EQ(vm->end_reason(), vm::EndReason::PowerOff);
    EXPECT_EQ(vm->end_text(), "the guest powered off");
    EXPECT_EQ(vm->state(), vm::VmState::Stopping);
    EXPECT_NE(vcpu().requests() & vm::request::leave, 0U);
}

class ThreeVcpus : public Router {
protected:
    ThreeVcpus() : Router(3) {
        for (u32 i = 0; i < 3; i++)
            vcpu(i).apic().mmio_write(vm::apic_reg::SVR, 4, 0x1ff);
    }
};

TEST_F(ThreeVcpus, MessagesReachWhomTheyName) {
    vm->deliver_message(0xfee0'1000, 0x4031); // physical, APIC 1
    EXPECT_FALSE(vcpu(0).apic().merge_posted());
    ASSERT_TRUE(vcpu(1).apic().merge_posted());
    EXPECT_TRUE(vcpu(1).apic().page().test(vm::apic_reg::IRR, 0x31));
    EXPECT_NE(vcpu(1).requests() & vm::request::interrupt, 0U);
    vm->deliver_message(0xfeef'f000, 0x4032); // everybody
    for (u32 i = 0; i < 3; i++)
        EXPECT_TRUE(vcpu(i).apic().merge_posted()) << i;
    vm->deliver_message(0xfee0'1000, 0x4005); // an illegal vector
    vm->deliver_message(0xfed0'1000, 0x4031); // not a message
    for (u32 i = 0; i < 3; i++)
        EXPECT_FALSE(vcpu(i).apic().merge_posted()) << i;
}

TEST_F(ThreeVcpus, OneThatWaitsForStartupWakesToLeave) {
    EXPECT_FALSE(vcpu(1).has_wake_event());
    vcpu(1).post(vm::request::leave);
    EXPECT_TRUE(vcpu(1).has_wake_event()) << "the end of a VM waits for this one too";
}

TEST_F(ThreeVcpus, InitAndStartupWakeAnotherVcpu) {
    auto& second = vcpu(1);
    EXPECT_EQ(second.activity(), vm::Activity::WaitForSipi);
    second.post(vm::request::nmi); // not lost, not a reason to run
    second.take_requests();
    EXPECT_EQ(second.activity(), vm::Activity::WaitForSipi);
    second.signal_startup(0x9a);
    EXPECT_TRUE(second.has_wake_event());
    second.take_requests();
    EXPECT_EQ(second.activity(), vm::Activity::Running);
    EXPECT_EQ(second.segment(vm::SegmentName::Cs).base, 0x9'a000U);
    EXPECT_EQ(second.segment(vm::SegmentName::Cs).selector, 0x9a00U);
    EXPECT_EQ(second.rip(), 0U);
    second.set_rip(0x55);
    second.signal_startup(0x10); // a second one is ignored
    second.take_requests();
    EXPECT_EQ(second.rip(), 0x55U);
    second.signal_init();
    second.take_requests();
    EXPECT_EQ(second.activity(), vm::Activity::WaitForSipi);
}

class CrashReport : public fake::VmTest {
protected:
    CrashReport() : VmTest(4) {
        for (u32 i = 0; i < 4; i++)
            vcpu(i).state_text = std::string(2'000, static_cast<char>('a' + i));
    }
    void add(u32 number, std::string_view state) {
        order.push_back(number);
        EXPECT_EQ(state, vcpu(number).state_text) << "whole";
    }
    void report() { vm->report_states(vm::Vm::StatePart::to<&CrashReport::add>(*this)); }
    std::vector<u32> order;
};

TEST_F(CrashReport, BeginsWithTheVcpuThatCrashed) {
    vm->crash(vcpu(2), "it cannot go on");
    vm->crash(vcpu(1), "nor can this one");
    report();
    EXPECT_EQ(vm->end_reason(), vm::EndReason::Crash);
    EXPECT_EQ(vm->end_text(), "it cannot go on");
    EXPECT_EQ(order, (std::vector<u32>{2, 0, 1, 3}));
}

TEST_F(CrashReport, HasEachVcpuOnceWhicheverCrashed) {
    vm->crash(vcpu(3), "");
    report();
    EXPECT_EQ(order, (std::vector<u32>{3, 0, 1, 2}));
}

} // namespace
