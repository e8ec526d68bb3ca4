// SPDX-License-Identifier: MIT
#include <array>
#include <lib/x86/registers.hpp>
#include <vmx/exit_reason.hpp>
#include <vmx/state_check.hpp>

namespace vmx {

namespace x86 = lib::x86;

namespace detail {

GuestStateView view(Loaded const& vmcs, EntryControls entry) {
    return {.cr0 = vmcs.read(field::GUEST_CR0),
            .cr4 = vmcs.read(field::GUEST_CR4),
            .efer = vmcs.read(field::GUEST_EFER),
            .rflags = vmcs.read(field::GUEST_RFLAGS),
            .rip = vmcs.read(field::GUEST_RIP),
            .dr7 = vmcs.read(field::GUEST_DR7),
            .debugctl = vmcs.read(field::GUEST_DEBUGCTL),
            .pending_debug = vmcs.read(field::GUEST_PENDING_DEBUG),
            .cs_rights = vmcs.read(field::GUEST_CS_RIGHTS),
            .ss_rights = vmcs.read(field::GUEST_SS_RIGHTS),
            .tr_rights = vmcs.read(field::GUEST_TR_RIGHTS),
            .ldtr_rights = vmcs.read(field::GUEST_LDTR_RIGHTS),
            .interruptibility = vmcs.read(field::GUEST_INTERRUPTIBILITY),
            .entry_info = vmcs.read(field::ENTRY_INTERRUPTION_INFO),
            .activity = vmcs.read(field::GUEST_ACTIVITY_STATE),
            .long_mode = entry.get<EntryControls::Ia32eModeGuest>()};
}

std::size_t violated_rules(GuestStateView const& s, std::span<std::string_view> rules) {
    std::size_t count = 0;
    auto const check = [&](bool holds, std::string_view rule) {
        if (!holds && count < rules.size()) rules[count++] = rule;
    };
    constexpr u32 usable_busy_tss_16 = 0x83, usable_busy_tss_64 = 0x8b, unusable = 1U << 16;
    bool const paging = (s.cr0 & x86::Cr0::PG::mask) != 0;
    bool const is_64_code = (s.cs_rights & 0x2000) != 0;
    check(!paging || (s.cr0 & x86::Cr0::PE::mask) != 0, "CR0.PG without CR0.PE");
    check(!s.long_mode || (paging && (s.cr4 & x86::Cr4::PAE::mask) != 0), "IA-32e mode without CR0.PG and CR4.PAE");
    check(s.long_mode || (s.cr4 & x86::Cr4::PCIDE::mask) == 0, "CR4.PCIDE outside of IA-32e mode");
    check(((s.efer & x86::Efer::LMA::mask) != 0) == s.long_mode, "EFER.LMA differs from IA-32e mode guest");
    check(!paging || ((s.efer & x86::Efer::LMA::mask) != 0) == ((s.efer & x86::Efer::LME::mask) != 0),
          "EFER.LMA differs from EFER.LME under paging");
    check((s.cr4 & x86::Cr4::VMXE::mask) != 0, "CR4.VMXE is clear");
    check((s.rflags & 2) != 0 && (s.rflags & 0xffff'ffff'ffc0'8028) == 0, "reserved bits of RFLAGS");
    check(!s.long_mode || (s.rflags & x86::Rflags::VM::mask) == 0, "RFLAGS.VM in IA-32e mode");
    check((s.entry_info.raw & 0x8000'0700) != 0x8000'0000 || (s.rflags & x86::Rflags::IF::mask) != 0,
          "external interrupt with RFLAGS.IF clear");
    check(s.dr7 >> 32 == 0, "upper half of DR7");
    check((s.cs_rights & 0x10000) == 0 && (s.cs_rights & 0x90) == 0x90, "CS is not a usable, present segment");
    check(!(is_64_code && (s.cs_rights & 0x4000) != 0), "CS.L and CS.D both set");
    check((s.tr_rights & unusable) == 0, "TR is unusable");
    constexpr u32 all_but_dpl = 0x9f;
    u32 const task = s.tr_rights & all_but_dpl;
    check(task == usable_busy_tss_64 || (!s.long_mode && task == usable_busy_tss_16), "TR is not a busy TSS");
    check((s.ldtr_rights & unusable) != 0 || (s.ldtr_rights & all_but_dpl) == 0x82, "LDTR is not an LDT");
    check((s.long_mode && is_64_code) || s.rip >> 32 == 0, "RIP above 4 GiB outside of 64-bit mode");
    check(s.interruptibility.raw >> 5 == 0 && (s.interruptibility.raw & 3) != 3, "interruptibility state");
    check(!s.interruptibility.get<Interruptibility::BlockingBySti>() || (s.rflags & x86::Rflags::IF::mask) != 0,
          "STI blocking with RFLAGS.IF clear");
    bool const single_steps = (s.rflags & x86::Rflags::TF::mask) != 0 && (s.debugctl & 2) == 0;
    check((s.interruptibility.raw & Interruptibility::shadow) == 0 ||
              s.pending_debug.get<PendingDebug::SingleStep>() == single_steps,
          "pending single step differs from RFLAGS.TF in a shadow");
    check(s.activity <= 3, "activity state");
    return count;
}

} // namespace detail

std::string_view instruction_error_name(u32 error) {
    // [intel/vol3] 31.4
    constexpr std::array<std::string_view, 29> names{"no error",
                                                     "VMCALL in VMX root operation",
                                                     "VMCLEAR with invalid address",
                                                     "VMCLEAR with VMXON pointer",
                                                     "VMLAUNCH with non-clear VMCS",
                                                     "VMRESUME with non-launched VMCS",
                                                     "VMRESUME after VMXOFF",
                                                     "entry with invalid control fields",
                                                     "entry with invalid host-state fields",
                                                     "VMPTRLD with invalid address",
                                                     "VMPTRLD with VMXON pointer",
                                                     "VMPTRLD with wrong revision",
                                                     "access to an unsupported VMCS field",
                                                     "write to a read-only VMCS field",
                                                     "",
                                                     "VMXON in VMX root operation",
                                                     "",
                                                     "",
                                                     "",
                                                     "",
                                                     "",
                                                     "",
                                                     "",
                                                     "",
                                                     "",
                                                     "",
                                                     "entry with events blocked by MOV SS",
                                                     "",
                                                     "invalid operand to INVEPT or INVVPID"};
    return error < names.size() ? names[error] : std::string_view{"?"};
}

void print_vmcs(Loaded const& vmcs, lib::TextSink& sink) {
    // Without the control there may be no such field, and VMREAD of it fails.
    bool const has_vpid = vmcs.read(field::CPU_CONTROLS2).get<CpuControls2::EnableVpid>();
    lib::format(sink, "controls: pin {:#x} cpu {:#x} cpu2 {:#x} exit {:#x} entry {:#x} exceptions {:#x}\n",
                vmcs.read(field::PIN_CONTROLS).raw, vmcs.read(field::CPU_CONTROLS).raw,
                vmcs.read(field::CPU_CONTROLS2).raw, vmcs.read(field::EXIT_CONTROLS).raw,
                vmcs.read(field::ENTRY_CONTROLS).raw, vmcs.read(field::EXCEPTION_BITMAP));
    auto const reason = vmcs.read(field::EXIT_REASON);
    lib::format(sink,
                "exit: {:#x} ({}) qualification {:#x} linear {:#x} physical {:#x} interruption {:#x} vectoring {:#x}\n",
                reason.raw, reason::name(reason.get<ExitReasonField::Basic>()), vmcs.read(field::EXIT_QUALIFICATION),
                vmcs.read(field::GUEST_LINEAR_ADDRESS), vmcs.read(field::GUEST_PHYSICAL_ADDRESS),
                vmcs.read(field::EXIT_INTERRUPTION_INFO).raw, vmcs.read(field::IDT_VECTORING_INFO).raw);
    lib::format(sink,
                "entry: interruption {:#x} interruptibility {:#x} activity {} pending debug {:#x} ept {:#x} vpid {}\n",
                vmcs.read(field::ENTRY_INTERRUPTION_INFO).raw, vmcs.read(field::GUEST_INTERRUPTIBILITY).raw,
                vmcs.read(field::GUEST_ACTIVITY_STATE), vmcs.read(field::GUEST_PENDING_DEBUG).raw,
                vmcs.read(field::EPT_POINTER).raw, has_vpid ? vmcs.read(field::VPID) : u16{0});
    lib::format(sink, "real cr0 {:#x} cr4 {:#x}; gdt {:#x}+{:#x} idt {:#x}+{:#x}\n", vmcs.read(field::GUEST_CR0),
                vmcs.read(field::GUEST_CR4), vmcs.read(field::GUEST_GDTR_BASE), vmcs.read(field::GUEST_GDTR_LIMIT),
                vmcs.read(field::GUEST_IDTR_BASE), vmcs.read(field::GUEST_IDTR_LIMIT));
}

} // namespace vmx
