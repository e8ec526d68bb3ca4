// SPDX-License-Identifier: MIT
#include "vmx/vcpu_exit_fixture.hpp"

#include <kernel/machine_check.hpp>

namespace intel_machine {
namespace {

namespace field = vmx::field;
namespace reason = vmx::reason;
using vm::Gpr;
using vm::SegmentName;

TEST_F(VcpuExit, CpuidAnswersAndAdvances) {
    set(Gpr::Rax, 0xdead'beef'4000'0000);
    set(Gpr::Rbx, ~u64{0});
    EXPECT_EQ(after({reason::cpuid}).rip, rip + 2);
    EXPECT_EQ(static_cast<u32>(reg(Gpr::Rbx)), 0x6c6c'754dU); // "Mull"
    EXPECT_EQ(reg(Gpr::Rbx) >> 32, 0U);                       // the upper halves are cleared
    EXPECT_EQ(reg(Gpr::Rax) >> 32, 0U);
    EXPECT_EQ(vcpu().exit_counts()[static_cast<unsigned>(vm::ExitReason::Cpuid)], 1U);
}

TEST_F(VcpuExit, UnknownMsrsAreGeneralProtection) {
    for (u32 const why : {u32{reason::rdmsr}, u32{reason::wrmsr}}) {
        set(Gpr::Rcx, 0x1234'5678);
        set(Gpr::Rax, 0x55);
        expect_gp(after({why}), rip);
        EXPECT_EQ(reg(Gpr::Rax), 0x55U);
    }
}

TEST_F(VcpuExit, MsrsAreReadAndWrittenInHalves) {
    set(Gpr::Rcx, lib::x86::IA32_LSTAR);
    set(Gpr::Rax, 0xffff'ffff'8010'0000); // only the low half counts
    set(Gpr::Rdx, 0x1111'1111'ffff'8000);
    EXPECT_EQ(after({reason::wrmsr}).rip, rip + 2);
    EXPECT_EQ(cpu.peek_msr(lib::x86::IA32_LSTAR), 0xffff'8000'8010'0000U);
    EXPECT_EQ(after({reason::rdmsr}).rip, rip + 4);
    EXPECT_EQ(reg(Gpr::Rax), 0x8010'0000U);
    EXPECT_EQ(reg(Gpr::Rdx), 0xffff'8000U);
}

TEST_F(VcpuExit, PortReadsChangeOnlyTheirBytes) {
    struct Case {
        u64 qualification, expected;
    };
    for (auto const& [qualification, expected] :
         {Case{0x0040'0008, 0xaaaa'aaaa'aaaa'aa88}, {0x0040'0009, 0xaaaa'aaaa'aaaa'7788}, {0x0040'000b, 0x5566'7788}}) {
        set(Gpr::Rax, 0xaaaa'aaaa'aaaa'aaaa);
        after({reason::io_instruction, qualification});
        EXPECT_EQ(reg(Gpr::Rax), expected) << std::hex << qualification;
    }
    set(Gpr::Rax, 0x12345);
    after({reason::io_instruction, 0x03f8'0000});
    EXPECT_EQ(platform.outs, (std::vector<Platform::Port>{{0x3f8, 1, 0x12345}}));
}

TEST_F(VcpuExit, AdvanceEndsShadowsAndLeavesASingleStepTrap) {
    auto const entry = after({reason::cpuid, 0, 2, [&] {
                                  poke(field::GUEST_INTERRUPTIBILITY, 1 | 8);
                                  poke(field::GUEST_RFLAGS, 0x302);
                                  poke(field::GUEST_PENDING_DEBUG, 0);
                              }});
    EXPECT_EQ(entry.rip, rip + 2);
    EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY), 8U);
    EXPECT_EQ(field(field::GUEST_PENDING_DEBUG), u64{1} << 14);
}

TEST_F(VcpuExit, RipWrapsOutsideOf64BitMode) {
    EXPECT_EQ(after({reason::cpuid, 0, 2, [&] { poke(field::GUEST_RIP, 0xffff'ffff); }}).rip, 1U);
    auto const in_long_mode = after({reason::cpuid, 0, 2, [&] {
                                         poke(field::GUEST_RIP, 0xffff'ffff);
                                         poke(field::GUEST_CS_RIGHTS, vm::segment::long_code);
                                     }});
    EXPECT_EQ(in_long_mode.rip, 0x1'0000'0001U);
}

TEST_F(VcpuExit, InstructionsThatDoNotExistAreInvalid) {
    for (u32 const why : {u32{reason::vmxon}, u32{reason::vmlaunch}, u32{reason::invept}, u32{reason::monitor},
                          u32{reason::mwait}, u32{reason::getsec}, u32{reason::encls}, u32{reason::vmfunc},
                          u32{reason::rdtscp}, u32{reason::invpcid}, u32{reason::xsaves}}) {
        auto const entry = after({why});
        EXPECT_EQ(entry.interruption, hardware_exception(6, false)) << reason::name(static_cast<u16>(why));
        EXPECT_EQ(entry.rip, rip);
    }
    for (u32 const why : {u32{reason::rdpmc}, u32{reason::rsm}})
        expect_gp(after({why}), rip);
}

TEST_F(VcpuExit, CacheControlDoesNothing) {
    EXPECT_EQ(after({reason::wbinvd}).rip, rip + 2);
    EXPECT_EQ(after({reason::invd}).rip, rip + 4);
    EXPECT_EQ(cpu.wbinvd_count, 0U);
}

TEST_F(VcpuExit, HypercallsAreForTheKernelOnly) {
    set(Gpr::Rax, 0);
    EXPECT_EQ(after({reason::vmcall, 0, 3}).rip, rip + 3);
    set(Gpr::Rax, 5);
    after({reason::vmcall, 0, 3});
    EXPECT_EQ(reg(Gpr::Rax), ~u64{0});
    auto const entry = after({reason::vmcall, 0, 3, [&] { poke(field::GUEST_SS_RIGHTS, 0xc0f3); }});
    EXPECT_EQ(entry.interruption, hardware_exception(6, false));
}

TEST_F(VcpuExit, RealModeHasNoErrorCodes) {
    vcpu().set_cr0(0x10);
    set(Gpr::Rcx, 0x1234'5678);
    EXPECT_EQ(after({reason::rdmsr}).interruption, hardware_exception(13, false));
}

TEST_F(VcpuExit, MovToCr0KeepsWhatTheMachineNeeds) {
    set(Gpr::Rdx, 0x6000'0011); // CD, NW, ET, PE
    EXPECT_EQ(after({reason::control_register, 0x200, 3}).rip, rip + 3);
    EXPECT_EQ(field(field::GUEST_CR0), 0x31U); // NE on, caching on
    EXPECT_EQ(vcpu().cr0(), 0x6000'0011U);     // what the guest sees
    set(Gpr::Rdx, 0x8000'0000);                // PG without PE
    expect_gp(after({reason::control_register, 0x200, 3}), rip + 3);
    EXPECT_EQ(vcpu().cr0(), 0x6000'0011U);
}

TEST_F(VcpuExit, ClearingTsAndLmsw) {
    vcpu().set_cr0(0x19);
    after({reason::control_register, 2 << 4});
    EXPECT_EQ(vcpu().cr0(), 0x11U);
    after({reason::control_register, 0x000e'0030}); // LMSW cannot clear PE
    EXPECT_EQ(vcpu().cr0(), 0x1fU);
}

TEST_F(VcpuExit, EnteringLongModeTellsTheEntryControls) {
    vcpu().set_cr4(0x20);
    vcpu().set_efer(0x100);
    set(Gpr::Rax, 0x8000'0011);
    after({reason::control_register, 0, 3});
    EXPECT_EQ(vcpu().efer(), 0x500U);
    EXPECT_TRUE(vmx::EntryControls::Ia32eModeGuest::get(static_cast<u32>(field(field::ENTRY_CONTROLS))));
    set(Gpr::Rax, 0x11);
    after({reason::control_register, 0, 3});
    EXPECT_EQ(vcpu().efer(), 0x100U);
    EXPECT_FALSE(vmx::EntryControls::Ia32eModeGuest::get(static_cast<u32>(field(field::ENTRY_CONTROLS))));
}

TEST_F(VcpuExit, EnteringPaeLoadsWhatEntryWillAccept) {
    u64 const entries_of_guest[4] = {0x5001, 0x6000, 0x7003,
                                     u64{1} << 51 | 1}; // good, not present, reserved bit, beyond memory
    std::memcpy(vm->ram().pointer(vm::GuestPhys{0x4000}, 32), entries_of_guest, 32);
    vcpu().set_cr3(0x4000);
    vcpu().set_cr4(0x20);
    set(Gpr::Rax, 0x8000'0011);
    after({reason::control_register, 0, 3});
    EXPECT_EQ(field(field::GUEST_PDPTE0), 0x5001U);
    EXPECT_EQ(field(field::GUEST_PDPTE1), 0U);
    EXPECT_EQ(field(field::GUEST_PDPTE2), 0U);
    EXPECT_EQ(field(field::GUEST_PDPTE3), 0U);
}

TEST_F(VcpuExit, PaeTablesOutsideOfRamAreNotPresent) {
    vcpu().set_cr3(0xf000'0000);
    vcpu().set_cr4(0x20);
    set(Gpr::Rax, 0x8000'0011);
    after({reason::control_register, 0, 3});
    EXPECT_EQ(field(field::GUEST_PDPTE0), 0U);
}

TEST_F(VcpuExit, MovToCr4RefusesVmx) {
    set(Gpr::Rcx, 0x2020);
    expect_gp(after({reason::control_register, 4 | 1 << 8, 3}), rip);
    set(Gpr::Rcx, 0x20);
    EXPECT_EQ(after({reason::control_register, 4 | 1 << 8, 3}).rip, rip + 3);
    EXPECT_EQ(vcpu().cr4(), 0x20U);
    EXPECT_EQ(field(field::GUEST_CR4), 0x2020U);
}

TEST_F(VcpuExit, MachineChecksStayOnWhateverTheGuestSays) {
    constexpr u64 mce = 0x40;
    cpu.set_cpuid(1, {0, 0, 0, 1U << 7});
    kernel::enable_machine_checks();
    for (u64 const guests : {u64{0x20}, u64{0x20} | mce, u64{0x20}}) {
        set(Gpr::Rcx, guests);
        after({reason::control_register, 4 | 1 << 8, 3});
        EXPECT_EQ(vcpu().cr4(), guests);
        EXPECT_EQ(field(field::GUEST_CR4), 0x2020U | mce);
        EXPECT_EQ(field(field::CR4_SHADOW) & mce, guests & mce);
        EXPECT_EQ(field(field::CR4_MASK) & mce, mce);
    }
    cpu.set_cpuid(1, {0, 0, 0, 0});
    kernel::enable_machine_checks(); // what other tests expect: a CPU without
}

TEST_F(VcpuExit, AMachineCheckInTheEntryIsNoBadState) {
    cpu.populate_msr(0x17a, 5); // MCG_STATUS: RIPV, MCIP; no bank has anything
    EXPECT_EQ(after({u32{reason::machine_check_entry} | 1U << 31}).rip, rip) << vm->end_text();
    EXPECT_EQ(cpu.peek_msr(0x17a), 0U);
}

TEST_F(VcpuExit, ControlRegistersMoveToTheStackPointerToo) {
    poke(field::GUEST_RSP, 0x7000);
    after({reason::control_register, 3 | 1 << 4 | 4 << 8, 3, [&] { poke(field::GUEST_CR3, 0x9000); }});
    EXPECT_EQ(field(field::GUEST_RSP), 0x9000U);
}

TEST_F(VcpuExit, SettingXcr0IsChecked) {
    set(Gpr::Rcx, 0);
    set(Gpr::Rdx, 0);
    set(Gpr::Rax, 7);
    EXPECT_EQ(after({reason::xsetbv, 0, 3}).rip, rip + 3);
    EXPECT_EQ(cpu.xcr0, 7U);
    set(Gpr::Rax, 4); // AVX without SSE
    expect_gp(after({reason::xsetbv, 0, 3}), rip + 3);
    EXPECT_EQ(cpu.xcr0, 7U);
}

TEST_F(VcpuExit, MemoryFaultsReachTheDevice) {
    auto const at_device = [&] { poke(field::GUEST_PHYSICAL_ADDRESS, 0xfec0'0010); };
    write_code(rip, {0xa3, 0x10, 0x00, 0xc0, 0xfe, 0xa1, 0x10, 0x00, 0xc0, 0xfe}); // MOV [FEC00010h], EAX; and back
    set(Gpr::Rax, 0x1234);
    EXPECT_EQ(after({reason::ept_violation, 0x182, 0, at_device}).rip, rip + 5);
    EXPECT_EQ(after({reason::ept_violation, 0x181, 0, at_device}).rip, rip + 10);
    ASSERT_EQ(platform.accesses.size(), 2U);
    EXPECT_TRUE(platform.accesses[0].is_write && !platform.accesses[1].is_write);
    EXPECT_EQ(platform.accesses[0].address, 0xfec0'0010U);
    EXPECT_EQ(static_cast<u32>(platform.accesses[0].value), 0x1234U);
    EXPECT_EQ(reg(Gpr::Rax), 0xffff'ffffU);
}

TEST_F(VcpuExit, AFetchFromWhereThereIsNoMemoryIsAnInvalidOpcode) {
    auto const at_device = [&] { poke(field::GUEST_PHYSICAL_ADDRESS, 0xfec0'0010); };
    EXPECT_EQ(after({reason::ept_violation, 0x184, 0, at_device}).interruption, hardware_exception(6, false));
}

TEST_F(VcpuExit, TablesWhereThereIsNoMemoryStopTheVm) {
    auto const at_device = [&] { poke(field::GUEST_PHYSICAL_ADDRESS, 0xfec0'0010); };
    EXPECT_EQ(run({{reason::ept_violation, 0x081, 0, at_device}}),
              kernel::RunResult::Stopped); // a walk of the guest's tables
    EXPECT_NE(vm->end_text().find("page tables"), std::string_view::npos);
}

TEST_F(VcpuExit, ApicAccessesReachTheApic) {
    write_code(rip, {0xa3, 0x80, 0x00, 0xe0, 0xfe}); // MOV [FEE00080h], EAX
    set(Gpr::Rax, 0x30);
    EXPECT_EQ(after({reason::apic_access, 0x1080, 0}).rip, rip + 5);
    EXPECT_EQ(vcpu().apic().task_priority(), 0x30);
    EXPECT_EQ(vcpu().exit_counts()[static_cast<unsigned>(vm::ExitReason::ApicAccess)], 1U);
}

TEST_F(VcpuExit, ExternalInterruptsReachTheirHandlerAndAreAcknowledged) {
    static unsigned calls;
    calls = 0;
    kernel::set_interrupt_handler(0xe8, kernel::InterruptHandler::to_function<+[] { calls++; }>());
    cpu.msr_writes.clear();
    EXPECT_EQ(
        after({reason::external_interrupt, 0, 0, [&] { poke(field::EXIT_INTERRUPTION_INFO, event(0xe8, 0)); }}).rip,
        rip);
    EXPECT_EQ(calls, 1U);
    EXPECT_EQ(std::ranges::count(cpu.msr_writes, fakes::MsrWrite{0x80b, 0}),
              2); // this one and the kick that ended run()
    kernel::set_interrupt_handler(0xe8, {});
}

TEST_F(VcpuExit, DebugExceptionsAreReflectedWithTheirStatus) {
    cpu.dr[6] = 0xffff'0ff1;
    auto const entry = after({reason::exception_or_nmi, 0x4004, 0, [&] {
                                  poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(1, false));
                                  poke(field::GUEST_DR7, 0x2400);
                              }});
    EXPECT_EQ(entry.interruption, hardware_exception(1, false));
    EXPECT_EQ(cpu.dr[6], 0xffff'4ff4U);
    EXPECT_EQ(field(field::GUEST_DR7), 0x400U); // GD cleared, as the CPU does when it delivers #DB
}

TEST_F(VcpuExit, SingleSteppingOverAShadowDoesNotStopTheVm) {
    auto const entry = after({reason::exception_or_nmi, 0x4000, 0, [&] {
                                  poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(1, false));
                                  poke(field::GUEST_RFLAGS, 0x302);
                                  poke(field::GUEST_INTERRUPTIBILITY, 1); // #DB behind STI
                                  poke(field::GUEST_PENDING_DEBUG, 0);
                              }});
    EXPECT_EQ(entry.interruption, hardware_exception(1, false));
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

TEST_F(VcpuExit, AlignmentChecksAreReflectedWithTheirCode) {
    auto const entry = after({reason::exception_or_nmi, 0, 0, [&] {
                                  poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(17, true));
                                  poke(field::EXIT_INTERRUPTION_ERROR_CODE, 0);
                              }});
    EXPECT_EQ(entry.interruption, hardware_exception(17, true));
}

// Its #DB takes the place of a step's, also where a shadow holds that back.
TEST_F(VcpuExit, Int1IsCarriedOutAndItsTrapIsTheOnlyOne) {
    for (u64 const shadow : {0U, 1U, 2U}) {
        poke(field::GUEST_RIP, rip);
        cpu.dr[6] = 0xffff'0ff0;
        auto const entry = after({reason::exception_or_nmi, 0x4000, 1, [&] {
                                      poke(field::EXIT_INTERRUPTION_INFO, event(1, 5));
                                      poke(field::GUEST_RFLAGS, 0x302);
                                      poke(field::GUEST_INTERRUPTIBILITY, shadow);
                                      poke(field::GUEST_PENDING_DEBUG, shadow == 0 ? 0 : 1U << 14);
                                  }});
        EXPECT_EQ(entry.interruption, hardware_exception(1, false));
        EXPECT_EQ(entry.rip, rip + 1);
        EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY), 0U);
        EXPECT_EQ(field(field::GUEST_PENDING_DEBUG), 0U);
        EXPECT_EQ(cpu.dr[6], 0xffff'0ff0U);
        EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
    }
}

TEST_F(VcpuExit, AStepsTrapEndsTheHalt) {
    auto const entry = after({reason::hlt, 0, 1, [&] {
                                  poke(field::GUEST_RFLAGS, 0x302);
                                  poke(field::GUEST_INTERRUPTIBILITY, 1); // STI; HLT
                                  poke(field::GUEST_PENDING_DEBUG, 1U << 14);
                              }});
    EXPECT_EQ(entry.rip, rip + 1);
    EXPECT_EQ(vcpu().activity(), vm::Activity::Running);
    EXPECT_EQ(field(field::GUEST_PENDING_DEBUG), u64{1} << 14);
}

TEST_F(VcpuExit, FaultsHaveRfSetAndTheEndOfAnInstructionClearsIt) {
    constexpr u64 rf = 1U << 16;
    set(Gpr::Rcx, 0x1234'5678);
    after({reason::rdmsr});
    EXPECT_EQ(field(field::GUEST_RFLAGS), 0x202 | rf);
    write_code(rip, {0xa1, 0x10, 0x00, 0xc0, 0xfe}); // MOV EAX, [FEC00010h]
    after({reason::ept_violation, 0x181, 3, [&] {
               poke(field::GUEST_PHYSICAL_ADDRESS, 0xfec0'0010);
               poke(field::GUEST_RFLAGS, 0x202 | rf);
           }});
    EXPECT_EQ(field(field::GUEST_RFLAGS), 0x202U);
    write_code(rip + 5, {0x83, 0x3d, 0x10, 0x00, 0xc0, 0xfe, 0x00}); // CMP DWORD [FEC00010h], 0, which changes others
    after({reason::ept_violation, 0x181, 3, [&] {
               poke(field::GUEST_PHYSICAL_ADDRESS, 0xfec0'0010);
               poke(field::GUEST_RFLAGS, 0x202 | rf);
           }});
    EXPECT_EQ(field(field::GUEST_RFLAGS), 0x286U);
    poke(field::GUEST_RFLAGS, 0x202);
    // A trap leaves it alone.
    after({reason::exception_or_nmi, 0x4000, 0,
           [&] { poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(1, false)); }});
    EXPECT_EQ(field(field::GUEST_RFLAGS), 0x202U);
}

TEST_F(VcpuExit, AnAlignmentCheckDuringTheDeliveryOfATrapLosesNoTrap) {
    auto const cut_off = [&](u64 dr6, u64 dr7) {
        entries.clear();
        cpu.msr_writes.clear();
        EXPECT_EQ(run({{reason::exception_or_nmi, 0, 0,
                        [&, dr6, dr7] {
                            cpu.dr[6] = dr6;
                            poke(field::GUEST_DR7, dr7);
                            poke(field::IDT_VECTORING_INFO, hardware_exception(1, false));
                            poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(17, true));
                        }},
                       {reason::external_interrupt, 0, 0,
                        [&] { poke(field::EXIT_INTERRUPTION_INFO, event(kernel::vectors::kick, 0)); }}}),
                  kernel::RunResult::Work)
            << vm->end_text();
        EXPECT_EQ(injected(1), hardware_exception(17, true));
        run({});
        EXPECT_EQ(injected(3), 0U) << "once";
        return injected(2);
    };
    u32 const debug = hardware_exception(1, false);
    EXPECT_EQ(cut_off(0xffff'4ff0, 0x400), debug) << "single step";
    constexpr u32 icr = 0x830;
    EXPECT_TRUE(std::ranges::any_of(cpu.msr_writes, [](auto const& write) { return write.index == icr; }))
        << "an interrupt of ours makes it look after the delivery of #AC";
    EXPECT_EQ(cut_off(0xffff'0ff1, 0x1'0402), debug) << "data breakpoint";
    EXPECT_EQ(cut_off(0xffff'0ff0, 0x400), debug) << "INT1";
    EXPECT_EQ(cut_off(0xffff'0ff1, 0x402), 0U) << "an instruction breakpoint is hit again";
    EXPECT_EQ(cut_off(0xffff'2ff0, 0x400), 0U) << "general detect, too";
}

TEST_F(VcpuExit, AFaultInIretBlocksNmisAgain) {
    after({reason::exception_or_nmi, 0, 0,
           [&] { poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(17, true) | 1U << 12); }});
    EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY) & 8, 8U);
}

TEST_F(VcpuExit, AnInterruptedDeliveryIsRepeated) {
    struct Case {
        u32 vectoring, expected, length;
    };
    for (auto const& [vectoring, expected, length] :
         {Case{event(0x31, 0), event(0x31, 0), 0},
          {hardware_exception(14, true) | 1U << 12, hardware_exception(14, true), 0},
          {event(0x80, 4), event(0x80, 4), 2},
          {event(3, 6), event(3, 6), 2}}) {
        auto const entry = after({reason::interrupt_window, 0, 2, [&] {
                                      poke(field::IDT_VECTORING_INFO, vectoring);
                                      poke(field::IDT_VECTORING_ERROR_CODE, 7);
                                  }});
        EXPECT_EQ(entry.interruption, expected);
        if ((expected >> 11 & 1) != 0) {
            EXPECT_EQ(entry.error_code, 7U);
        }
        if (length != 0) {
            EXPECT_EQ(entry.length, length);
        }
    }
}

TEST_F(VcpuExit, AnInterruptedNmiIsRepeatedUnblocked) {
    auto const entry = after({reason::interrupt_window, 0, 2, [&] {
                                  poke(field::IDT_VECTORING_INFO, event(2, 2));
                                  poke(field::GUEST_INTERRUPTIBILITY, 8);
                              }});
    EXPECT_EQ(entry.interruption, event(2, 2));
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

// Each of these exits comes before the machine's interrupts and may be followed by its like for ever.
TEST_F(VcpuExit, InterruptsAreTakenInEveryChainOfExitsWithoutAnInstruction) {
    auto const with = [&](u32 vectoring, u32 exception) {
        return [&, vectoring, exception] {
            poke(field::IDT_VECTORING_INFO, vectoring);
            poke(field::EXIT_INTERRUPTION_INFO, exception);
        };
    };
    u32 const debug = hardware_exception(1, false), alignment = hardware_exception(17, true);
    struct Case {
        u32 why;
        std::function<void()> before;
    };
    for (auto const& [why, before] : {Case{reason::exception_or_nmi, with(0, debug)},
                                      {reason::exception_or_nmi, with(debug, debug)},
                                      {reason::exception_or_nmi, with(event(0x80, 4), alignment)},
                                      {reason::interrupt_window, with(0, 0)},
                                      {reason::nmi_window, with(0, 0)},
                                      {reason::task_switch, with(debug, 0)},
                                      {reason::apic_write, with(event(0x31, 0), 0)}}) {
        auto const windows = cpu.interrupt_windows;
        after({why, 0, 0, before});
        EXPECT_GT(cpu.interrupt_windows, windows) << reason::name(static_cast<u16>(why));
    }
}

TEST_F(VcpuExit, WhatArrivesInAChainOfExitsIsSeenBeforeTheNextEntry) {
    cpu.on_interrupt_window = [&] { vcpu().post(vm::request::leave); };
    entries.clear();
    EXPECT_EQ(run({{reason::exception_or_nmi, 0, 0,
                    [&] { poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(1, false)); }}}),
              kernel::RunResult::Work);
    EXPECT_EQ(entries.size(), 1U) << "it left before it entered again";
    cpu.on_interrupt_window = {};
    EXPECT_EQ(after({reason::cpuid}).is_launched, true) << "and goes on with its #DB";
    EXPECT_EQ(entries.front().interruption, hardware_exception(1, false));
}

TEST_F(VcpuExit, AnAlignmentCheckDuringADeliveryComesFirstAndLosesNoInterrupt) {
    auto const during = [&](u32 vectoring, u64 rflags) {
        return [&, vectoring, rflags] {
            poke(field::IDT_VECTORING_INFO, vectoring);
            poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(17, true));
            poke(field::GUEST_RFLAGS, rflags);
            poke(field::GUEST_INTERRUPTIBILITY, 0);
        };
    };
    EXPECT_EQ(after({reason::exception_or_nmi, 0, 0, during(event(0x31, 0), 2)}).interruption,
              hardware_exception(17, true));
    // The handler runs with IF clear: the interrupt waits for its window.
    EXPECT_EQ(after({reason::interrupt_window, 0, 0, during(0, 2)}).interruption >> 31, 0U);
    EXPECT_EQ(after({reason::interrupt_window, 0, 0, during(0, 0x202)}).interruption, event(0x31, 0));
    EXPECT_EQ(after({reason::interrupt_window, 0, 0, during(0, 0x202)}).interruption >> 31, 0U) << "once";
    // An NMI too; what an instruction caused, or a fault, comes by itself.
    entries.clear();
    run({{reason::exception_or_nmi, 0, 0, during(event(2, 2), 2)}, {reason::nmi_window, 0, 0, during(0, 2)}});
    ASSERT_EQ(entries.size(), 3U);
    EXPECT_EQ(entries[1].interruption, hardware_exception(17, true));
    EXPECT_EQ(entries[2].interruption, event(2, 2));
    EXPECT_EQ(after({reason::exception_or_nmi, 0, 0, during(hardware_exception(14, true), 2)}).interruption,
              hardware_exception(17, true));
    EXPECT_EQ(after({reason::interrupt_window, 0, 0, during(0, 0x202)}).interruption >> 31, 0U);
}

TEST_F(VcpuExit, ABreakpointInTheWayOfADeliveryIsHitAgainByItsRepetition) {
    auto const entry = after({reason::exception_or_nmi, 1, 0, [&] {
                                  poke(field::IDT_VECTORING_INFO, event(0x31, 0));
                                  poke(field::EXIT_INTERRUPTION_INFO, hardware_exception(1, false));
                              }});
    EXPECT_EQ(entry.interruption, event(0x31, 0));
}

TEST_F(VcpuExit, DeliveryThroughDeviceMemoryStopsTheVm) {
    EXPECT_EQ(run({{reason::ept_violation, 0x181, 0, [&] { poke(field::IDT_VECTORING_INFO, event(0x31, 0)); }}}),
              kernel::RunResult::Stopped);
    EXPECT_EQ(vm->end_reason(), vm::EndReason::Crash);
    EXPECT_NE(vm->end_text().find("IDT or stack"), std::string_view::npos);
}

TEST_F(VcpuExit, WhatNobodyHandlesStopsOnlyTheVm) {
    EXPECT_EQ(run({{reason::monitor_trap}}), kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("monitor trap flag"), std::string_view::npos);
    EXPECT_EQ(vm->state(), vm::VmState::Stopping);
}

TEST_F(VcpuExit, ATripleFaultEndsTheVm) {
    EXPECT_EQ(run({{reason::triple_fault}}), kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("triple fault"), std::string_view::npos) << vm->end_text();
}

TEST_F(VcpuExit, AFailedEntrySaysWhichRuleIsBroken) {
    EXPECT_EQ(run({{1U << 31 | reason::invalid_guest_state, 0, 0, [&] { poke(field::GUEST_RFLAGS, 0); }}}),
              kernel::RunResult::Stopped);
    EXPECT_EQ(vm->end_reason(), vm::EndReason::Crash);
    EXPECT_NE(vm->end_text().find("reserved bits of RFLAGS"), std::string_view::npos) << vm->end_text();
}

TEST_F(VcpuExit, AFailedInstructionSaysItsError) {
    on_entry = [&](std::array<u64, 16>&, bool) {
        poke(field::VM_INSTRUCTION_ERROR, 8);
        return u64{1};
    };
    EXPECT_EQ(vcpu().run(), kernel::RunResult::Stopped);
    EXPECT_NE(vm->end_text().find("VMRESUME failed: error 8, entry with invalid host-state"), std::string_view::npos)
        << vm->end_text();
}

TEST_F(VcpuExit, PrintsItsState) {
    std::array<char, 8192> text{};
    lib::BufferSink sink(text);
    vcpu().print_state(sink);
    for (auto const* const part : {"rip 0000000000100000", "cs", "controls:", "real cr0"})
        EXPECT_NE(sink.view().find(part), std::string_view::npos) << part;
    EXPECT_LT(sink.view().size() + 200, vm::Vcpu::most_state_text) << "numbers may be longer";
}

} // namespace
} // namespace intel_machine
