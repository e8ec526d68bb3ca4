// SPDX-License-Identifier: MIT
#include <algorithm>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <span>
#include <vm/feature_words.hpp>
#include <vmx/capabilities.hpp>

namespace vmx {
namespace {

namespace x86 = lib::x86;

// [intel/vol3] appendix A
constexpr u32 IA32_VMX_BASIC = 0x480, IA32_VMX_PINBASED_CTLS = 0x481, IA32_VMX_PROCBASED_CTLS = 0x482,
              IA32_VMX_EXIT_CTLS = 0x483, IA32_VMX_ENTRY_CTLS = 0x484, IA32_VMX_MISC = 0x485,
              IA32_VMX_CR0_FIXED0 = 0x486, IA32_VMX_CR0_FIXED1 = 0x487, IA32_VMX_CR4_FIXED0 = 0x488,
              IA32_VMX_CR4_FIXED1 = 0x489, IA32_VMX_PROCBASED_CTLS2 = 0x48b, IA32_VMX_EPT_VPID_CAP = 0x48c;
constexpr u32 true_offset = 0x48d - IA32_VMX_PINBASED_CTLS; // IA32_VMX_TRUE_*, where VMX_BASIC[55] says they exist
constexpr u64 feature_control_locked = 1, feature_control_vmx = 4;

constexpr vm::FeatureWord<Disabled> words[] = {
    {"vpid", &Disabled::vpid},
    {"tpr-shadow", &Disabled::tpr_shadow},
    {"apic-registers", &Disabled::apic_register_virtualization},
    {"virtual-interrupts", &Disabled::virtual_interrupt_delivery},
    {"x2apic", &Disabled::x2apic_virtualization},
    {"posted-interrupts", &Disabled::posted_interrupts},
    {"preemption-timer", &Disabled::preemption_timer},
    {"large-pages", &Disabled::large_pages},
    {"xsaves", &Disabled::xsaves},
    {"invpcid", &Disabled::invpcid},
    {"tsc-scaling", &Disabled::tsc_scaling},
    {"pause-loop", &Disabled::pause_loop},
};

template <typename... Fields> constexpr u32 bits() { return (Fields::mask | ...); }

// A control that Mullion cannot do without, and what a CPU that lacks it cannot do.
struct Need {
    u32 bit;
    std::string_view what;
};

// Every CPU with EPT has these; only a hypervisor below, or a CPU model of an emulator, leaves them out.
constexpr std::string_view complete_vtx =
    "use a newer CPU; in a virtual machine, update or change the hypervisor below";

// adjust(), with the reason in words when a needed control is missing.
template <typename Controls>
std::expected<Controls, Refusal> negotiate_word(Controls wanted, std::span<Need const> needs, u64 capability) {
    for (Need const& need : needs) {
        if ((capability >> 32 & need.bit) == 0) return std::unexpected(Refusal{need.what, complete_vtx});
        wanted.raw |= need.bit;
    }
    return *adjust(wanted, Controls{}, capability);
}

constexpr Need cpu_needs[] = {
    {CpuControls::UseTscOffsetting::mask, "this CPU's VT-x cannot give guests their own TSC"},
    {CpuControls::HltExiting::mask, "this CPU's VT-x cannot stop a guest's HLT"},
    {CpuControls::MwaitExiting::mask, "this CPU's VT-x cannot stop a guest's MWAIT"},
    {CpuControls::RdpmcExiting::mask, "this CPU's VT-x cannot stop a guest's RDPMC"},
    {CpuControls::UnconditionalIoExiting::mask, "this CPU's VT-x cannot stop a guest's port I/O"},
    {CpuControls::UseMsrBitmaps::mask, "this CPU's VT-x has no MSR bitmaps"},
    {CpuControls::MonitorExiting::mask, "this CPU's VT-x cannot stop a guest's MONITOR"},
    {CpuControls::InterruptWindowExiting::mask, "this CPU's VT-x cannot tell when a guest takes interrupts"},
    {CpuControls::NmiWindowExiting::mask, "this CPU's VT-x cannot tell when a guest takes NMIs"},
};
constexpr Need pin_needs[] = {
    {PinControls::ExternalInterruptExiting::mask, "this CPU's VT-x cannot take interrupts out of a guest"},
    {PinControls::NmiExiting::mask, "this CPU's VT-x cannot take NMIs out of a guest"},
    {PinControls::VirtualNmis::mask, "this CPU's VT-x has no virtual NMIs"},
};
constexpr Need exit_needs[] = {
    {ExitControls::SaveDebugControls::mask, "this CPU's VT-x does not save a guest's DR7 on VM exit"},
    {ExitControls::HostAddressSpaceSize::mask, "this CPU's VT-x cannot exit to 64-bit mode"},
    {ExitControls::AcknowledgeInterrupt::mask, "this CPU's VT-x cannot acknowledge an interrupt on VM exit"},
    {ExitControls::SavePat::mask, "this CPU's VT-x does not save a guest's PAT on VM exit"},
    {ExitControls::LoadPat::mask, "this CPU's VT-x does not load PAT on VM exit"},
    {ExitControls::SaveEfer::mask, "this CPU's VT-x does not save a guest's EFER on VM exit"},
    {ExitControls::LoadEfer::mask, "this CPU's VT-x does not load EFER on VM exit"},
};
constexpr Need entry_needs[] = {
    {EntryControls::LoadDebugControls::mask, "this CPU's VT-x does not load a guest's DR7 on VM entry"},
    {EntryControls::LoadPat::mask, "this CPU's VT-x does not load a guest's PAT on VM entry"},
    {EntryControls::LoadEfer::mask, "this CPU's VT-x does not load a guest's EFER on VM entry"},
};

// Whether a large page may be executed: the CPU says that it is not affected, or is of a kind that never was.
// [intel/itlb-multihit]
bool has_itlb_multihit() {
    constexpr u32 arch_capabilities_bit = 29; // CPUID 7 EDX
    constexpr u64 if_pschange_mc_no = lib::bit(6);
    u64 capabilities = 0;
    if (x86::cpuid(0).eax >= 7 && (x86::cpuid(7).edx >> arch_capabilities_bit & 1) != 0 &&
        x86::rdmsr_safe(x86::IA32_ARCH_CAPABILITIES, capabilities) && (capabilities & if_pschange_mc_no) != 0)
        return false;
    // Atoms and Xeon Phis, of which the older ones do not have the bit.
    constexpr u8 unaffected[] = {0x1c, 0x26, 0x27, 0x35, 0x36, 0x37, 0x4a, 0x4c, 0x4d, 0x57,
                                 0x5a, 0x5c, 0x5d, 0x5f, 0x75, 0x7a, 0x85, 0x86, 0x96, 0x9c};
    u32 const signature = x86::cpuid(1).eax;
    u32 const model = (signature >> 4 & 0xf) | (signature >> 12 & 0xf0);
    return (signature >> 8 & 0xf) == 6 && std::ranges::find(unaffected, model) == std::end(unaffected);
}

std::expected<void, Refusal> check_presence() {
    if ((x86::cpuid(1).ecx >> 5 & 1) == 0)
        return std::unexpected(Refusal{"this Intel CPU has no VT-x, or it is hidden from this machine",
                                       "use a CPU with VT-x; in a virtual machine turn on nested virtualization"});
    u64 control = 0;
    if (!x86::rdmsr_safe(x86::IA32_FEATURE_CONTROL, control))
        return std::unexpected(Refusal{"VT-x is announced, but IA32_FEATURE_CONTROL cannot be read",
                                       "the virtual machine that this runs in is set up wrongly: update it"});
    if ((control & feature_control_locked) != 0 && (control & feature_control_vmx) == 0)
        return std::unexpected(Refusal{
            "VT-x is locked off by firmware",
            "enable it in the firmware setup (often called Intel Virtualization Technology), then power-cycle"});
    return {};
}

void choose_apic_features(Capabilities& c, Disabled const& disabled) {
    using C = CpuControls;
    using C2 = CpuControls2;
    // Each needs the one before. [intel/vol3] 27.2.1.1
    bool const tpr = c.cpu.get<C::UseTprShadow>() && !disabled.tpr_shadow;
    c.cpu.set<C::UseTprShadow>(tpr);
    c.cpu.set<C::Cr8LoadExiting>(!tpr);
    c.cpu.set<C::Cr8StoreExiting>(!tpr);
    if (!tpr) c.cpu2.raw &= ~bits<C2::VirtualizeApicAccesses>();
    if (!tpr || disabled.x2apic_virtualization) c.cpu2.set<C2::VirtualizeX2apicMode>(false);
    if (!tpr || disabled.apic_register_virtualization) c.cpu2.set<C2::ApicRegisterVirtualization>(false);
    // Delivery is used only where both APIC modes can have it: a guest may use either.
    bool const delivery = c.cpu2.get<C2::VirtualInterruptDelivery>() && c.cpu2.get<C2::ApicRegisterVirtualization>() &&
                          c.cpu2.get<C2::VirtualizeApicAccesses>() && c.cpu2.get<C2::VirtualizeX2apicMode>() &&
                          !disabled.virtual_interrupt_delivery;
    c.cpu2.set<C2::VirtualInterruptDelivery>(delivery);
    if (!delivery || disabled.posted_interrupts) c.pin.set<PinControls::ProcessPostedInterrupts>(false);
}

std::expected<void, Refusal> negotiate(Capabilities& c, Disabled const& disabled) {
    using C = CpuControls;
    using C2 = CpuControls2;
    u32 const base = c.basic.get<BasicInfo::TrueControls>() ? true_offset : 0;
    auto const capability = [](u32 index) { return x86::rdmsr(index); };
    u64 const cpu_capability = capability(IA32_VMX_PROCBASED_CTLS + base);
    if ((cpu_capability >> 32 & C::ActivateSecondaryControls::mask) == 0)
        return std::unexpected(Refusal{"this CPU's VT-x has no EPT", "use a CPU with EPT (Nehalem or newer)"});
    c.cpu = TRY(negotiate_word(CpuControls{{bits<C::UseTprShadow, C::PauseExiting, C::ActivateSecondaryControls>()}},
                               cpu_needs, cpu_capability));
    // Without the TRUE controls CR3 accesses must exit. [intel/vol3] A.2
    c.cpu.raw &=
        ~bits<C::InterruptWindowExiting, C::NmiWindowExiting, C::PauseExiting, C::Cr3LoadExiting, C::Cr3StoreExiting>();
    c.cpu.raw |= static_cast<u32>(cpu_capability);

    auto const cpu2 = adjust(
        CpuControls2{{bits<C2::EnableRdtscp, C2::EnableVpid, C2::VirtualizeApicAccesses, C2::VirtualizeX2apicMode,
                           C2::ApicRegisterVirtualization, C2::VirtualInterruptDelivery, C2::EnableInvpcid,
                           C2::EnableXsaves, C2::WbinvdExiting, C2::PauseLoopExiting, C2::UseTscScaling>()}},
        CpuControls2{}, capability(IA32_VMX_PROCBASED_CTLS2));
    c.cpu2 = *cpu2;
    u64 const may2 = capability(IA32_VMX_PROCBASED_CTLS2) >> 32;
    if ((may2 & C2::EnableEpt::mask) == 0)
        return std::unexpected(Refusal{"this CPU's VT-x has no EPT", "use a CPU with EPT (Nehalem or newer)"});
    if ((may2 & C2::UnrestrictedGuest::mask) == 0)
        return std::unexpected(
            Refusal{"this CPU's VT-x has no unrestricted guest mode", "use a CPU with it (Westmere or newer)"});
    c.cpu2.raw |= bits<C2::EnableEpt, C2::UnrestrictedGuest>();
    c.ept_vpid.raw = x86::rdmsr(IA32_VMX_EPT_VPID_CAP);
    if (!c.ept_vpid.get<EptVpidCapabilities::WalkLength4>() || !c.ept_vpid.get<EptVpidCapabilities::WriteBack>())
        return std::unexpected(Refusal{"this CPU's EPT has no write-back tables of four levels", complete_vtx});
    if (!c.ept_vpid.get<EptVpidCapabilities::Invept>() || !c.ept_vpid.get<EptVpidCapabilities::InveptAll>())
        return std::unexpected(Refusal{"this CPU's EPT has no INVEPT for all contexts", complete_vtx});

    c.pin = TRY(negotiate_word(
        PinControls{{bits<PinControls::ActivatePreemptionTimer, PinControls::ProcessPostedInterrupts>()}}, pin_needs,
        capability(IA32_VMX_PINBASED_CTLS + base)));
    c.exit = TRY(negotiate_word(ExitControls{}, exit_needs, capability(IA32_VMX_EXIT_CTLS + base)));
    c.entry = TRY(negotiate_word(EntryControls{}, entry_needs, capability(IA32_VMX_ENTRY_CTLS + base)));

    choose_apic_features(c, disabled);
    c.has_preemption_timer_ = c.pin.get<PinControls::ActivatePreemptionTimer>() && !disabled.preemption_timer;
    c.pin.set<PinControls::ActivatePreemptionTimer>(false); // on only while a guest timer runs
    if (disabled.vpid || !c.ept_vpid.get<EptVpidCapabilities::Invvpid>() ||
        !c.ept_vpid.get<EptVpidCapabilities::InvvpidAll>())
        c.cpu2.set<C2::EnableVpid>(false);
    if (disabled.xsaves) c.cpu2.set<C2::EnableXsaves>(false);
    if (disabled.pause_loop) c.cpu2.set<C2::PauseLoopExiting>(false);
    if (disabled.invpcid) c.cpu2.set<C2::EnableInvpcid>(false);
    if (disabled.tsc_scaling) c.cpu2.set<C2::UseTscScaling>(false);
    if (disabled.large_pages) {
        c.ept_vpid.set<EptVpidCapabilities::Pages1g>(false);
        c.ept_vpid.set<EptVpidCapabilities::Pages2m>(false);
    }
    return {};
}

} // namespace

bool Disabled::parse(std::string_view text) { return vm::set_features(*this, words, text); }
std::string_view Disabled::known_words() {
    auto const& text = vm::feature_text<words>;
    return {text.begin(), text.size()};
}

std::expected<Capabilities, Refusal> read_capabilities(Disabled const& disabled) {
    TRY(check_presence());
    Capabilities c{};
    c.basic.raw = x86::rdmsr(IA32_VMX_BASIC);
    c.cr0_fixed0 = x86::rdmsr(IA32_VMX_CR0_FIXED0);
    c.cr0_fixed1 = x86::rdmsr(IA32_VMX_CR0_FIXED1);
    c.cr4_fixed0 = x86::rdmsr(IA32_VMX_CR4_FIXED0);
    c.cr4_fixed1 = x86::rdmsr(IA32_VMX_CR4_FIXED1);
    c.preemption_timer_shift = static_cast<u8>(x86::rdmsr(IA32_VMX_MISC) & 0x1f);
    c.has_itlb_multihit = has_itlb_multihit();
    TRY(negotiate(c, disabled));
    return c;
}

void Capabilities::describe(lib::TextSink& sink) const {
    auto const word = [&](bool used, std::string_view name) {
        if (used) lib::format(sink, " {}", name);
    };
    lib::format(sink, "EPT, unrestricted guest; optional:");
    word(has_vpid(), "VPID");
    word(has_tpr_shadow(), "TPR-shadow");
    word(has_apic_accesses(), "APIC-accesses");
    word(has_x2apic_mode(), "x2APIC-mode");
    word(has_register_virtualization(), "APIC-registers");
    word(has_interrupt_delivery(), "virtual-interrupts");
    word(has_posted_interrupts(), "posted-interrupts");
    word(has_preemption_timer(), "preemption-timer");
    word(ept_vpid.get<EptVpidCapabilities::Pages2m>(), "2M-pages");
    word(has_pages_1g(), "1G-pages");
    word(cpu2.get<CpuControls2::EnableXsaves>(), "XSAVES");
    word(cpu2.get<CpuControls2::EnableInvpcid>(), "INVPCID");
    word(cpu2.get<CpuControls2::EnableRdtscp>(), "RDTSCP");
    word(has_tsc_scaling(), "TSC-scaling");
    word(has_pause_loop_exiting(), "PAUSE-loops");
    if (has_itlb_multihit) lib::format(sink, "; iTLB multihit: code is mapped in 4K-pages");
}

} // namespace vmx
