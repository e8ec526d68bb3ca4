// SPDX-License-Identifier: MIT
// The way out of the guest: from the VMCB's exit information to a vendor-neutral exit and its outcome.
#include <kernel/cpus.hpp>
#include <lib/memory.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <svm/state_check.hpp>
#include <svm/vcpu.hpp>
#include <vm/exit_loop.hpp>
#include <vm/guest_access.hpp>
#include <vm/guest_walk.hpp>

namespace svm {
namespace {

namespace x86 = lib::x86;
using vm::Exit;
using vm::ExitReason;
using vm::Outcome;

// EXITINFO1 of IOIO, [amd/vol2] 15.10.2
struct IoInfo : Reg<IoInfo, u64> {
    using In = Bits<u64, 0>;
    using String = Bits<u64, 2>;
    using Rep = Bits<u64, 3>;
    using Size = Bits<u64, 6, 4, u8>; // one bit each: 1, 2, 4 bytes
    using Port = Bits<u64, 31, 16, u16>;
};
// EXITINFO1 of a nested page fault, [amd/vol2] 15.25.6
struct NestedFault : Reg<NestedFault, u64> {
    using Write = Bits<u64, 1>;
    using ReservedBit = Bits<u64, 3>;
    using Fetch = Bits<u64, 4>;
    using TableWalk = Bits<u64, 33>;
};
// EXITINFO1 of a CR access with decode assists, [amd/vol2] 15.33.1
struct CrInfo : Reg<CrInfo, u64> {
    using Operand = Bits<u64, 3, 0, u8>;
    using IsMove = Bits<u64, 63>;
};

// Opcodes as they lie in memory, and their sizes.
constexpr u32 opcode_cpuid = 0xa20f, opcode_rdmsr = 0x320f, opcode_wrmsr = 0x300f, opcode_vmmcall = 0xd9010f,
              opcode_hlt = 0xf4;
constexpr u32 xsave_leaf = 0xd;
constexpr u8 longest_instruction = 15;

vm::MemoryAccess memory_access_of(ControlArea const& control) {
    NestedFault const fault{{control.exit_info_1}};
    return {vm::GuestPhys{control.exit_info_2}, fault.get<NestedFault::Write>(), fault.get<NestedFault::Fetch>(),
            fault.get<NestedFault::TableWalk>()};
}

} // namespace

// What waits for a window may find it open here already. It is looked at again at once: Bochs looks for virtual
// interrupts only behind the first instruction, which may close the window again.
void Vcpu::check_interrupt_window() {
    if (virtual_interrupt_ != VirtualInterrupt::None)
        requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
}

// Whether the CPU has taken the interrupt that it was offered. QEMU leaves V_IRQ set when the delivery was cut off.
[[gnu::noinline]] void Vcpu::settle_offer() {
    InterruptControl const interrupts = control().interrupt_control;
    // VMRUN was refused: nothing was taken, whatever it has made of V_IRQ.
    if (static_cast<u32>(control().exit_code) == exit_code::INVALID) [[unlikely]] {
        requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
        return;
    }
    EventInfo const cut_off = control().exit_int_info;
    bool const was_cut_off = cut_off.get<EventInfo::Valid>() && cut_off.get<EventInfo::Type>() == EventInfo::external;
    if (!interrupts.get<InterruptControl::VirtualIrq>() || was_cut_off) {
        interrupt_taken(interrupts.get<InterruptControl::Vector>());
        set_virtual_interrupt(VirtualInterrupt::None);
    } else if (is_takeable_) {
        requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed); // the machine's own came first
    }
}

[[gnu::noinline]] void Vcpu::end_shadow() {
    vmcb_->control.interrupt_state = {};
    check_interrupt_window();
}

// Go on behind an instruction that was carried out here.
[[gnu::always_inline]] inline bool Vcpu::step_behind(u8 length) {
    Vmcb& vmcb = *vmcb_; // once: what is written there could alias the pointer
    u64 next = vmcb.save.rip + length;
    if (next >> 32 != 0 && !is_64_bit()) [[unlikely]]
        next &= 0xffff'ffff;
    vmcb.save.rip = next;
    if (vmcb.control.interrupt_state.raw != 0) [[unlikely]]
        end_shadow();
    if ((vmcb.save.rflags & (x86::Rflags::TF::mask | x86::Rflags::RF::mask)) != 0) [[unlikely]]
        return end_instruction();
    return false;
}

