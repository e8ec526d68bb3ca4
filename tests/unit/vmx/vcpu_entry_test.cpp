// SPDX-License-Identifier: MIT
#include "vmx/vcpu_entry_fixture.hpp"

namespace intel_machine {
namespace {

TEST_F(VcpuEntry, TranslationsFromWithoutApicAccessesAreForgotten) {
    start("");
    ASSERT_EQ(vcpu().write_apic_base(0xfee0'0100), vm::MsrResult::Done); // off
    run({});
    cpu.vmx.invepts.clear();
    ASSERT_EQ(vcpu().write_apic_base(0xfee0'0900), vm::MsrResult::Done);
    run({});
    ASSERT_EQ(cpu.vmx.invepts.size(), 1U);
    EXPECT_EQ(cpu.vmx.invepts[0].eptp, field(field::EPT_POINTER));
    run({});
    EXPECT_EQ(cpu.vmx.invepts.size(), 1U);
}

// --- without virtual-interrupt delivery

class Injected : public VcpuEntry {
protected:
    void SetUp() override { start("virtual-interrupts"); }
};

TEST_F(Injected, TheMostUrgentInterruptGoesFirst) {
    interrupt(0x31);
    interrupt(0x52);
    run({});
    EXPECT_EQ(injected(0), event(0x52, 0));
    EXPECT_EQ(vcpu().apic().highest_isr(), 0x52);
    EXPECT_FALSE(has_interrupt_window());
    vcpu().apic().end_of_interrupt();
    vcpu().post(request::interrupt);
    run({});
    EXPECT_EQ(injected(1), event(0x31, 0));
}

TEST_F(Injected, NothingIsInjectedTwice) {
    interrupt(0x31);
    run({{reason::cpuid}, {reason::cpuid}});
    EXPECT_EQ(injected(0), event(0x31, 0));
    EXPECT_EQ(injected(1), 0U);
    EXPECT_EQ(injected(2), 0U);
}

TEST_F(Injected, WaitsForTheWindowWhileInterruptsAreOff) {
    vcpu().set_rflags(2);
    interrupt(0x31);
    run({});
    EXPECT_EQ(injected(0), 0U);
    EXPECT_TRUE(has_interrupt_window());
    run({{reason::interrupt_window, 0, 0, [&] { poke(field::GUEST_RFLAGS, 0x202); }}});
    EXPECT_EQ(injected(2), event(0x31, 0));
    EXPECT_FALSE(has_interrupt_window());
}

TEST_F(Injected, WaitsForTheWindowInAShadow) {
    for (u32 const shadow : {1U, 2U}) {
        entries.clear();
        poke(field::GUEST_INTERRUPTIBILITY, shadow);
        interrupt(0x31);
        run({{reason::interrupt_window, 0, 0, [&] { poke(field::GUEST_INTERRUPTIBILITY, 0); }}});
        EXPECT_EQ(injected(0), 0U);
        EXPECT_EQ(injected(1), event(0x31, 0));
        vcpu().apic().end_of_interrupt();
    }
}

TEST_F(Injected, AnExceptionGoesBeforeAnInterrupt) {
    vcpu().gpr(vm::Gpr::Rcx) = 0x1234'5678;
    run({{reason::rdmsr, 0, 2, [&] { interrupt(0x31); }}, {reason::interrupt_window}});
    EXPECT_EQ(injected(1), hardware_exception(13, true));
    EXPECT_EQ(injected(2), event(0x31, 0));
}

TEST_F(Injected, AnInterruptedDeliveryGoesBeforeAnInterrupt) {
    run({{reason::interrupt_window, 0, 0,
          [&] {
              poke(field::IDT_VECTORING_INFO, event(0x40, 0));
              interrupt(0x91);
          }},
         {reason::interrupt_window}});
    EXPECT_EQ(injected(1), event(0x40, 0));
    EXPECT_EQ(injected(2), event(0x91, 0));
}

TEST_F(Injected, NmisComeBeforeInterruptsAndBlockEachOther) {
    vcpu().post(request::nmi);
    interrupt(0x31);
    run({{reason::interrupt_window}});
    EXPECT_EQ(injected(0), event(2, 2));
    EXPECT_EQ(injected(1), event(0x31, 0));
    vcpu().post(request::nmi);
    run({});
    EXPECT_EQ(injected(2), 0U); // still in the first: the entry has set blocking by NMI
    EXPECT_TRUE(has_nmi_window());
    run({{reason::nmi_window, 0, 0, [&] { poke(field::GUEST_INTERRUPTIBILITY, 0); }}});
    EXPECT_EQ(injected(4), event(2, 2));
    EXPECT_FALSE(has_nmi_window());
}

TEST_F(Injected, LoweringTheTaskPriorityLetsAnInterruptIn) {
    for (bool const x2apic : {false, true}) {
        entries.clear();
        if (x2apic) enter_x2apic();
        vcpu().apic().set_task_priority(0x50);
        interrupt(0x41);
        run({});
        EXPECT_EQ(injected(0), 0U);
        EXPECT_EQ(field(field::TPR_THRESHOLD), 4U);
        EXPECT_FALSE(has_interrupt_window());
        EXPECT_EQ(run({{reason::tpr_below_threshold, 0, 0, [&] { vcpu().apic().set_task_priority(0x20); }}}),
                  kernel::RunResult::Work)
            << vm->end_text();
        EXPECT_EQ(injected(2), event(0x41, 0));
        EXPECT_EQ(field(field::TPR_THRESHOLD), 0U);
        vcpu().apic().end_of_interrupt();
    }
}

TEST_F(Injected, EndOfInterruptLetsTheNextOneIn) {
    for (bool const x2apic : {false, true}) {
        entries.clear();
        if (x2apic) enter_x2apic();
        interrupt(0x52);
        interrupt(0x31);
        run({});
        EXPECT_EQ(injected(0), event(0x52, 0));
        if (x2apic) {
            vcpu().gpr(vm::Gpr::Rcx) = 0x80b;
            vcpu().gpr(vm::Gpr::Rax) = vcpu().gpr(vm::Gpr::Rdx) = 0;
            run({{reason::wrmsr}});
        } else {
            write_code(vcpu().rip(), {0xa3, 0xb0, 0x00, 0xe0, 0xfe}); // MOV [FEE000B0h], EAX
            vcpu().gpr(vm::Gpr::Rax) = 0;
            run({{reason::apic_access, 0x10b0}});
        }
        EXPECT_EQ(injected(2), event(0x31, 0)) << x2apic;
        vcpu().apic().end_of_interrupt();
    }
}

TEST_F(Injected, AnEmulatedTaskPriorityLetsAnInterruptIn) {
    for (bool const x2apic : {false, true}) {
        entries.clear();
        if (x2apic) enter_x2apic();
        vcpu().apic().set_task_priority(0x50);
        interrupt(0x41);
        run({});
        EXPECT_EQ(injected(0), 0U);
        if (x2apic) {
            vcpu().gpr(vm::Gpr::Rcx) = 0x808;
            vcpu().gpr(vm::Gpr::Rax) = 0x20;
            vcpu().gpr(vm::Gpr::Rdx) = 0;
            run({{reason::wrmsr}});
        } else {
            write_code(vcpu().rip(), {0xa3, 0x80, 0x00, 0xe0, 0xfe}); // MOV [FEE00080h], EAX
            vcpu().gpr(vm::Gpr::Rax) = 0x20;
            run({{reason::apic_access, 0x1080}});
        }
        EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
        EXPECT_EQ(entries.size() > 2 ? injected(2) : 0U, event(0x41, 0)) << x2apic;
        vcpu().apic().end_of_interrupt();
    }
}

TEST_F(Injected, ThePicGetsThroughLint0) {
    vcpu().apic().mmio_write(vm::apic_reg::LVT_LINT0, 4, 0x700);
    platform.pic = true;
    vcpu().set_rflags(2);
    vcpu().post(request::interrupt);
    run({});
    EXPECT_EQ(injected(0), 0U);
    EXPECT_TRUE(has_interrupt_window());
    EXPECT_EQ(platform.pic_acknowledged, 0U); // not before it can be taken
    run({{reason::interrupt_window, 0, 0, [&] { poke(field::GUEST_RFLAGS, 0x202); }}});
    EXPECT_EQ(injected(2), event(0x20, 0));
    EXPECT_EQ(platform.pic_acknowledged, 1U);
    EXPECT_FALSE(has_interrupt_window());
}

TEST_F(Injected, HaltSleepsUntilAnInterruptThatCanBeTaken) {
    EXPECT_EQ(run({{reason::hlt, 0, 1}}), kernel::RunResult::Sleep);
    EXPECT_EQ(vcpu().activity(), vm::Activity::Halted);
    EXPECT_FALSE(vcpu().has_wake_event());
    vcpu().apic().set_task_priority(0xf0);
    interrupt(0x31); // held back by the TPR
    EXPECT_TRUE(vcpu().has_wake_event());
    EXPECT_EQ(run({}), kernel::RunResult::Sleep);
    EXPECT_EQ(entries.size(), 1U);
    vcpu().apic().set_task_priority(0);
    vcpu().post(request::interrupt);
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(entries.at(1).rip, rip + 1);
    EXPECT_EQ(injected(1), event(0x31, 0));
    EXPECT_EQ(vcpu().activity(), vm::Activity::Running);
}

TEST_F(Injected, AnInterruptBeforeTheHaltEndsItAtOnce) {
    EXPECT_EQ(run({{reason::hlt, 0, 1, [&] { interrupt(0x31); }}}), kernel::RunResult::Work);
    EXPECT_EQ(injected(1), event(0x31, 0));
}

TEST_F(Injected, HaltBehindStiWakesToo) {
    EXPECT_EQ(run({{reason::hlt, 0, 1,
                    [&] {
                        poke(field::GUEST_INTERRUPTIBILITY, 1);
                        interrupt(0x31);
                    }}}),
              kernel::RunResult::Work);
    EXPECT_EQ(injected(1), event(0x31, 0)); // the HLT itself ended the shadow
}

TEST_F(Injected, HaltWithInterruptsOffSleepsThroughThemButNotThroughNmi) {
    vcpu().set_rflags(2);
    EXPECT_EQ(run({{reason::hlt, 0, 1, [&] { interrupt(0x31); }}}), kernel::RunResult::Sleep);
    vcpu().post(request::nmi);
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(injected(1), event(2, 2));
}

TEST_F(Injected, PauseYieldsAndALeaveRequestLeaves) {
    EXPECT_EQ(run({{reason::pause}}), kernel::RunResult::Yield);
    EXPECT_EQ(entries.size(), 1U);
    vcpu().post(request::leave);
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(entries.size(), 1U);
    kernel::this_cpu().work_pending = true;
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(entries.size(), 1U);
    kernel::this_cpu().work_pending = false;
}

TEST_F(Injected, TheApicTimerInterrupts) {
    vcpu().apic().mmio_write(vm::apic_reg::LVT_TIMER, 4, 0x40'0035 & ~0x40'0000);
    vcpu().apic().mmio_write(vm::apic_reg::DIVIDE, 4, 0xb);
    vcpu().apic().mmio_write(vm::apic_reg::INITIAL_COUNT, 4, 1000);
    cpu.tsc += 10'000'000;
    kernel::run_timers();
    run({});
    EXPECT_EQ(injected(0), event(0x35, 0));
}

TEST_F(Injected, InitForgetsTheEventOnItsWay) {
    vcpu().gpr(vm::Gpr::Rcx) = 0x1234'5678;
    run({{reason::rdmsr, 0, 2, [&] {
              poke(field::GUEST_INTERRUPTIBILITY, 1);
              vcpu().signal_init();
          }}});
    EXPECT_EQ(injected(1), 0U); // not the #GP
    EXPECT_EQ(entries.at(1).rip, 0xfff0U);
    EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY), 0U);
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

TEST_F(Injected, ResetStartsFromNothing) {
    poke(field::GUEST_INTERRUPTIBILITY, 9);
    poke(field::GUEST_PENDING_DEBUG, 0x4000);
    vcpu().reset();
    run({});
    EXPECT_EQ(entries.at(0).rip, 0xfff0U);
    EXPECT_EQ(field(field::GUEST_INTERRUPTIBILITY), 0U);
    EXPECT_EQ(field(field::GUEST_PENDING_DEBUG), 0U);
    EXPECT_EQ(field(field::GUEST_CS_BASE), 0xffff'0000U);
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

// --- what is there in every VM

TEST_F(Virtualized, MsrsOfTheMachineExit) {
    auto const* const bitmap = kernel::phys_to_virt<u8>(lib::HostPhys{field(field::MSR_BITMAP)});
    auto const exits = [&](u32 index, bool write) {
        u32 const base = (index >= 0xc000'0000 ? 1024U : 0U) + (write ? 2048U : 0U);
        u32 const bit = index & 0x1fff;
        return (bitmap[base + bit / 8] >> bit % 8 & 1) != 0;
    };
    for (u32 const index : {0x1bU, 0x3aU, 0x8bU, 0x174U + 3, 0x1d9U, 0x480U, 0x6e0U, 0xda0U, 0xc000'0080U})
        EXPECT_TRUE(exits(index, true)) << std::hex << index;
    for (u32 const index : {0x1bU, 0x3aU, 0x6e0U, 0xe7U, 0x1d9U})
        EXPECT_TRUE(exits(index, false)) << std::hex << index;
    for (u32 const index : {0xc000'0100U, 0xc000'0101U, 0xc000'0102U, 0x174U}) {
        EXPECT_FALSE(exits(index, false)) << std::hex << index;
        EXPECT_FALSE(exits(index, true)) << std::hex << index;
    }
    EXPECT_FALSE(exits(0x277, false));
    for (u32 const index : {0xc000'0081U, 0xc000'0082U, 0xc000'0083U, 0xc000'0084U, 0xc000'0103U}) {
        EXPECT_FALSE(exits(index, false)) << std::hex << index;
        EXPECT_TRUE(exits(index, true)) << std::hex << index; // known, so that a switch need not read them
    }
    EXPECT_FALSE(exits(0x10, false));
    EXPECT_TRUE(exits(0x10, true));
}

TEST_F(Virtualized, RegistersOfTheGuestLeaveTheCpuWithIt) {
    run({});
    vcpu().write_hardware(vm::HardwareMsr::Lstar, 0x1234); // its writes exit
    EXPECT_EQ(cpu.peek_msr(lib::x86::IA32_LSTAR), 0x1234U);
    cpu.populate_msr(lib::x86::IA32_KERNEL_GS_BASE, 0xdef0);
    cpu.cr2 = 0x5678;
    cpu.dr[0] = 0x9abc;
    vcpu().unload();
    EXPECT_EQ(vcpu().read_hardware(vm::HardwareMsr::Lstar), 0x1234U);
    EXPECT_EQ(vcpu().read_hardware(vm::HardwareMsr::KernelGsBase), 0xdef0U);
    vcpu().write_hardware(vm::HardwareMsr::Star, 0x4321); // while it is not in the CPU
    EXPECT_EQ(cpu.peek_msr(lib::x86::IA32_STAR), 0U);
    cpu.populate_msr(lib::x86::IA32_KERNEL_GS_BASE, 0);
    cpu.cr2 = cpu.dr[0] = 0;
    run({});
    EXPECT_EQ(cpu.peek_msr(lib::x86::IA32_LSTAR), 0x1234U);
    EXPECT_EQ(cpu.peek_msr(lib::x86::IA32_STAR), 0x4321U);
    EXPECT_EQ(cpu.peek_msr(lib::x86::IA32_KERNEL_GS_BASE), 0xdef0U);
    EXPECT_EQ(cpu.cr2, 0x5678U);
    EXPECT_EQ(cpu.dr[0], 0x9abcU);
    EXPECT_FALSE(entries.back().is_launched); // VMCLEAR: launch again
}

// A VM that is made on a CPU, or whose registers are printed there, while another one's stay loaded.
TEST_F(Virtualized, ItsOwnVmcsIsEnteredAfterAnotherWasUsedOnItsCpu) {
    run({});
    auto other = vm::Vm::create({.name = "other", .memory = 4 * lib::MiB, .vcpu_count = 1}, *backend, platform);
    ASSERT_TRUE(other);
    (*other)->vcpu(0).set_rip(0xbad);
    run({});
    EXPECT_EQ(entries.back().rip, rip);
    (*other)->vcpu(0).set_rip(0xbad);
    (*other)->vcpu(0).unload();
    run({});
    EXPECT_EQ(entries.back().rip, rip);
    EXPECT_EQ(vm->state(), vm::VmState::Running) << vm->end_text();
}

TEST_F(Virtualized, ANewCpuFlushesWhatItMayRemember) {
    run({});
    vcpu().unload();
    cpu.vmx.invvpids.clear();
    run({});
    EXPECT_EQ(cpu.vmx.invvpids.size(), 0U); // it was here last
    for (lib::u32 const index : {1U, 0U}) {
        vcpu().unload();
        cpu.vmx.invvpids.clear();
        kernel::this_cpu().index = index;
        run({});
        run({});
        EXPECT_EQ(cpu.vmx.invvpids.size(), 1U) << "CPU " << index;
    }
}

TEST_F(Virtualized, WithoutSingleContextFlushAllAreFlushed) {
    vm->vcpu(0).unload();
    vm = {};
    backend->disable_on_this_cpu();
    auto msrs = skylake();
    msrs.ept_vpid &= ~(u64{1} << 41);
    populate(cpu, msrs);
    create();
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(cpu.vmx.invvpids.back().type, 2U);
}

} // namespace
} // namespace intel_machine
