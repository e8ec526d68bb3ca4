// SPDX-License-Identifier: MIT
#include "svm/vcpu_fixture.hpp"

#include <kernel/machine_check.hpp>
#include <set>
#include <svm/state_check.hpp>

namespace amd_machine {
namespace {

using vm::Gpr;
using vm::SegmentName;
namespace clean = svm::clean;
namespace reg = vm::apic_reg;

class TcgTest : public VcpuTest {
protected:
    TcgTest() { is_tcg = true; }
};
class ZenTest : public VcpuTest {
protected:
    ZenTest() : VcpuTest(features_zen2) {}
};

TEST_F(VcpuTest, LengthOfAPlainInstructionIsSeenInPlace) {
    write_code(rip, {0x0f, 0xa2, 0x90, 0x90});
    vcpu().gpr(Gpr::Rax) = 0x4000'0000;
    auto const next = after({exit_code::CPUID, 0, 0, [](svm::Vmcb& b) { b.save.rax = 0x4000'0000; }});
    EXPECT_EQ(next.save.rip, rip + 2);
    EXPECT_EQ(vcpu().gpr(Gpr::Rbx), 0x6c6c'754dU); // "Mull"
    EXPECT_EQ(next.save.rax, 0x4000'0010U) << "RAX goes back by the VMCB";
}

TEST_F(VcpuTest, MachineChecksStayOnWhateverTheGuestSays) {
    constexpr u64 mce = 0x40;
    constexpr u16 reads_of_cr4 = 1U << 4;
    cpu.set_cpuid(1, {0, 0, 0, 1U << 7});
    kernel::enable_machine_checks();
    vcpu().set_cr4(0x20);
    write_code(rip, {0x0f, 0x20, 0xe3}); // MOV RBX, CR4
    auto const without = after({exit_code::READ_CR4});
    EXPECT_EQ(without.save.cr4, 0x20U | mce);
    EXPECT_EQ(vcpu().gpr(Gpr::Rbx), 0x20U);
    EXPECT_EQ(without.save.rip, rip + 3);
    EXPECT_NE(without.control.intercepts.cr_reads & reads_of_cr4, 0);
    vcpu().set_cr4(0x20 | mce);
    EXPECT_EQ(vcpu().cr4(), 0x20U | mce);
    auto const with = after({exit_code::INTR});
    EXPECT_EQ(with.save.cr4, 0x20U | mce);
    EXPECT_EQ(with.control.intercepts.cr_reads & reads_of_cr4, 0) << "no exit for what needs none";
    cpu.set_cpuid(1, {0, 0, 0, 0});
    kernel::enable_machine_checks(); // what other tests expect: a CPU without
}

TEST_F(VcpuTest, PrefixesAreForTheDecoder) {
    write_code(rip, {0x66, 0x0f, 0xa2, 0x90});
    EXPECT_EQ(after({exit_code::CPUID}).save.rip, rip + 3);
}

TEST_F(VcpuTest, TheWayToTheCodeIsWalkedAgainWhenTablesChange) {
    write_code(rip, {0x0f, 0xa2});
    EXPECT_EQ(after({exit_code::CPUID}).save.rip, rip + 2);
    vcpu().set_rip(rip);
    // The same linear page is elsewhere now, where a prefix stands before the opcode.
    u64 const elsewhere = 0x20'0083;
    std::memcpy(vm->ram().pointer(vm::GuestPhys{0x3000}, 8), &elsewhere, 8);
    write_code(0x20'0000 + rip, {0x66, 0x0f, 0xa2, 0x90});
    EXPECT_EQ(after({exit_code::CPUID}).save.rip, rip + 3);
}

TEST_F(VcpuTest, CodeThatVanishedIsLookedAtAgainAndNotForEver) {
    u64 const absent = 0;
    std::memcpy(vm->ram().pointer(vm::GuestPhys{0x3000}, 8), &absent, 8);
    auto const next = after({exit_code::CPUID});
    EXPECT_EQ(next.save.rip, rip);
    EXPECT_NE(next.control.asid, entries.front().control.asid) << "with nothing cached";
    std::vector<Exit> many(100, Exit{exit_code::CPUID});
    EXPECT_EQ(run(std::move(many)), kernel::RunResult::Stopped);
    EXPECT_EQ(vm->end_reason(), vm::EndReason::Crash);
}

// One thread executes CPUID, another one writes NOPs over it before the exit looks.
TEST_F(VcpuTest, CodeThatVanishesNowAndThenDoesNotStopTheVm) {
    std::vector<Exit> exits;
    for (unsigned i = 0; i < 100; i++) {
        exits.push_back({exit_code::CPUID, 0, 0, [this](svm::Vmcb&) { write_code(rip, {0x90, 0x90}); }});
        exits.push_back({exit_code::CPUID, 0, 0, [this](svm::Vmcb& b) {
                             write_code(rip, {0x0f, 0xa2});
                             b.save.rip = rip;
                         }});
        exits.push_back({exit_code::INTR, 0, 0, [](svm::Vmcb& b) { b.save.rip = rip; }});
    }
    EXPECT_EQ(run(std::move(exits)), kernel::RunResult::Work);
}

TEST_F(VcpuTest, AProgramThatHidesItsCodeGetsInvalidOpcode) {
    std::vector<Exit> exits(100, Exit{exit_code::CPUID, 0, 0, [this](svm::Vmcb& b) {
                                          write_code(rip, {0x90, 0x90});
                                          b.save.cpl = 3;
                                      }});
    EXPECT_EQ(run(std::move(exits)), kernel::RunResult::Work);
    unsigned faults = 0;
    for (svm::Vmcb const& entry : entries)
        faults += injected(entry) == event(6, 3);
    EXPECT_EQ(faults, 1U);
}

TEST_F(VcpuTest, CachesAreTheKernels) {
    for (auto const& [code, opcode] : {std::pair{exit_code::INVD, u8{0x08}}, {exit_code::WBINVD, u8{0x09}}}) {
        write_code(rip, {0x0f, opcode});
        auto const by = [](u8 level) {
            return [level](svm::Vmcb& b) {
                b.save.rip = rip;
                b.save.cpl = level;
            };
        };
        EXPECT_EQ(after({code, 0, 0, by(0)}).save.rip, rip + 2);
        EXPECT_EQ(injected(after({code, 0, 0, by(3)})), gp);
    }
}

TEST_F(VcpuTest, PortsSayTheNextRip) {
    auto const next = after({exit_code::IOIO, 0x40U << 16 | 1U << 4 | 1, rip + 2});
    EXPECT_EQ(next.save.rip, rip + 2);
    EXPECT_EQ(next.save.rax & 0xff, 0x88U);
}

TEST_F(VcpuTest, NestedFaultsReachTheDevice) {
    write_code(rip, {0x89, 0x13}); // MOV [RBX], EDX
    vcpu().gpr(Gpr::Rbx) = 0xfec0'0010;
    vcpu().gpr(Gpr::Rdx) = 0x1234;
    EXPECT_EQ(after({exit_code::NPF, 1ULL << 32 | 1U << 1, 0xfec0'0010}).save.rip, rip + 2);
    ASSERT_EQ(platform.accesses.size(), 1U);
    EXPECT_EQ(platform.accesses[0].address, 0xfec0'0010U);
    EXPECT_EQ(platform.accesses[0].value, 0x1234U);
    EXPECT_TRUE(platform.accesses[0].is_write);
}

TEST_F(VcpuTest, TablesWhereThereIsNoMemoryStopTheVm) {
    EXPECT_EQ(run({{exit_code::NPF, 1ULL << 33, 0xd000'0000}}), kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("page tables"), std::string_view::npos);
}

TEST_F(VcpuTest, AReservedBitInOurTablesStopsTheVm) {
    EXPECT_EQ(run({{exit_code::NPF, 1U << 3, 0x1000}}), kernel::RunResult::Stopped);
    EXPECT_EQ(vm->end_reason(), vm::EndReason::Crash);
}

TEST_F(VcpuTest, InstructionsThatGuestsDoNotHaveAreInvalid) {
    for (u32 const code : {exit_code::VMRUN, exit_code::VMLOAD, exit_code::VMSAVE, exit_code::STGI, exit_code::CLGI,
                           exit_code::SKINIT, exit_code::INVLPGA, exit_code::MONITOR, exit_code::MWAIT,
                           exit_code::RDPRU, exit_code::TLBSYNC, exit_code::MCOMMIT, exit_code::INVLPGB}) {
        auto const next = after({code});
        EXPECT_EQ(injected(next), event(6, 3)) << code;
        EXPECT_EQ(next.save.rip, rip);
    }
    EXPECT_EQ(injected(after({exit_code::RDPMC})), gp);
}

TEST_F(VcpuTest, UnknownExitsStopTheVmOnly) {
    EXPECT_EQ(run({{0x7777}}), kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("0x7777"), std::string_view::npos);
}

TEST_F(VcpuTest, InterruptedEventsAreDeliveredAgain) {
    auto const with = [](u64 info) { return [info](svm::Vmcb& b) { b.control.exit_int_info.raw = info; }; };
    u64 const page_fault = event(14, 3) | 1U << 11 | u64{7} << 32;
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, with(page_fault)})), page_fault);
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, with(event(0x50, 0))})), event(0x50, 0));
    // As QEMU tells it.
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, with(event(0xec, 3))})), event(0xec, 0));
    // What an instruction caused comes again by itself.
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, with(event(0x80, 4))})), 0U);
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, with(event(3, 3))})), 0U);
}

