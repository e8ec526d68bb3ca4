// SPDX-License-Identifier: MIT
// Interrupts that the CPU delivers by itself: virtual-interrupt delivery, and posted interrupts.
#include "vmx/vcpu_entry_fixture.hpp"

namespace intel_machine {
namespace {

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

} // namespace
} // namespace intel_machine
