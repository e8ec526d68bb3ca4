// SPDX-License-Identifier: MIT
#include "vmx/machine.hpp"

namespace intel_machine {
namespace {

namespace field = vmx::field;
namespace reason = vmx::reason;
namespace request = vm::request;
using vm::TriggerMode;
using vmx::CpuControls;
using vmx::CpuControls2;

constexpr u64 rip = 0x10'0000;

class VcpuEntry : public VmxMachine {
protected:
    void start(char const* disabled_words) {
        vmx::Disabled disabled;
        ASSERT_TRUE(disabled.parse(disabled_words));
        create(disabled);
        if (HasFatalFailure()) return;
        settle();
    }
    bool has_interrupt_window() const {
        return CpuControls::InterruptWindowExiting::get(static_cast<u32>(field(field::CPU_CONTROLS)));
    }
    bool has_nmi_window() const {
        return CpuControls::NmiWindowExiting::get(static_cast<u32>(field(field::CPU_CONTROLS)));
    }
    void interrupt(u8 vector, TriggerMode trigger = TriggerMode::Edge) { vcpu().post_interrupt(vector, trigger); }
    void enter_x2apic() { ASSERT_EQ(vcpu().write_apic_base(0xfee0'0d00), vm::MsrResult::Done); }
};

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

// --- with it

class Virtualized : public VcpuEntry {
protected:
    void SetUp() override { start(""); }
    u16 status() const { return static_cast<u16>(field(field::GUEST_INTERRUPT_STATUS)); }
};

TEST_F(Virtualized, InterruptsBecomeRequestsToTheCpu) {
    interrupt(0x31);
    interrupt(0x52);
    run({});
    EXPECT_EQ(injected(0), 0U);
    EXPECT_EQ(status() & 0xff, 0x52);
    EXPECT_TRUE(vcpu().apic().page().test(vm::apic_reg::IRR, 0x31));
    EXPECT_FALSE(has_interrupt_window());
}

TEST_F(Virtualized, EnteringTheModeKeepsWhatIsInService) {
    vcpu().apic().page().set(vm::apic_reg::ISR, 0x61);
    vcpu().post(request::apic_mode);
    run({});
    EXPECT_EQ(status() >> 8, 0x61);
}

TEST_F(Virtualized, InitEndsWhatIsInServiceForTheCpuToo) {
    vcpu().apic().page().set(vm::apic_reg::ISR, 0xf8);
    vcpu().post(request::apic_mode);
    run({});
    vcpu().post(request::init);
    run({});
    EXPECT_EQ(status(), 0U); // else the CPU keeps all lower vectors back for ever
}

TEST_F(Virtualized, TheEoiBitmapIsThePlatforms) {
    platform.eois = {1, 2, 3, 4};
    vcpu().post(request::eoi_bitmap);
    run({});
    EXPECT_EQ(field(field::EOI_EXIT_BITMAP_0), 1U);
    EXPECT_EQ(field(field::EOI_EXIT_BITMAP_1), 2U);
    EXPECT_EQ(field(field::EOI_EXIT_BITMAP_2), 3U);
    EXPECT_EQ(field(field::EOI_EXIT_BITMAP_3), 4U);
}

TEST_F(Virtualized, AnEoiExitReachesThePlatformForLevelOnly) {
    interrupt(0x31, TriggerMode::Level);
    interrupt(0x32);
    run({{reason::virtualized_eoi, 0x31, 5}, {reason::virtualized_eoi, 0x32, 5}});
    EXPECT_EQ(platform.ended, (std::vector<u8>{0x31}));
    EXPECT_EQ(entries.back().rip, rip); // trap-like: the instruction is done
}

TEST_F(Virtualized, ApicWritesTakeEffectBehindTheInstruction) {
    vcpu().apic().page()[vm::apic_reg::ICR_LOW] = 0x0004'0033; // self, vector 33h
    run({{reason::apic_write, vm::apic_reg::ICR_LOW, 5}});
    EXPECT_EQ(entries.back().rip, rip);
    EXPECT_EQ(status() & 0xff, 0x33);
}

TEST_F(Virtualized, HaltWakesByPriority) {
    EXPECT_EQ(run({{reason::hlt, 0, 1}}), kernel::RunResult::Sleep);
    vcpu().apic().page()[vm::apic_reg::TPR] = 0x40;
    interrupt(0x31);
    EXPECT_EQ(run({}), kernel::RunResult::Sleep);
    interrupt(0x52);
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(entries.back().rip, rip + 1);
}

TEST_F(Virtualized, HaltWakesByWhatTheCpuHasInServiceNow) {
    vcpu().apic().page().set(vm::apic_reg::ISR, 0x61); // when the mode began
    vcpu().post(request::apic_mode);
    run({});
    vcpu().apic().page().clear(vm::apic_reg::ISR, 0x61); // a virtualized EOI
    EXPECT_EQ(run({{reason::hlt, 0, 1}}), kernel::RunResult::Sleep);
    interrupt(0x31);
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    vcpu().apic().page().clear(vm::apic_reg::IRR, 0x31);
    vcpu().apic().page().set(vm::apic_reg::ISR, 0x71); // a virtualized delivery
    EXPECT_EQ(run({{reason::hlt, 0, 1}}), kernel::RunResult::Sleep);
    interrupt(0x42);
    EXPECT_EQ(run({}), kernel::RunResult::Sleep);
}

TEST_F(Virtualized, ControlsFollowTheModeOfTheApic) {
    auto const bits = [&] { return static_cast<u32>(field(field::CPU_CONTROLS2)); };
    EXPECT_TRUE(CpuControls2::VirtualizeApicAccesses::get(bits()));
    EXPECT_FALSE(CpuControls2::VirtualizeX2apicMode::get(bits()));
    EXPECT_NE(field(field::APIC_ACCESS_ADDRESS), 0U);
    enter_x2apic();
    run({});
    EXPECT_FALSE(CpuControls2::VirtualizeApicAccesses::get(bits()));
    EXPECT_TRUE(CpuControls2::VirtualizeX2apicMode::get(bits()));
    EXPECT_TRUE(CpuControls2::VirtualInterruptDelivery::get(bits()));
    auto const* const bitmap = kernel::phys_to_virt<u8>(lib::HostPhys{field(field::MSR_BITMAP)});
    auto const exits = [&](u32 index, bool write) {
        return (bitmap[index / 8 + (write ? 2048 : 0)] >> index % 8 & 1) != 0;
    };
    EXPECT_FALSE(exits(0x808, false) || exits(0x808, true) || exits(0x80b, true) ||
                 exits(0x83f, true));                                              // TPR, EOI, SELF_IPI
    EXPECT_TRUE(exits(0x830, true) && exits(0x839, false) && exits(0x80b, false)); // ICR, current count, EOI
    ASSERT_EQ(vcpu().write_apic_base(0xfee0'0100), vm::MsrResult::Done);           // off
    run({});
    EXPECT_FALSE(CpuControls2::VirtualizeX2apicMode::get(bits()) ||
                 CpuControls2::VirtualInterruptDelivery::get(bits()));
    for (u32 index = 0x800; index < 0x900; index++)
        EXPECT_TRUE(exits(index, false) && exits(index, true)) << std::hex << index;
}

// --- and posted interrupts

class Posted : public Virtualized {
protected:
    vm::PendingInterrupts& descriptor() {
        return *kernel::phys_to_virt<vm::PendingInterrupts>(lib::HostPhys{field(field::POSTED_INTERRUPT_DESCRIPTOR)});
    }
    bool is_in_descriptor(u8 vector) { return (descriptor().bits[vector / 64].load() >> vector % 64 & 1) != 0; }
    // Posted by another CPU while the guest runs; the vectors of the IPIs that went out.
    std::vector<u8> post_from_elsewhere(std::initializer_list<std::pair<u8, TriggerMode>> interrupts,
                                        std::function<void()> afterwards = {}) {
        std::vector<u8> sent;
        run({{reason::cpuid, 0, 2, [&] {
                  cpu.msr_writes.clear();
                  kernel::this_cpu().index = 1;
                  for (auto const& [vector, trigger] : interrupts)
                      interrupt(vector, trigger);
                  kernel::this_cpu().index = 0;
                  constexpr u32 icr = 0x830;
                  for (auto const& write : cpu.msr_writes)
                      if (write.index == icr) sent.push_back(static_cast<u8>(write.value));
                  if (afterwards) afterwards();
              }}});
        return sent;
    }
    // What the CPU does with a notification while the guest runs. [intel/vol3] 30.6
    void take_as_the_cpu_does() {
        descriptor().begin_take();
        for (u32 word = 0; word < 4; word++) {
            u64 const taken = descriptor().take(word);
            for (u32 bit = 0; bit < 64; bit++)
                if ((taken >> bit & 1) != 0)
                    vcpu().apic().page().set(vm::apic_reg::IRR, static_cast<u8>(word * 64 + bit));
        }
    }
};

TEST_F(Posted, TheDescriptorHasAPageOfItsOwn) {
    u64 const at = field(field::POSTED_INTERRUPT_DESCRIPTOR);
    EXPECT_NE(at, 0U);
    EXPECT_EQ(at % lib::page_size, 0U);
    EXPECT_EQ(field(field::POSTED_INTERRUPT_VECTOR), u64{kernel::vectors::notify});
    EXPECT_TRUE(vmx::PinControls::ProcessPostedInterrupts::get(static_cast<u32>(field(field::PIN_CONTROLS))));
}

TEST_F(Posted, EdgesAreLeftToTheCpuThatRunsTheGuest) {
    auto const sent = post_from_elsewhere({{0x31, TriggerMode::Edge}, {0x52, TriggerMode::Edge}}, [&] {
        EXPECT_TRUE(is_in_descriptor(0x31) && is_in_descriptor(0x52));
        EXPECT_FALSE(descriptor().is_empty());
        take_as_the_cpu_does();
    });
    EXPECT_EQ(sent, std::vector<u8>{kernel::vectors::notify}) << "one notification for both";
}

TEST_F(Posted, WhatTheCpuDidNotTakeIsTakenByTheNextLook) {
    post_from_elsewhere({{0x31, TriggerMode::Edge}}); // that run ends by a request
    EXPECT_FALSE(is_in_descriptor(0x31));
    EXPECT_EQ(status() & 0xff, 0x31);
}

TEST_F(Posted, ALevelTriggeredOneGetsItsEoi) {
    // An edge's notification is on its way: the CPU takes whatever the descriptor holds when it arrives.
    auto const sent = post_from_elsewhere({{0x31, TriggerMode::Edge}, {0x52, TriggerMode::Level}}, [&] {
        EXPECT_FALSE(is_in_descriptor(0x52)) << "the CPU would take it without TMR";
        take_as_the_cpu_does();
    });
    EXPECT_EQ(sent, (std::vector<u8>{kernel::vectors::notify, kernel::vectors::kick}))
        << "its vCPU is made to look, although a notification is outstanding";
    EXPECT_TRUE(vcpu().apic().page().test(vm::apic_reg::IRR, 0x52));
    EXPECT_TRUE(vcpu().apic().page().test(vm::apic_reg::TMR, 0x52));
    run({{reason::virtualized_eoi, 0x52, 5}, {reason::virtualized_eoi, 0x31, 5}});
    EXPECT_EQ(platform.ended, (std::vector<u8>{0x52}));
}

TEST_F(Posted, AVectorThatIsPostedBothWaysKeepsItsEoi) {
    post_from_elsewhere({{0x52, TriggerMode::Level}, {0x52, TriggerMode::Edge}});
    run({});
    EXPECT_TRUE(vcpu().apic().page().test(vm::apic_reg::TMR, 0x52));
}

TEST_F(Posted, ASleepingVcpuIsWoken) {
    EXPECT_EQ(run({{reason::hlt, 0, 1}}), kernel::RunResult::Sleep);
    EXPECT_FALSE(vcpu().has_wake_event());
    interrupt(0x31);
    EXPECT_TRUE(vcpu().has_wake_event());
    EXPECT_EQ(run({}), kernel::RunResult::Work);
    EXPECT_EQ(vcpu().activity(), vm::Activity::Running);
    // A notification that arrives when the vCPU has just left for its sleep.
    vcpu().apic().page().clear(vm::apic_reg::IRR, 0x31);
    EXPECT_EQ(run({{reason::hlt, 0, 1}}), kernel::RunResult::Sleep);
    descriptor().post(0x52, TriggerMode::Edge);
    EXPECT_TRUE(vcpu().has_wake_event());
    EXPECT_EQ(run({}), kernel::RunResult::Work);
}

TEST_F(Posted, ANotificationThatTheCpuDoesNotTakeIsNotLost) {
    ASSERT_EQ(vcpu().write_apic_base(0xfee0'0100), vm::MsrResult::Done); // off
    ASSERT_EQ(vcpu().write_apic_base(0xfee0'0900), vm::MsrResult::Done);
    run({});
    vcpu().apic().mmio_write(vm::apic_reg::SVR, 4, 0x1ff);
    run({{reason::external_interrupt, 0, 0, [&] {
              descriptor().post(0x31, TriggerMode::Edge);
              poke(field::EXIT_INTERRUPTION_INFO, event(kernel::vectors::notify, 0));
          }}});
    EXPECT_EQ(status() & 0xff, 0x31);
}

TEST_F(Posted, InitForgetsWhatWasPosted) {
    descriptor().post(0x31, TriggerMode::Edge);
    vcpu().signal_init();
    run({});
    EXPECT_FALSE(is_in_descriptor(0x31));
    EXPECT_EQ(vcpu().apic().highest_irr(), -1);
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