// Each of these exits comes before the machine's interrupts and may be followed by its like for ever.
TEST_F(VcpuTest, InterruptsAreTakenInEveryChainOfExitsWithoutAnInstruction) {
    auto const with = [](u64 info) { return [info](svm::Vmcb& b) { b.control.exit_int_info.raw = info; }; };
    struct Case {
        u32 code;
        u64 cut_off;
    };
    for (auto const& [code, cut_off] : {Case{exit_code::EXCEPTION_DB, 0},
                                        {exit_code::EXCEPTION_DB, event(1, 3)},
                                        {exit_code::EXCEPTION_AC, event(0x80, 4)},
                                        {exit_code::VINTR, 0},
                                        {exit_code::IRET, 0},
                                        {exit_code::WBINVD, event(0x50, 0)}}) {
        auto const windows = cpu.interrupt_windows;
        after({code, 0, 0, with(cut_off)});
        EXPECT_GT(cpu.interrupt_windows, windows) << exit_code::name(code);
    }
}

TEST_F(VcpuTest, AnAlignmentCheckDuringADeliveryComesFirstAndLosesNoInterrupt) {
    auto const during = [](u64 info) {
        return [info](svm::Vmcb& b) {
            b.control.exit_int_info.raw = info;
            b.save.rflags = 2;
        };
    };
    u64 const alignment = event(lib::x86::exception_ac, 3) | 1U << 11;
    auto const first = after({exit_code::EXCEPTION_AC, 0, 0, during(event(0x50, 0))});
    EXPECT_EQ(injected(first), alignment);
    // The handler runs with IF clear: the interrupt waits until it is set.
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, during(0)})), 0U);
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, open})), event(0x50, 0));
    EXPECT_EQ(injected(after({exit_code::WBINVD})), 0U) << "once";
    // An NMI too; what an instruction caused, or a fault, comes by itself.
    entries.clear();
    run({{exit_code::EXCEPTION_AC, 0, 0, during(event(2, 2))}, {exit_code::INTR, 0, 0, during(0)}});
    ASSERT_EQ(entries.size(), 3U);
    EXPECT_EQ(injected(entries[1]), alignment);
    EXPECT_EQ(injected(entries[2]), event(2, 2));
    EXPECT_EQ(injected(after({exit_code::EXCEPTION_AC, 0, 0, during(event(14, 3) | 1U << 11)})), alignment);
    EXPECT_EQ(injected(after({exit_code::INTR, 0, 0, open})), 0U);
}