// What the end of an instruction does to the flags and because of them.
[[gnu::noinline]] bool Vcpu::end_instruction() {
    vmcb_->save.rflags &= ~u64{x86::Rflags::RF::mask};
    if ((save().rflags & x86::Rflags::TF::mask) == 0) return false;
    // The step is done: its trap is what the guest expects next, or what we do.
    changing(clean::debug_registers).save.dr6 |= dr6_single_step;
    debug_exit();
    return has_event_;
}

bool Vcpu::advance(u8 length) { return step_behind(length); }

// What the guest's CR8 has become meanwhile.
inline void Vcpu::fetch_virtual_tpr(Vmcb const& vmcb) {
    u8 const now = vmcb.control.interrupt_control.get<InterruptControl::VirtualTpr>();
    if (now == virtual_tpr_) [[likely]]
        return;
    virtual_tpr_ = now;
    if (avic_mode_ != AvicMode::Off) return; // the page has it, with the sub-class
    apic().set_task_priority(static_cast<u8>(now << 4));
}

u8 Vcpu::length_from_next_rip() const {
    u64 const length = control().next_rip - save().rip;
    return length <= longest_instruction ? static_cast<u8>(length) : u8{0};
}

// The length of the instruction that this exit is about; its opcode, of `size` bytes, may have prefixes. 0: unknown.
[[gnu::always_inline]] inline u8 Vcpu::length_of(u32 opcode, u8 size) {
    if (has_next_rip_)
        if (u8 const length = length_from_next_rip(); length != 0) return length;
    if (is_64_bit()) [[likely]]
        if (u8 const* const code = vm::code_in_place(*this, save().cr3, save().rip, sizeof(opcode))) [[likely]]
            if (((lib::load<u32>(code) ^ opcode) & ((u32{1} << 8 * size) - 1)) == 0) [[likely]]
                return size;
    vm::DecodedInstruction instruction{};
    return vm::decode_at_rip(*this, instruction) ? instruction.length : u8{0};
}

// Instructions that guests use all the time come first and read nothing that they do not need.
Vcpu::After Vcpu::handle_exit() {
    Vmcb& vmcb = *vmcb_; // once: what is written there could alias the pointer
    here_->presence.leave();
    gpr(vm::Gpr::Rax) = vmcb.save.rax;
    vmcb.control.clean_bits = clean_after_exit_;
    vmcb.control.tlb_control = TlbControl::Nothing;
    has_event_ = false;
    fetch_virtual_tpr(vmcb);
    if (virtual_interrupt_ == VirtualInterrupt::Offer) [[unlikely]]
        settle_offer();
    auto const code = static_cast<u32>(vmcb.control.exit_code);
    [[clang::uninitialized]] Exit exit;
    switch (code) {
    case exit_code::MSR:
        exit.reason = control().exit_info_1 != 0 ? ExitReason::WriteMsr : ExitReason::ReadMsr;
        exit.length = length_of(control().exit_info_1 != 0 ? opcode_wrmsr : opcode_rdmsr, 2);
        break;
    case exit_code::CPUID:
        exit.reason = ExitReason::Cpuid;
        if (static_cast<u32>(gpr(vm::Gpr::Rax)) == xsave_leaf) [[unlikely]]
            fetch_xcr0();
        exit.length = length_of(opcode_cpuid, 2);
        break;
    case exit_code::IOIO: {
        IoInfo const info{{control().exit_info_1}};
        exit.reason = ExitReason::PortIo;
        exit.port = {info.get<IoInfo::Port>(), info.get<IoInfo::Size>(), info.get<IoInfo::In>(),
                     info.get<IoInfo::String>(), info.get<IoInfo::Rep>()};
        exit.length = static_cast<u8>(control().exit_info_2 - save().rip); // the next RIP, on every CPU
        break;
    }
    case exit_code::VMMCALL:
        exit.reason = ExitReason::Hypercall;
        exit.length = length_of(opcode_vmmcall, 3);
        break;
    case exit_code::HLT:
        exit.reason = ExitReason::Hlt;
        exit.length = length_of(opcode_hlt, 1);
        break;
    default: return code == exit_code::NPF ? memory_exit() : slow_exit(code);
    }
    if (exit.length == 0) [[unlikely]]
        return undecodable();
    Outcome const outcome = vm::route(*this, exit);
    if (outcome != Outcome::Advance) [[unlikely]]
        return ExitLoop::finish(*this, outcome, exit);
    step_behind(exit.length);
    return After::Enter;
}

