// SPDX-License-Identifier: MIT
#pragma once
// What this CPU's VT-x can do, negotiated once: the control words that every VMCS starts from.
#include <lib/format.hpp>
#include <lib/result.hpp>
#include <vm/backend.hpp>
#include <vmx/controls.hpp>

namespace vmx {

using vm::Refusal;

// Optional features to leave alone although the CPU has them: for tests and for finding faults.
struct Disabled {
    bool vpid = false, tpr_shadow = false, apic_register_virtualization = false, virtual_interrupt_delivery = false,
         x2apic_virtualization = false, posted_interrupts = false, preemption_timer = false, large_pages = false,
         xsaves = false, invpcid = false, tsc_scaling = false, pause_loop = false;
    // Words of the option vmx-disable=..., comma-separated. False at an unknown one.
    bool parse(std::string_view words);
    static std::string_view known_words();
};

struct Capabilities {
    BasicInfo basic;
    EptVpidCapabilities ept_vpid;
    PinControls pin;
    CpuControls cpu;
    CpuControls2 cpu2;
    ExitControls exit;
    EntryControls entry;
    u64 cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    u8 preemption_timer_shift;
    // A guest can stop the whole machine by a fetch from a large page whose size changes at that moment
    // (CVE-2018-12207): what it executes is mapped in pages of 4 KiB.
    bool has_itlb_multihit;
    friend bool operator==(Capabilities const&, Capabilities const&) = default;

    bool has_vpid() const { return cpu2.get<CpuControls2::EnableVpid>(); }
    bool has_pause_loop_exiting() const { return cpu2.get<CpuControls2::PauseLoopExiting>(); }
    bool has_tpr_shadow() const { return cpu.get<CpuControls::UseTprShadow>(); }
    bool has_apic_accesses() const { return cpu2.get<CpuControls2::VirtualizeApicAccesses>(); }
    bool has_x2apic_mode() const { return cpu2.get<CpuControls2::VirtualizeX2apicMode>(); }
    bool has_register_virtualization() const { return cpu2.get<CpuControls2::ApicRegisterVirtualization>(); }
    bool has_interrupt_delivery() const { return cpu2.get<CpuControls2::VirtualInterruptDelivery>(); }
    bool has_posted_interrupts() const { return pin.get<PinControls::ProcessPostedInterrupts>(); }
    bool has_preemption_timer() const { return has_preemption_timer_; }
    bool has_tsc_scaling() const { return cpu2.get<CpuControls2::UseTscScaling>(); }
    bool has_pages_1g() const { return ept_vpid.get<EptVpidCapabilities::Pages1g>(); }

    void describe(lib::TextSink& sink) const;
    bool has_preemption_timer_ = false;
};

// Reads CPUID and the capability MSRs of the calling CPU.
std::expected<Capabilities, Refusal> read_capabilities(Disabled const& disabled);

} // namespace vmx