TEST_F(VcpuTest, ABreakpointInTheWayOfADeliveryIsHitAgainByItsRepetition) {
    auto const entry = after({exit_code::EXCEPTION_DB, 0, 0, [](svm::Vmcb& b) {
                                  b.control.exit_int_info.raw = event(0x50, 0);
                                  b.save.dr6 = 0xffff'0ff1;
                              }});
    EXPECT_EQ(injected(entry), event(0x50, 0));
    EXPECT_EQ(entry.save.dr6, 0xffff'0ff1U);
}

TEST_F(VcpuTest, AnInterruptBehindOneOfThePicGetsItsWindow) {
    vcpu().apic().mmio_write(reg::LVT_LINT0, 4, 0x700);
    run({});
    entries.clear();
    platform.pic = true;
    vcpu().apic().accept(0x40, vm::TriggerMode::Edge);
    run({{exit_code::VINTR}});
    EXPECT_EQ(injected(entries[0]), event(0x20, 0));
    EXPECT_TRUE(entries[0].control.intercepts.has(exit_code::VINTR));
    EXPECT_EQ(injected(entries[1]), event(0x40, 0));
}

TEST_F(ZenTest, AGuestThatSpinsYields) {
    EXPECT_TRUE(vmcb().control.intercepts.has(exit_code::PAUSE));
    EXPECT_EQ(vmcb().control.pause_filter_count, 3000U);
    EXPECT_EQ(vmcb().control.pause_filter_threshold, 128U);
    EXPECT_EQ(run({{exit_code::PAUSE, 0, 0, [](svm::Vmcb& b) { b.control.next_rip = b.save.rip + 2; }}}),
              kernel::RunResult::Yield);
    EXPECT_EQ(vcpu().rip(), rip + 2);
}

TEST_F(VcpuTest, WithoutTheFilterNoPauseExits) { EXPECT_FALSE(vmcb().control.intercepts.has(exit_code::PAUSE)); }

TEST_F(VcpuTest, AnInterruptWhoseDeliveryHitsADeviceStopsTheVm) {
    EXPECT_EQ(
        run({{exit_code::NPF, 2, 0xfee0'0000, [](svm::Vmcb& b) { b.control.exit_int_info.raw = event(0x50, 0); }}}),
        kernel::RunResult::Stopped);
}

TEST_F(VcpuTest, AnInterruptIsOnOfferUntilTheGuestTakesIt) {
    using Control = svm::InterruptControl;
    vcpu().set_rflags(2);
    vcpu().apic().accept(0x45, vm::TriggerMode::Edge);
    auto const closed = after({exit_code::INTR}).control.interrupt_control;
    EXPECT_TRUE(closed.get<Control::VirtualIrq>());
    EXPECT_FALSE(closed.get<Control::IgnoreTpr>());
    EXPECT_EQ(closed.get<Control::Vector>(), 0x45);
    EXPECT_EQ(closed.get<Control::Priority>(), 4);
    EXPECT_EQ(vcpu().apic().highest_irr(), 0x45);
    EXPECT_EQ(vcpu().apic().highest_isr(), -1);
    // A more urgent one takes its place.
    vcpu().post_interrupt(0x61, vm::TriggerMode::Edge);
    auto const urgent = after({exit_code::INTR}).control.interrupt_control;
    EXPECT_EQ(urgent.get<Control::Vector>(), 0x61);
    // The guest turns interrupts on and has it; the other waits for the end of this one.
    auto const taken = after(
        {exit_code::INTR, 0, 0, [](svm::Vmcb& b) { b.control.interrupt_control.set<Control::VirtualIrq>(false); }});
    EXPECT_FALSE(taken.control.interrupt_control.get<Control::VirtualIrq>());
    EXPECT_EQ(vcpu().apic().highest_isr(), 0x61);
    EXPECT_EQ(vcpu().apic().highest_irr(), 0x45);
    vcpu().set_rflags(0x202);
    vcpu().apic().mmio_write(reg::EOI, 4, 0);
    after({exit_code::INTR});
    EXPECT_EQ(injected(entries[0]), event(0x45, 0));
}

TEST_F(VcpuTest, AnInterruptThatCanBeTakenIsInjected) {
    vcpu().apic().accept(0x45, vm::TriggerMode::Edge);
    entries.clear();
    run({{exit_code::WBINVD}});
    EXPECT_EQ(entries[0].control.event_injection.raw, event(0x45, 0));
    EXPECT_FALSE(is_on_offer(entries[0]));
    EXPECT_EQ(injected(entries[1]), 0U) << "once";
    EXPECT_EQ(vcpu().apic().highest_isr(), 0x45);
}

TEST_F(TcgTest, InterruptsAreOnlyEverOffered) {
    vcpu().apic().accept(0x45, vm::TriggerMode::Edge);
    EXPECT_TRUE(is_on_offer(after({exit_code::INTR})));
    EXPECT_EQ(vcpu().apic().highest_isr(), -1) << "an interrupt of the machine's comes first";
    EXPECT_TRUE(is_on_offer(after({exit_code::INTR}))) << "still";
    EXPECT_EQ(injected(after({exit_code::WBINVD})), 0U);
    EXPECT_EQ(vcpu().apic().highest_isr(), 0x45);
}

TEST_F(TcgTest, ADeliveryThatWasCutOffIsRepeatedOnce) {
    takes_virtual_interrupts = false; // QEMU leaves V_IRQ set then
    vcpu().apic().accept(0x45, vm::TriggerMode::Edge);
    run({{exit_code::NPF, 1ULL << 32, 0x8'0000, [](svm::Vmcb& b) { b.control.exit_int_info.raw = event(0x45, 0); }}});
    EXPECT_EQ(vm->end_reason(), vm::EndReason::Crash) << "there is no memory for its stack";
    EXPECT_EQ(vcpu().apic().highest_isr(), 0x45);
    EXPECT_EQ(vmcb().control.event_injection.raw, event(0x45, 0));
    EXPECT_FALSE(is_on_offer(vmcb()));
}

TEST_F(TcgTest, AnInterruptOfThePicIsAcknowledgedWhenTheGuestCanTakeIt) {
    vcpu().apic().mmio_write(reg::LVT_LINT0, 4, 0x700);
    run({});
    vcpu().set_rflags(2);
    vcpu().post(vm::request::interrupt);
    platform.pic = true;
    auto const closed = after({exit_code::INTR});
    EXPECT_TRUE(closed.control.intercepts.has(exit_code::VINTR));
    EXPECT_TRUE(closed.control.interrupt_control.get<svm::InterruptControl::IgnoreTpr>());
    EXPECT_TRUE(platform.pic);
    EXPECT_EQ(injected(after({exit_code::VINTR, 0, 0, open})), event(0x20, 0));
    EXPECT_FALSE(platform.pic);
    EXPECT_EQ(injected(after({exit_code::WBINVD})), 0U);
    EXPECT_EQ(vcpu().apic().highest_isr(), -1);
}

TEST_F(VcpuTest, AShadowHoldsInterruptsBackAndEndsWithItsInstruction) {
    write_code(rip, {0x0f, 0xa2});
    vmcb().control.interrupt_state.set<svm::InterruptState::Shadow>(true);
    vcpu().apic().accept(0x40, vm::TriggerMode::Edge);
    auto const held = after({exit_code::INTR});
    EXPECT_EQ(injected(held), 0U);
    auto const next = after({exit_code::CPUID});
    EXPECT_FALSE(next.control.interrupt_state.get<svm::InterruptState::Shadow>());
}

TEST_F(VcpuTest, TaskPriorityIsSharedWithCr8) {
    vcpu().apic().mmio_write(reg::TPR, 4, 0x50);
    auto next = after({exit_code::INTR});
    EXPECT_EQ(next.control.interrupt_control.get<svm::InterruptControl::VirtualTpr>(), 5);
    vcpu().apic().accept(0x45, vm::TriggerMode::Edge);
    next = after({exit_code::INTR});
    EXPECT_EQ(injected(next), 0U);
    EXPECT_EQ(next.control.intercepts.cr_writes & 1U << 8, 1U << 8) << "lowering it must exit";
    write_code(rip, {0x44, 0x0f, 0x22, 0xc2}); // MOV CR8, RDX
    vcpu().gpr(Gpr::Rdx) = 3;
    next = after({exit_code::WRITE_CR8});
    EXPECT_EQ(next.save.rip, rip + 4);
    EXPECT_EQ(injected(next), event(0x45, 0));
    EXPECT_EQ(next.control.interrupt_control.get<svm::InterruptControl::VirtualTpr>(), 3);
    EXPECT_EQ(next.control.intercepts.cr_writes & 1U << 8, 0U);
    // Raised by the guest without an exit.
    after({exit_code::INTR, 0, 0,
           [](svm::Vmcb& b) { b.control.interrupt_control.set<svm::InterruptControl::VirtualTpr>(9); }});
    EXPECT_EQ(vcpu().apic().task_priority(), 0x90);
}

TEST_F(VcpuTest, CachesStayOnWhateverTheGuestSays) {
    write_code(rip, {0x0f, 0x22, 0xc3, 0x0f, 0x20, 0xc1}); // MOV CR0, RBX; MOV RCX, CR0
    vcpu().gpr(Gpr::Rbx) = 0xe001'0011;
    auto next = after({exit_code::CR0_SEL_WRITE});
    EXPECT_EQ(next.save.cr0, 0x8001'0011U);
    EXPECT_EQ(vcpu().cr0(), 0xe001'0011U);
    EXPECT_EQ(next.control.intercepts.cr_reads & 1, 1);
    EXPECT_EQ(next.control.intercepts.cr_writes & 1, 1);
    after({exit_code::READ_CR0});
    EXPECT_EQ(vcpu().gpr(Gpr::Rcx), 0xe001'0011U);
    write_code(rip + 6, {0x0f, 0x22, 0xc3}); // MOV CR0, RBX
    vcpu().gpr(Gpr::Rbx) = 0x8001'0011;
    next = after({exit_code::WRITE_CR0});
    EXPECT_EQ(vcpu().cr0(), 0x8001'0011U);
    EXPECT_EQ(next.control.intercepts.cr_writes & 1, 0);
    EXPECT_EQ(next.control.intercepts.cr_reads & 1, 0);
}

TEST_F(VcpuTest, X87PointersOfTheLastGuestAreReplacedWhereTheCpuKeepsThem) {
    using Kind = fakes::StateInstruction::Kind;
    auto const replaces = [&](u32 ebx) {
        cpu.set_cpuid(0x8000'0008, {0x3030, ebx, 0, 0});
        kernel::detect_cpu_features();
        vcpu().unload();
        cpu.state_instructions.clear();
        after({exit_code::INTR});
        return !cpu.state_instructions.empty() && cpu.state_instructions[0].kind == Kind::ReplaceX87Pointers;
    };
    EXPECT_TRUE(replaces(0));
    EXPECT_FALSE(replaces(1U << 2)) << "RstrFpErrPtrs";
}

TEST_F(VcpuTest, SingleStepsOverEmulatedInstructions) {
    write_code(rip, {0x0f, 0xa2});
    vcpu().set_rflags(0x302);
    entries.clear();
    run({{exit_code::CPUID}});
    EXPECT_EQ(entries[1].control.event_injection.raw, event(1, 3));
    EXPECT_NE(entries[1].save.dr6 & 1U << 14, 0U);
}

TEST_F(VcpuTest, AStepsTrapEndsTheHalt) {
    write_code(rip, {0xf4});
    vcpu().set_rflags(0x302);
    auto const next = after({exit_code::HLT});
    EXPECT_EQ(next.save.rip, rip + 1);
    EXPECT_EQ(injected(entries[1]), event(1, 3));
}

TEST_F(VcpuTest, FaultsHaveRfSetAndTheEndOfAnInstructionClearsIt) {
    constexpr u64 rf = 1U << 16;
    auto const fault = after({exit_code::RDPMC});
    EXPECT_EQ(injected(fault), gp);
    EXPECT_EQ(fault.save.rflags, 0x202 | rf);
    write_code(rip, {0x0f, 0xa2});
    EXPECT_EQ(after({exit_code::CPUID}).save.rflags, 0x202U);
    // A trap leaves it alone.
    EXPECT_EQ(after({exit_code::EXCEPTION_DB}).save.rflags, 0x202U);
}

TEST_F(VcpuTest, AnAlignmentCheckDuringTheDeliveryOfATrapLosesNoTrap) {
    auto const cut_off = [&](u64 dr6, u64 dr7) {
        entries.clear();
        EXPECT_EQ(run({{exit_code::EXCEPTION_AC, 0, 0,
                        [dr6, dr7](svm::Vmcb& b) {
                            b.save.dr6 = dr6;
                            b.save.dr7 = dr7;
                            b.control.exit_int_info.raw = event(1, 3);
                        }},
                       {exit_code::INTR}}),
                  kernel::RunResult::Work);
        EXPECT_EQ(injected(entries[1]), event(17, 3) | 1U << 11);
        run({});
        EXPECT_EQ(injected(entries[3]), 0U) << "once";
        return injected(entries[2]);
    };
    EXPECT_EQ(cut_off(0xffff'4ff0, 0x400), event(1, 3)) << "single step";
    EXPECT_EQ(cut_off(0xffff'0ff1, 0x1'0402), event(1, 3)) << "data breakpoint";
    EXPECT_EQ(cut_off(0xffff'0ff1, 0x402), 0U) << "an instruction breakpoint is hit again";
}

TEST_F(VcpuTest, ControlRegistersAreDecoded) {
    write_code(rip, {0x0f, 0x22, 0xe3, 0x0f, 0x22, 0xe3}); // MOV CR4, RBX, twice
    vcpu().gpr(Gpr::Rbx) = 0xa0;
    auto next = after({exit_code::WRITE_CR4});
    EXPECT_EQ(next.save.cr4, 0xa0U);
    EXPECT_EQ(next.save.rip, rip + 3);
    vcpu().gpr(Gpr::Rbx) = 1U << 13; // VMXE: never offered
    after({exit_code::WRITE_CR4});
    EXPECT_EQ(entries[1].control.event_injection.raw, gp);
    EXPECT_EQ(entries[1].save.cr4, 0xa0U);
    write_code(rip + 3, {0x0f, 0x06}); // CLTS
    vcpu().set_cr0(0x8001'0019);
    EXPECT_EQ(after({exit_code::CR0_SEL_WRITE}).save.cr0, 0x8001'0011U);
}

TEST_F(VcpuTest, EferHidesSvm) {
    EXPECT_EQ(vcpu().efer() & vm::efer::SVME, 0U);
    EXPECT_EQ(vcpu().efer(), vm::efer::LME | vm::efer::LMA);
    EXPECT_NE(vmcb().save.efer & vm::efer::SVME, 0U);
}

TEST_F(VcpuTest, SegmentsSurviveThePacking) {
    for (u16 const attributes :
         {vm::segment::long_code, vm::segment::code_16, vm::segment::data_32, vm::segment::busy_tss}) {
        vcpu().set_segment(SegmentName::Es, {0x1234, attributes, 0x5678, 0x9abc});
        auto const back = vcpu().segment(SegmentName::Es);
        EXPECT_EQ(back.attributes, attributes);
        EXPECT_EQ(back.selector, 0x1234);
        EXPECT_EQ(back.limit, 0x5678U);
        EXPECT_EQ(back.base, 0x9abcU);
    }
    vcpu().set_segment(SegmentName::Fs, {0, vm::segment::unusable | vm::segment::data_32, 0, 0});
    EXPECT_NE(vcpu().segment(SegmentName::Fs).attributes & vm::segment::unusable, 0);
    vcpu().set_segment(SegmentName::Ss, {0x2b, vm::segment::data_32 | 0x60, ~u32{0}, 0});
    EXPECT_EQ(vcpu().privilege_level(), 3U);
}

TEST_F(VcpuTest, RefusedStatesAreExplained) {
    EXPECT_EQ(run({{exit_code::INVALID, 0, 0, [](svm::Vmcb& b) { b.save.cr0 |= 1U << 29; }}}),
              kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("CR0.NW without CR0.CD"), std::string_view::npos) << vm->end_text();
}

// What QEMU makes of a SYSENTER in compatibility mode. It has not taken the interrupt that was on offer.
TEST_F(TcgTest, AStateThatAProgramCanReachIsRepairedWhenItIsRefused) {
    vcpu().set_rflags(2);
    vcpu().apic().accept(0x45, vm::TriggerMode::Edge);
    auto const refuse = [](svm::Vmcb& b) {
        b.save.cs.attributes |= 3U << 9;
        b.save.rip ^= 0x13a;
        b.control.interrupt_control.set<svm::InterruptControl::VirtualIrq>(false);
    };
    auto next = after({exit_code::INVALID, 0, 0, refuse});
    EXPECT_EQ(next.save.cs.attributes & 3U << 9, 1U << 9) << "64-bit code";
    EXPECT_EQ(next.save.rip, rip);
    EXPECT_TRUE(next.control.interrupt_control.get<svm::InterruptControl::VirtualIrq>());
    EXPECT_EQ(next.control.interrupt_control.get<svm::InterruptControl::Vector>(), 0x45);
    EXPECT_EQ(vcpu().apic().highest_isr(), -1);
    // Nor the event that was to be injected.
    next = after({exit_code::INVALID, 0, 0, [&](svm::Vmcb& b) {
                      refuse(b);
                      b.control.exit_int_info.raw = event(14, 3) | 1U << 11;
                  }});
    EXPECT_EQ(next.control.event_injection.raw, event(14, 3) | 1U << 11);
}

TEST_F(VcpuTest, OtherCpusAreNotRepaired) {
    EXPECT_EQ(run({{exit_code::INVALID, 0, 0, [](svm::Vmcb& b) { b.save.cs.attributes |= 3U << 9; }}}),
              kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("CS.L and CS.D both set"), std::string_view::npos) << vm->end_text();
}

TEST_F(VcpuTest, QemusAnswerToABadCr3BecomesAFault) {
    write_code(rip, {0x0f, 0x22, 0xd9}); // MOV CR3, RCX
    vcpu().gpr(Gpr::Rcx) = 0xfff0'0000'0000'0000;
    EXPECT_EQ(injected(after({exit_code::INVALID})), gp);
}

TEST_F(ZenTest, LengthsComeFromTheCpu) {
    auto const next = after({exit_code::CPUID, 0, 0, [](svm::Vmcb& b) { b.control.next_rip = rip + 4; }});
    EXPECT_EQ(next.save.rip, rip + 4);
}

TEST_F(ZenTest, MovesToControlRegistersAreNotDecoded) {
    vcpu().gpr(Gpr::Rdi) = 0xa0;
    auto const next =
        after({exit_code::WRITE_CR4, 1ULL << 63 | 7, 0, [](svm::Vmcb& b) { b.control.next_rip = rip + 3; }});
    EXPECT_EQ(next.save.cr4, 0xa0U);
    EXPECT_EQ(next.save.rip, rip + 3);
}

// Every change that the CPU may have cached must clear its group's bit.
TEST_F(ZenTest, ChangesAreMarked) {
    auto const marked = [&](auto change) {
        run({});
        EXPECT_EQ(vmcb().control.clean_bits, clean::all | clean::avic);
        change();
        return (clean::all | clean::avic) & ~vmcb().control.clean_bits;
    };
    EXPECT_EQ(marked([&] { vcpu().set_cr0(0x8001'0011); }), u32{clean::control_registers});
    EXPECT_EQ(marked([&] { vcpu().set_cr3(0x1000); }), u32{clean::control_registers});
    EXPECT_EQ(marked([&] { vcpu().set_cr4(0x20); }), u32{clean::control_registers});
    EXPECT_EQ(marked([&] { vcpu().set_efer(vm::efer::LME | vm::efer::LMA); }), u32{clean::control_registers});
    EXPECT_EQ(marked([&] { vcpu().set_segment(SegmentName::Cs, {8, vm::segment::long_code, 0, 0}); }),
              u32{clean::segments});
    EXPECT_EQ(marked([&] { vcpu().set_gdt({0, 0}); }), u32{clean::descriptor_tables});
    EXPECT_EQ(marked([&] { vcpu().set_idt({0, 0}); }), u32{clean::descriptor_tables});
    EXPECT_EQ(marked([&] { vcpu().set_dr7(0x400); }), u32{clean::debug_registers});
    EXPECT_EQ(marked([&] { vcpu().set_tsc_offset(5); }), u32{clean::intercepts});
    EXPECT_EQ(marked([&] { vcpu().write_hardware(vm::HardwareMsr::Pat, 6); }), u32{clean::nested_paging});
}

TEST_F(ZenTest, FlushesOnlyItsOwnTranslations) {
    u32 const asid = vmcb().control.asid;
    vcpu().post(vm::request::flush_tlb);
    entries.clear();
    run({{exit_code::INTR}});
    EXPECT_EQ(entries[0].control.tlb_control, svm::TlbControl::FlushAsid);
    EXPECT_EQ(entries[0].control.asid, asid);
    EXPECT_EQ(entries[1].control.tlb_control, svm::TlbControl::Nothing);
}

TEST_F(VcpuTest, WithoutThatItTakesAFreshAsid) {
    std::set<u32> asids;
    for (unsigned i = 0; i < 40; i++) {
        vcpu().post(vm::request::flush_tlb);
        entries.clear();
        run({});
        u32 const asid = entries[0].control.asid;
        EXPECT_TRUE(asid >= 1 && asid <= 15);
        if (entries[0].control.tlb_control == svm::TlbControl::FlushAll) asids.clear();
        EXPECT_TRUE(asids.insert(asid).second) << "reused without a flush";
    }
}

} // namespace
} // namespace amd_machine