// An access to where there is no RAM.
[[gnu::noinline]] Vcpu::After Vcpu::memory_exit() {
    Vmcb const& vmcb = *vmcb_;
    NestedFault const fault{{vmcb.control.exit_info_1}};
    if (vmcb.control.exit_int_info.get<EventInfo::Valid>() || fault.get<NestedFault::ReservedBit>()) [[unlikely]]
        return slow_exit(exit_code::NPF);
    check_interrupt_window();
    [[clang::uninitialized]] Exit exit;
    exit.reason = ExitReason::MemoryFault;
    exit.length = 0;
    exit.memory = memory_access_of(vmcb.control);
    Outcome const outcome = vm::route(*this, exit);
    if (outcome != Outcome::Retry) [[unlikely]]
        return ExitLoop::finish(*this, outcome, exit);
    return After::Enter;
}

// The code that made this exit is not there any more: another vCPU is changing it, or its mapping, at this moment. The
// guest looks again, with nothing cached. If it makes no progress its kernel has lost its own code, and the VM stops.
// A program gets #UD instead: two of its threads can keep this up, and they must not end the VM.
[[gnu::noinline]] Vcpu::After Vcpu::undecodable() {
    constexpr u32 patience = 64;
    flush_translations();
    // The machine's interrupts come in any case. Every other exit that was handled, and every other RIP, is progress.
    u64 const handled = total_exits() - exit_counts_[static_cast<unsigned>(ExitReason::ExternalInterrupt)];
    if (rip() != undecodable_rip_ || handled != handled_at_undecodable_) undecodable_in_a_row_ = 0;
    undecodable_rip_ = rip();
    handled_at_undecodable_ = handled;
    if (++undecodable_in_a_row_ < patience) return After::Enter;
    if (privilege_level() == 3) {
        undecodable_in_a_row_ = 0;
        if (!has_event_) inject_exception(vm::invalid_opcode());
        return After::Enter;
    }
    std::array<char, 96> text{};
    auto const code = static_cast<u32>(control().exit_code);
    return crash(lib::format_to(text, "cannot decode the instruction of exit {:#x} ({}) at rip {:#x}", code,
                                exit_code::name(code), rip()));
}

// Bochs 2.7 has changed EFER.LMA already when a write to CR0 that turns paging on or off exits before it is carried
// out.
void Vcpu::repair_long_mode() {
    bool const is_long = (save().cr0 & x86::Cr0::PG::mask) != 0 && (save().efer & x86::Efer::LME::mask) != 0;
    if (((save().efer & x86::Efer::LMA::mask) != 0) == is_long) return;
    u64& efer = changing(clean::control_registers).save.efer;
    efer = x86::Efer::LMA::set(efer, is_long);
}

// True when `exit` is complete.
bool Vcpu::describe_register_access(u32 code, Exit& exit) {
    using Kind = vm::RegisterAccess::Kind;
    exit.reason = ExitReason::ControlRegister;
    u8 const number = code == exit_code::CR0_SEL_WRITE ? u8{0} : static_cast<u8>(code & 0xf);
    CrInfo const info{{control().exit_info_1}};
    if (capabilities_.has_decode_assists && capabilities_.has_next_rip && info.get<CrInfo::IsMove>()) {
        Kind const kind = code < exit_code::WRITE_CR0 ? Kind::Read : Kind::Write;
        exit.control = {number, info.get<CrInfo::Operand>(), kind, 0};
        exit.length = length_from_next_rip();
        return exit.length != 0;
    }
    vm::DecodedInstruction instruction{};
    if (!vm::decode_at_rip(*this, instruction)) return false;
    exit.length = instruction.length;
    switch (instruction.kind) {
    case vm::DecodedInstruction::Kind::WriteControl:
        exit.control = {instruction.control, instruction.operand, Kind::Write, 0};
        return instruction.control == number;
    case vm::DecodedInstruction::Kind::Clts: exit.control = {0, 0, Kind::Clts, 0}; return true;
    case vm::DecodedInstruction::Kind::Lmsw: exit.control = {0, 0, Kind::Lmsw, instruction.lmsw_source}; return true;
    case vm::DecodedInstruction::Kind::Smsw: exit.control = {0, 0, Kind::Smsw, 0}; return code == exit_code::READ_CR0;
    case vm::DecodedInstruction::Kind::ReadControl:
        exit.control = {instruction.control, instruction.operand, Kind::Read, 0};
        // QEMU 10 takes each read of a control register for one of CR0, if that is intercepted.
        return code == exit_code::READ_CR0 ? instruction.control != 2
                                           : code < exit_code::WRITE_CR0 && instruction.control == number;
    case vm::DecodedInstruction::Kind::Other: break;
    }
    return false;
}

