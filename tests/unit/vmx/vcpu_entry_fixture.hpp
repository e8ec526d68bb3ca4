// SPDX-License-Identifier: MIT
#pragma once
// One vCPU on the machine of the fakes, and what its next entry does; with virtual-interrupt delivery or without.
#include "vmx/machine.hpp"

namespace intel_machine {

namespace field = vmx::field;
namespace reason = vmx::reason;
namespace request = vm::request;
using vm::TriggerMode;
using vmx::CpuControls;
using vmx::CpuControls2;

inline constexpr u64 rip = 0x10'0000;

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

class Virtualized : public VcpuEntry {
protected:
    void SetUp() override { start(""); }
    u16 status() const { return static_cast<u16>(field(field::GUEST_INTERRUPT_STATUS)); }
};

} // namespace intel_machine
