#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
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

struct Word {
    std::string_view name;
    bool Disabled::* flag;
};
constexpr Word words[] = {
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
    constexpr Refusal old_cpu{"this CPU's VT-x lacks controls that every CPU with EPT has",
                              "use a newer CPU, or update the virtual machine"};

    auto const cpu =
        adjust(CpuControls{{bits<C::UseTprShadow, C::PauseExiting>()}},
               CpuControls{{bits<C::UseTscOffsetting, C::HltExiting, C::MwaitExiting, C::RdpmcExiting,
                                 C::UnconditionalIoExiting, C::UseMsrBitmaps, C::MonitorExiting,
                                 C::InterruptWindowExiting, C::NmiWindowExiting, C::ActivateSecondaryControls>()}},
               capability(IA32_VMX_PROCBASED_CTLS + base));
    if (!cpu) return std::unexpected(Refusal{"this CPU's VT-x has no EPT", "use a CPU with EPT (Nehalem or newer)"});
    c.cpu = *cpu;
    // Without the TRUE controls CR3 accesses must exit. [intel/vol3] A.2
    c.cpu.raw &=
        ~bits<C::InterruptWindowExiting, C::NmiWindowExiting, C::PauseExiting, C::Cr3LoadExiting, C::Cr3StoreExiting>();
    c.cpu.raw |= static_cast<u32>(capability(IA32_VMX_PROCBASED_CTLS + base));

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
    if (!c.ept_vpid.get<EptVpidCapabilities::WalkLength4>() || !c.ept_vpid.get<EptVpidCapabilities::WriteBack>() ||
        !c.ept_vpid.get<EptVpidCapabilities::Invept>() || !c.ept_vpid.get<EptVpidCapabilities::InveptAll>())
        return std::unexpected(old_cpu);

    auto const pin = adjust(
        PinControls{{bits<PinControls::ActivatePreemptionTimer, PinControls::ProcessPostedInterrupts>()}},
        PinControls{{bits<PinControls::ExternalInterruptExiting, PinControls::NmiExiting, PinControls::VirtualNmis>()}},
        capability(IA32_VMX_PINBASED_CTLS + base));
    if (!pin) return std::unexpected(old_cpu);
    c.pin = *pin;
    using X = ExitControls;
    auto const exit = adjust(ExitControls{},
                             ExitControls{{bits<X::SaveDebugControls, X::HostAddressSpaceSize, X::AcknowledgeInterrupt,
                                                X::SavePat, X::LoadPat, X::SaveEfer, X::LoadEfer>()}},
                             capability(IA32_VMX_EXIT_CTLS + base));
    using E = EntryControls;
    auto const entry = adjust(EntryControls{}, EntryControls{{bits<E::LoadDebugControls, E::LoadPat, E::LoadEfer>()}},
                              capability(IA32_VMX_ENTRY_CTLS + base));
    if (!exit || !entry) return std::unexpected(old_cpu);
    c.exit = *exit;
    c.entry = *entry;

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

bool Disabled::parse(std::string_view text) {
    while (!text.empty()) {
        auto const comma = std::min(text.find(','), text.size());
        auto const word = text.substr(0, comma);
        text.remove_prefix(std::min(comma + 1, text.size()));
        bool found = false;
        for (Word const& known : words) {
            if (known.name != word && word != "all") continue;
            this->*known.flag = true;
            found = true;
        }
        if (!found) return false;
    }
    return true;
}

std::string_view Disabled::known_words() {
    return "vpid, tpr-shadow, apic-registers, virtual-interrupts, x2apic, posted-interrupts, preemption-timer, "
           "large-pages, "
           "xsaves, invpcid, tsc-scaling, pause-loop, all";
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
}

} // namespace vmx