// An exit in the middle of the delivery of an event: the event must be delivered again. What an instruction caused (INT
// n, INT3, INTO) comes again by itself, as RIP is still before it. [amd/vol2] 15.7.2
void Vcpu::requeue_interrupted_event() {
    EventInfo event = control().exit_int_info;
    if (!event.get<EventInfo::Valid>()) return;
    u8 const vector = event.get<EventInfo::Vector>();
    // QEMU calls an interrupt an exception here. VMRUN refuses an exception with such a vector. [amd/vol2] 15.20
    if (event.get<EventInfo::Type>() == EventInfo::exception && vector >= x86::exception_vectors)
        event.set<EventInfo::Type>(EventInfo::external);
    u8 const type = event.get<EventInfo::Type>();
    x86::take_interrupts(); // see slow_exit()
    if (type == EventInfo::software_interrupt) return;
    if (type == EventInfo::exception && (vector == x86::exception_bp || vector == x86::exception_of)) return;
    inject(event);
}

void Vcpu::put_off_event() {
    if (!has_event_) return;
    EventInfo const event = control().event_injection;
    u8 const type = event.get<EventInfo::Type>();
    if (type == EventInfo::nmi) {
        nmi_state_ = NmiState::Free;
        set_intercept(exit_code::IRET, false);
    }
    vm::Vcpu::put_off_event(type, event.get<EventInfo::Vector>());
}

// Some exits come before the machine's interrupts: a debug trap after the delivery of an event, a fault or an exit in
// the middle of it, a window that opens. Each may lead to the next injection and that to the next such exit, so that
// the CPU would never look at interrupts in the guest: it takes them here. [amd/vol2] 8.5
[[gnu::noinline]] Vcpu::After Vcpu::slow_exit(u32 code) {
    requeue_interrupted_event();
    check_interrupt_window();
    if (code == exit_code::INTR) {
        exit_counts_[static_cast<unsigned>(ExitReason::ExternalInterrupt)]++;
        x86::take_interrupts(); // it still waits: its handler runs here
        return After::Enter;
    }
    if (code == exit_code::AVIC_INCOMPLETE_IPI || code == exit_code::AVIC_NOACCEL) return avic_exit(code);
    Exit exit{};
    switch (code) {
    case exit_code::NPF: {
        NestedFault const fault{{control().exit_info_1}};
        exit.reason = fault.get<NestedFault::ReservedBit>() ? ExitReason::InvalidState : ExitReason::MemoryFault;
        exit.memory = memory_access_of(control());
        break;
    }
    case exit_code::WRITE_CR0:
    case exit_code::CR0_SEL_WRITE: repair_long_mode(); [[fallthrough]];
    case exit_code::READ_CR4:
    case exit_code::WRITE_CR4:
    case exit_code::WRITE_CR8:
        if (!describe_register_access(code, exit)) return undecodable();
        break;
    case exit_code::READ_CR0:
        if (describe_register_access(code, exit)) break;
        // QEMU 10's read of CR2, or another CPU has changed the instruction. Until the next write CD and NW read as
        // clear.
        intercept_cr0(false, true);
        return After::Enter;
    case exit_code::VINTR:
        exit_counts_[static_cast<unsigned>(ExitReason::InterruptWindow)]++;
        requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
        x86::take_interrupts();
        return After::Enter;
    case exit_code::PUSHF:
    case exit_code::POPF:
    case exit_code::INTN:
        exit_counts_[static_cast<unsigned>(ExitReason::NmiWindow)]++;
        open_nmi_window();
        x86::take_interrupts();
        return After::Enter;
    case exit_code::IRET:
        exit_counts_[static_cast<unsigned>(ExitReason::NmiWindow)]++;
        iret_exit();
        x86::take_interrupts();
        return After::Enter;
    case exit_code::NMI:  // was taken when the stub set the global interrupt flag
    case exit_code::INIT: // INIT at the machine's CPU: not for guests
        exit_counts_[static_cast<unsigned>(ExitReason::Nmi)]++;
        return After::Enter;
    case exit_code::EXCEPTION_DB:
        exit_counts_[static_cast<unsigned>(ExitReason::Exception)]++;
        debug_exit();
        x86::take_interrupts();
        return After::Enter;
    case exit_code::EXCEPTION_AC:
        exit_counts_[static_cast<unsigned>(ExitReason::Exception)]++;
        put_off_event();
        inject_exception({x86::exception_ac, true, 0, 0});
        x86::take_interrupts();
        return After::Enter;
    case exit_code::EXCEPTION_MC: exit.reason = ExitReason::MachineCheck; break;
    case exit_code::SHUTDOWN: exit.reason = ExitReason::TripleFault; break;
    case exit_code::XSETBV: {
        exit.reason = ExitReason::Xsetbv;
        constexpr u32 opcode = 0xd1010f;
        exit.length = length_of(opcode, 3);
        if (exit.length == 0) return undecodable();
        break;
    }
    case exit_code::INVD:
    case exit_code::WBINVD: {
        // Not every CPU checks the privilege before it exits. [amd/vol2] 15.9
        exit.reason = privilege_level() == 0 ? ExitReason::CacheControl : ExitReason::Privileged;
        exit.length = length_of(code == exit_code::INVD ? 0x080f : 0x090f, 2);
        if (exit.length == 0) return undecodable();
        break;
    }
    case exit_code::PAUSE: {
        exit.reason = ExitReason::Pause;
        exit.length = length_of(0x90f3, 2);
        if (exit.length == 0) return undecodable();
        break;
    }
    case exit_code::RDPMC:
    case exit_code::RSM: exit.reason = ExitReason::Privileged; break;
    case exit_code::VMRUN:
    case exit_code::VMLOAD:
    case exit_code::VMSAVE:
    case exit_code::STGI:
    case exit_code::CLGI:
    case exit_code::SKINIT:
    case exit_code::INVLPGA:
    case exit_code::MONITOR:
    case exit_code::MWAIT:
    case exit_code::MWAIT_ARMED:
    case exit_code::RDPRU:
    case exit_code::INVLPGB:
    case exit_code::INVLPGB_ILLEGAL:
    case exit_code::MCOMMIT:
    case exit_code::TLBSYNC: exit.reason = ExitReason::Forbidden; break;
    case exit_code::INVALID: return entry_failed();
    default: {
        if (is_stepping_ && code >= exit_code::EXCEPTION_DE && code <= exit_code::EXCEPTION_LAST) {
            exit_counts_[static_cast<unsigned>(ExitReason::Exception)]++;
            fault_in_step(code);
            x86::take_interrupts();
            return After::Enter;
        }
        std::array<char, 96> text{};
        return crash(
            lib::format_to(text, "VM exit {:#x} ({}) has no handler; rip {:#x}", code, exit_code::name(code), rip()));
    }
    }
    if (has_event_ && exit.reason == ExitReason::MemoryFault) {
        return crash("an interrupt's delivery touched device memory: the guest's IDT or stack is not in RAM");
    }
    return ExitLoop::finish(*this, vm::route(*this, exit), exit);
}

