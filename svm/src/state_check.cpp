// SPDX-License-Identifier: MIT
#include <lib/x86/registers.hpp>
#include <svm/state_check.hpp>

namespace svm {

namespace x86 = lib::x86;

std::size_t violated_rules(Vmcb const& vmcb, std::span<std::string_view> rules) {
    std::size_t count = 0;
    auto const check = [&](bool holds, std::string_view rule) {
        if (!holds && count < rules.size()) rules[count++] = rule;
    };
    SaveArea const& s = vmcb.save;
    constexpr u16 l_bit = 1U << 9, d_bit = 1U << 10;
    bool const paging = (s.cr0 & x86::Cr0::PG::mask) != 0;
    bool const long_paging = paging && (s.efer & x86::Efer::LME::mask) != 0;
    check((s.efer & x86::Efer::SVME::mask) != 0, "EFER.SVME is clear");
    check((s.cr0 & x86::Cr0::CD::mask) != 0 || (s.cr0 & x86::Cr0::NW::mask) == 0, "CR0.NW without CR0.CD");
    check(s.cr0 >> 32 == 0, "upper half of CR0");
    check(s.dr6 >> 32 == 0, "upper half of DR6");
    check(s.dr7 >> 32 == 0, "upper half of DR7");
    check(!long_paging || (s.cr4 & x86::Cr4::PAE::mask) != 0, "EFER.LME and CR0.PG without CR4.PAE");
    check(!long_paging || (s.cr0 & x86::Cr0::PE::mask) != 0, "EFER.LME and CR0.PG without CR0.PE");
    check(!long_paging || (s.cs.attributes & (l_bit | d_bit)) != (l_bit | d_bit), "CS.L and CS.D both set");
    check(vmcb.control.intercepts.has(exit_code::VMRUN), "VMRUN is not intercepted");
    check(vmcb.control.asid != 0, "ASID 0");
    InterruptControl const interrupts = vmcb.control.interrupt_control;
    check(!interrupts.get<InterruptControl::X2AvicEnable>() || interrupts.get<InterruptControl::AvicEnable>(),
          "x2AVIC without AVIC");
    EventInfo const event = vmcb.control.event_injection;
    if (!event.get<EventInfo::Valid>()) return count;
    u8 const type = event.get<EventInfo::Type>();
    check(type == EventInfo::external || (type >= EventInfo::nmi && type <= EventInfo::software_interrupt),
          "type of EVENTINJ");
    check(type != EventInfo::exception ||
              (event.get<EventInfo::Vector>() < 32 && event.get<EventInfo::Vector>() != x86::exception_nmi),
          "vector of the exception in EVENTINJ");
    return count;
}

void print_vmcb(Vmcb const& vmcb, lib::TextSink& sink) {
    ControlArea const& c = vmcb.control;
    SaveArea const& s = vmcb.save;
    lib::format(sink, "intercepts: cr {:#x} {:#x} dr {:#x} {:#x} exceptions {:#x} words {:#x} {:#x} {:#x}\n",
                c.intercepts.cr_reads, c.intercepts.cr_writes, c.intercepts.dr_reads, c.intercepts.dr_writes,
                c.intercepts.exceptions, c.intercepts.words[0], c.intercepts.words[1], c.intercepts.words[2]);
    lib::format(sink, "exit: {:#x} ({}) info {:#x} {:#x} interrupted event {:#x} next rip {:#x} bytes {}\n",
                c.exit_code, exit_code::name(static_cast<u32>(c.exit_code)), c.exit_info_1, c.exit_info_2,
                c.exit_int_info.raw, c.next_rip, c.bytes_fetched);
    lib::format(sink,
                "entry: event {:#x} interrupts {:#x} shadow {:#x} asid {} clean {:#x} npt {:#x} tsc offset {:#x}\n",
                c.event_injection.raw, c.interrupt_control.raw, c.interrupt_state.raw, c.asid, c.clean_bits,
                c.nested_cr3, c.tsc_offset);
    lib::format(sink, "cpl {} efer {:#x} cr2 {:#x} dr6 {:#x} dr7 {:#x} pat {:#x} gdt {:#x}+{:#x} idt {:#x}+{:#x}\n",
                s.cpl, s.efer, s.cr2, s.dr6, s.dr7, s.pat, s.gdtr.base, s.gdtr.limit, s.idtr.base, s.idtr.limit);
}

} // namespace svm