// QEMU's AMD-V says "invalid state" when the guest itself loads CR3 with reserved bits, where a CPU raises #GP.
bool Vcpu::refuse_cr3() {
    vm::DecodedInstruction instruction{};
    if (!vm::decode_at_rip(*this, instruction) || instruction.kind != vm::DecodedInstruction::Kind::WriteControl ||
        instruction.control != 3)
        return false;
    fetch_gprs();
    u64 const value = gprs()[instruction.operand & 15];
    if (vm::is_valid_cr3_write(value, cr4(), efer(), vm().cpuid().rules().physical_bits)) return false;
    inject_exception(vm::general_protection());
    return true;
}

// See Quirks. True when the state was of this kind: the guest goes on as if it had not been refused.
bool Vcpu::repair_code_segment() {
    constexpr u16 l_bit = 1U << 9, d_bit = 1U << 10;
    if (!capabilities_.quirks.sysenter_sets_cs_l_and_d || (save().efer & x86::Efer::LMA::mask) == 0 ||
        (save().cs.attributes & (l_bit | d_bit)) != (l_bit | d_bit))
        return false;
    u16& attributes = changing(clean::segments).save.cs.attributes;
    attributes = static_cast<u16>(attributes & ~d_bit);
    // What the refusal has saved is another one.
    vmcb_->save.rip = entered_rip_;
    flush_translations(); // what the refused VMRUN was to do with the TLB it has not done
    return true;
}

[[gnu::noinline]] Vcpu::After Vcpu::entry_failed() {
    if (repair_code_segment()) return After::Enter;
    std::array<char, 120> text{};
    lib::BufferSink sink(text);
    lib::format(sink, "VMRUN refused the guest's state");
    std::array<std::string_view, 8> rules{};
    std::size_t const count = violated_rules(*vmcb_, rules);
    if (count == 0 && refuse_cr3()) return After::Enter;
    for (std::size_t i = 0; i < count; i++)
        lib::format(sink, "; {}", rules[i]);
    return crash(sink.view());
}

void Vcpu::print_state(lib::TextSink& sink) {
    print_registers(sink);
    print_vmcb(*vmcb_, sink);
}

} // namespace svm
