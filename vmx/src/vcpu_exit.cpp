// SPDX-License-Identifier: MIT
// The way out of the guest: from the VMCS's exit information to a vendor-neutral exit and its outcome.
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/registers.hpp>
#include <vm/exit_loop.hpp>
#include <vm/guest_walk.hpp>
#include <vmx/ept_space.hpp>
#include <vmx/exit_reason.hpp>
#include <vmx/state_check.hpp>
#include <vmx/vcpu.hpp>

namespace vmx {
namespace {

namespace x86 = lib::x86;
using vm::Exit;
using vm::ExitReason;
using vm::Outcome;

// [intel/vol3] table 28-5, I/O instructions
struct IoQualification : Reg<IoQualification, u64> {
    using SizeMinusOne = Bits<u64, 2, 0, u8>;
    using In = Bits<u64, 3>;
    using String = Bits<u64, 4>;
    using Rep = Bits<u64, 5>;
    using Port = Bits<u64, 31, 16, u16>;
};
// [intel/vol3] table 28-7
struct EptQualification : Reg<EptQualification, u64> {
    using Read = Bits<u64, 0>;
    using Write = Bits<u64, 1>;
    using Fetch = Bits<u64, 2>;
    using LinearValid = Bits<u64, 7>;
    using IsTranslation = Bits<u64, 8>; // of a linear address; else a walk of the guest's tables
    using NmiUnblocking = Bits<u64, 12>;
};
// [intel/vol3] table 28-3, control-register accesses
struct CrQualification : Reg<CrQualification, u64> {
    using Number = Bits<u64, 3, 0, u8>;
    using Access = Bits<u64, 5, 4, u8>;
    using Operand = Bits<u64, 11, 8, u8>;
    using LmswSource = Bits<u64, 31, 16, u16>;
};
// [intel/vol3] table 28-2, task switches
struct TaskQualification : Reg<TaskQualification, u64> {
    using Selector = Bits<u64, 15, 0, u16>;
    using Source = Bits<u64, 31, 30, u8>;
};
// [intel/vol3] table 28-6, APIC accesses
struct ApicQualification : Reg<ApicQualification, u64> {
    using Offset = Bits<u64, 11, 0, u16>;
    using Type = Bits<u64, 15, 12, u8>;
};

constexpr u64 dr6_fixed = 0xffff'0ff0, dr6_events = 0xe00f, dr7_general_detect = 1U << 13, debugctl_branch_step = 2;

} // namespace

bool Vcpu::advance(u8 length) { return step_over(length); }

// Moves RIP past an instruction and ends the shadow of the one before.
[[gnu::always_inline]] inline void Vcpu::move_past(u8 length) {
    Loaded here = Loaded::still_loaded();
    u64 next = here.read(field::GUEST_RIP) + length;
    if (next >> 32 != 0) [[unlikely]] {
        // Outside of 64-bit mode the upper half must stay 0. [intel/vol3] 27.3.1.4
        if ((here.read(field::GUEST_CS_RIGHTS) & vm::segment::l_bit) == 0) next &= 0xffff'ffff;
    }
    here.write(field::GUEST_RIP, next);
    auto interruptibility = here.read(field::GUEST_INTERRUPTIBILITY);
    if ((interruptibility.raw & Interruptibility::shadow) != 0) [[unlikely]] {
        interruptibility.raw &= ~Interruptibility::shadow;
        here.write(field::GUEST_INTERRUPTIBILITY, interruptibility);
    }
}

// True when a single-step trap comes next.
[[gnu::always_inline]] inline bool Vcpu::step_over(u8 length) {
    move_past(length);
    u64 const flags = Loaded::still_loaded().read(field::GUEST_RFLAGS);
    if ((flags & (x86::Rflags::TF::mask | x86::Rflags::RF::mask)) != 0) [[unlikely]]
        return end_instruction(flags);
    return false;
}

// What the end of an instruction does to the flags and because of them. RF is set after an exit that is like a fault,
// an EPT violation for instance. [intel/vol3] 28.3.3
[[gnu::noinline]] bool Vcpu::end_instruction(u64 flags) {
    Loaded here = Loaded::still_loaded();
    if ((flags & x86::Rflags::RF::mask) != 0) here.write(field::GUEST_RFLAGS, flags & ~u64{x86::Rflags::RF::mask});
    if ((flags & x86::Rflags::TF::mask) == 0) return false;
    auto pending = here.read(field::GUEST_PENDING_DEBUG);
    pending.set<PendingDebug::SingleStep>(true);
    here.write(field::GUEST_PENDING_DEBUG, pending);
    return true;
}

// Exits that need nothing but the instruction's length, by basic reason; Unknown: all the others.
constexpr auto simple_exits = [] {
    std::array<ExitReason, 64> table{};
    table.fill(ExitReason::Unknown);
    table[reason::cpuid] = ExitReason::Cpuid;
    table[reason::rdmsr] = ExitReason::ReadMsr;
    table[reason::wrmsr] = ExitReason::WriteMsr;
    table[reason::vmcall] = ExitReason::Hypercall;
    table[reason::hlt] = ExitReason::Hlt;
    // In ring 0 only: #GP for want of privilege comes before the exit. [intel/vol3] 26.1.1
    table[reason::wbinvd] = table[reason::invd] = ExitReason::CacheControl;
    table[reason::xsetbv] = ExitReason::Xsetbv;
    table[reason::pause] = ExitReason::Pause;
    return table;
}();

// Instructions that guests use all the time come first and read nothing that they do not need.
Vcpu::After Vcpu::handle_exit() {
    Loaded const here = Loaded::still_loaded();
    has_event_ = false;
    auto const reason = here.read(field::EXIT_REASON);
    if (reason.raw >= simple_exits.size()) [[unlikely]]
        return reason.get<ExitReasonField::EntryFailure>() ? entry_failed(reason)
                                                           : slow_exit(reason.get<ExitReasonField::Basic>());
    Exit& exit = exit_;
    exit.reason = simple_exits.data()[reason.raw];
    if (exit.reason == ExitReason::Unknown) {
        if (reason.raw == reason::ept_violation) return memory_exit();
        if (reason.raw != reason::io_instruction) return slow_exit(reason.get<ExitReasonField::Basic>());
        exit.reason = ExitReason::PortIo;
        describe_port(exit);
    }
    exit.length = static_cast<u8>(here.read(field::EXIT_INSTRUCTION_LENGTH));
    Outcome const outcome = vm::route(*this, exit);
    if (outcome != Outcome::Advance) [[unlikely]]
        return ExitLoop::finish(*this, outcome, exit);
    step_over(exit.length);
    return After::Enter;
}

// An access to where there is no RAM.
[[gnu::noinline]] Vcpu::After Vcpu::memory_exit() {
    Loaded const here = Loaded::still_loaded();
    if (here.read(field::IDT_VECTORING_INFO).get<InterruptionInfo::Valid>()) [[unlikely]]
        return slow_exit(reason::ept_violation);
    [[clang::uninitialized]] Exit exit;
    exit.reason = ExitReason::MemoryFault;
    exit.length = 0;
    describe_memory(exit);
    if (exit.memory.is_fetch && may_execute_now(exit)) [[unlikely]]
        return After::Enter;
    Outcome const outcome = vm::route(*this, exit);
    if (outcome != Outcome::Retry) [[unlikely]]
        return ExitLoop::finish(*this, outcome, exit);
    return After::Enter;
}

// A fetch from a large page on a CPU where only small ones may be executed. The exit itself has removed the old
// translation from this CPU. [intel/vol3] 29.4.3.1
[[gnu::noinline]] bool Vcpu::may_execute_now(Exit const& exit) {
    if (!static_cast<EptSpace&>(vm().space()).make_executable(exit.memory.address)) return false;
    exit_counts_[static_cast<unsigned>(ExitReason::MemoryFault)]++;
    return true;
}

void Vcpu::describe_memory(Exit& exit) {
    EptQualification const q{{Loaded::still_loaded().read(field::EXIT_QUALIFICATION)}};
    exit.memory = {vm::GuestPhys{Loaded::still_loaded().read(field::GUEST_PHYSICAL_ADDRESS)},
                   q.get<EptQualification::Write>(), q.get<EptQualification::Fetch>(),
                   q.get<EptQualification::LinearValid>() && !q.get<EptQualification::IsTranslation>()};
}

void Vcpu::describe_port(Exit& exit) {
    IoQualification const q{{Loaded::still_loaded().read(field::EXIT_QUALIFICATION)}};
    exit.port = {q.get<IoQualification::Port>(), static_cast<u8>(q.get<IoQualification::SizeMinusOne>() + 1),
                 q.get<IoQualification::In>(), q.get<IoQualification::String>(), q.get<IoQualification::Rep>()};
}

void Vcpu::describe_register_access(Exit& exit) {
    using Kind = vm::RegisterAccess::Kind;
    CrQualification const q{{vmcs().read(field::EXIT_QUALIFICATION)}};
    constexpr Kind kinds[] = {Kind::Write, Kind::Read, Kind::Clts, Kind::Lmsw};
    exit.control = {q.get<CrQualification::Number>(), q.get<CrQualification::Operand>(),
                    kinds[q.get<CrQualification::Access>()], q.get<CrQualification::LmswSource>()};
}

void Vcpu::describe_task_switch(Exit& exit) {
    using Source = vm::TaskSwitch::Source;
    constexpr Source sources[] = {Source::Call, Source::Iret, Source::Jump, Source::Gate};
    TaskQualification const q{{vmcs().read(field::EXIT_QUALIFICATION)}};
    vm::TaskSwitch& task = exit.task;
    task.source = sources[q.get<TaskQualification::Source>()];
    task.selector = q.get<TaskQualification::Selector>();
    exit.length = static_cast<u8>(vmcs().read(field::EXIT_INSTRUCTION_LENGTH));
    if (task.source != Source::Gate) return;
    auto const event = vmcs().read(field::IDT_VECTORING_INFO);
    u8 const type = event.get<InterruptionInfo::Type>();
    bool const is_software = type == InterruptionInfo::software_interrupt ||
                             type == InterruptionInfo::privileged_exception ||
                             type == InterruptionInfo::software_exception;
    if (!is_software) exit.length = 0;
    task.is_external = !is_software || type == InterruptionInfo::privileged_exception;
    task.is_exception = type == InterruptionInfo::hardware_exception;
    task.vector = event.get<InterruptionInfo::Vector>();
    task.has_error_code = event.get<InterruptionInfo::HasErrorCode>();
    task.error_code = task.has_error_code ? vmcs().read(field::IDT_VECTORING_ERROR_CODE) : 0;
}

// The event that came through a task gate, if that is the source, is delivered by the switch, or lost by its fault as
// it would be on the CPU. [intel/vol3] 26.4.2
[[gnu::noinline]] Vcpu::After Vcpu::task_switch_exit() {
    Exit exit{};
    exit.reason = ExitReason::TaskSwitch;
    describe_task_switch(exit);
    auto interruptibility = vmcs().read(field::GUEST_INTERRUPTIBILITY);
    interruptibility.raw &= ~Interruptibility::shadow;
    bool const is_nmi = exit.task.source == vm::TaskSwitch::Source::Gate && exit.task.vector == x86::exception_nmi &&
                        vmcs().read(field::IDT_VECTORING_INFO).get<InterruptionInfo::Type>() == InterruptionInfo::nmi;
    if (is_nmi) interruptibility.set<Interruptibility::BlockingByNmi>(true);
    if (exit.task.source == vm::TaskSwitch::Source::Iret) interruptibility.set<Interruptibility::BlockingByNmi>(false);
    vmcs().write(field::GUEST_INTERRUPTIBILITY, interruptibility);
    vmcs().write(field::GUEST_PENDING_DEBUG, PendingDebug{}); // traps of the old task's last instruction
    take_interrupts(); // a trap or fault of the new task may go through the next task gate, and so on
    return ExitLoop::finish(*this, vm::route(*this, exit), exit);
}

// Lets the CPU take the machine's interrupts here. Exits that come before them need it: a debug trap after the delivery
// of an event, a fault or an exit in the middle of it, a window that opens. Each may lead to the next injection and
// that to the next such exit, so that the CPU would never look at interrupts in the guest. [intel/vol3] 7.9
void Vcpu::take_interrupts() {
    x86::take_interrupts();
    // A notification of posted interrupts was among them, perhaps: the CPU takes that one in the guest only.
    if (apic().is_anything_posted()) requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
}

// An exit in the middle of the delivery of an event: the event must be delivered again. [intel/vol3] 28.2.4
void Vcpu::requeue_interrupted_event() {
    auto const vectoring = vmcs().read(field::IDT_VECTORING_INFO);
    if (!vectoring.get<InterruptionInfo::Valid>()) return;
    InterruptionInfo info = vectoring;
    info.set<InterruptionInfo::NmiUnblocking>(false);
    u8 const type = info.get<InterruptionInfo::Type>();
    bool const is_software = type == InterruptionInfo::software_interrupt ||
                             type == InterruptionInfo::privileged_exception ||
                             type == InterruptionInfo::software_exception;
    if (type == InterruptionInfo::nmi) { // its delivery had begun to block NMIs
        auto interruptibility = vmcs().read(field::GUEST_INTERRUPTIBILITY);
        interruptibility.set<Interruptibility::BlockingByNmi>(false);
        vmcs().write(field::GUEST_INTERRUPTIBILITY, interruptibility);
    }
    inject(info, vmcs().read(field::IDT_VECTORING_ERROR_CODE),
           is_software ? vmcs().read(field::EXIT_INSTRUCTION_LENGTH) : 0);
    take_interrupts();
}

void Vcpu::put_off_event() {
    if (!has_event_) return;
    auto const event = vmcs().read(field::ENTRY_INTERRUPTION_INFO);
    vm::Vcpu::put_off_event(event.get<InterruptionInfo::Type>(), event.get<InterruptionInfo::Vector>());
}

[[gnu::noinline]] Vcpu::After Vcpu::slow_exit(u16 reason) {
    if (reason == reason::external_interrupt) {
        exit_counts_[static_cast<unsigned>(ExitReason::ExternalInterrupt)]++;
        u8 const vector = vmcs().read(field::EXIT_INTERRUPTION_INFO).get<InterruptionInfo::Vector>();
        kernel::dispatch_interrupt(vector);
        // Sent before the APIC's mode made the CPU stop taking posted interrupts.
        if (vector == kernel::vectors::notify) requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
        return After::Enter;
    }
    if (reason == reason::task_switch) return task_switch_exit();
    Exit exit{};
    exit.length = static_cast<u8>(vmcs().read(field::EXIT_INSTRUCTION_LENGTH));
    requeue_interrupted_event();
    switch (reason) {
    case reason::ept_violation:
        exit.reason = ExitReason::MemoryFault;
        describe_memory(exit);
        break;
    case reason::apic_access: {
        ApicQualification const q{{vmcs().read(field::EXIT_QUALIFICATION)}};
        constexpr u8 write = 1, fetch = 2;
        exit.reason = ExitReason::ApicAccess;
        exit.memory = {vm::GuestPhys{vm::apic_base::default_address + q.get<ApicQualification::Offset>()},
                       q.get<ApicQualification::Type>() == write, q.get<ApicQualification::Type>() == fetch, false};
        break;
    }
    case reason::apic_write:
        exit.reason = ExitReason::ApicWrite;
        exit.apic_offset = static_cast<u16>(vmcs().read(field::EXIT_QUALIFICATION) & 0xfff);
        break;
    case reason::virtualized_eoi:
        exit.reason = ExitReason::EndOfInterrupt;
        exit.vector = static_cast<u8>(vmcs().read(field::EXIT_QUALIFICATION));
        break;
    case reason::control_register:
        exit.reason = ExitReason::ControlRegister;
        describe_register_access(exit);
        break;
    case reason::exception_or_nmi:
        if (exception_exit(exit)) return After::Enter;
        break;
    case reason::interrupt_window:
    case reason::tpr_below_threshold:
        exit_counts_[static_cast<unsigned>(reason == reason::interrupt_window ? ExitReason::InterruptWindow
                                                                              : ExitReason::TprBelowThreshold)]++;
        requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
        take_interrupts();
        return After::Enter;
    case reason::preemption_timer:
        exit_counts_[static_cast<unsigned>(ExitReason::PreemptionTimer)]++;
        if (x86::rdtsc() >= preemption_deadline_) { // else it was too far for 32 bits: the next entry loads the rest
            set_preemption_timer(no_deadline);
            requests_.fetch_or(vm::request::timer, std::memory_order_relaxed);
        }
        return After::Enter;
    case reason::nmi_window:
        exit_counts_[static_cast<unsigned>(ExitReason::NmiWindow)]++;
        set_nmi_window(false);
        take_interrupts();
        return After::Enter; // nmi_pending_ is looked at before every entry
    case reason::triple_fault: exit.reason = ExitReason::TripleFault; break;
    case reason::rdpmc:
    case reason::rsm: exit.reason = ExitReason::Privileged; break;
    case reason::vmclear:
    case reason::vmlaunch:
    case reason::vmptrld:
    case reason::vmptrst:
    case reason::vmread:
    case reason::vmresume:
    case reason::vmwrite:
    case reason::vmxoff:
    case reason::vmxon:
    case reason::invept:
    case reason::invvpid:
    case reason::vmfunc:
    case reason::getsec:
    case reason::monitor:
    case reason::mwait:
    case reason::encls:
    case reason::rdtscp:
    case reason::invpcid:
    case reason::xsaves:
    case reason::xrstors: exit.reason = ExitReason::Forbidden; break;
    case reason::init_signal: return After::Enter; // INIT at the machine's CPU: not for guests
    default: {
        std::array<char, 96> text{};
        return crash(
            lib::format_to(text, "VM exit {} ({}) has no handler; rip {:#x}", reason, reason::name(reason), rip()));
    }
    }
    if (has_event_ && (exit.reason == ExitReason::MemoryFault || exit.reason == ExitReason::ApicAccess))
        return crash("an interrupt's delivery touched device memory: the guest's IDT or stack is not in RAM");
    return ExitLoop::finish(*this, vm::route(*this, exit), exit);
}

// True when the exit is dealt with; else `exit` says what the router shall do.
bool Vcpu::exception_exit(Exit& exit) {
    auto info = vmcs().read(field::EXIT_INTERRUPTION_INFO);
    u8 const vector = info.get<InterruptionInfo::Vector>();
    exit_counts_[static_cast<unsigned>(ExitReason::Exception)]++;
    if (info.get<InterruptionInfo::Type>() == InterruptionInfo::nmi) {
        asm volatile("int $2"); // the machine's NMI: its handler, on its own stack
        return true;
    }
    if (vector == x86::exception_mc) {
        exit.reason = ExitReason::MachineCheck;
        return false;
    }
    if (info.get<InterruptionInfo::NmiUnblocking>()) { // the fault undid an IRET's unblocking
        auto interruptibility = vmcs().read(field::GUEST_INTERRUPTIBILITY);
        interruptibility.set<Interruptibility::BlockingByNmi>(true);
        vmcs().write(field::GUEST_INTERRUPTIBILITY, interruptibility);
    }
    if (vector == x86::exception_db) {
        // The CPU has left DR6 and DR7.GD as they were. [intel/vol3] 28.1
        // INT1 reports nothing there; Bochs' adds the step that a shadow holds back.
        bool const is_int1 = info.get<InterruptionInfo::Type>() == InterruptionInfo::privileged_exception;
        u64 const events = is_int1 ? 0 : vmcs().read(field::EXIT_QUALIFICATION) & dr6_events;
        x86::write_dr(6, (x86::read_dr(6) & ~u64{0xf}) | events | dr6_fixed);
        vmcs().write(field::GUEST_DR7, vmcs().read(field::GUEST_DR7) & ~dr7_general_detect);
        // A step over STI or MOV SS leaves its shadow; entry with one and TF insists on a pending step.
        // [intel/vol3] 27.3.1.5
        if ((vmcs().read(field::GUEST_INTERRUPTIBILITY).raw & Interruptibility::shadow) != 0 &&
            (vmcs().read(field::GUEST_RFLAGS) & x86::Rflags::TF::mask) != 0 &&
            (vmcs().read(field::GUEST_DEBUGCTL) & debugctl_branch_step) == 0)
            vmcs().write(field::GUEST_PENDING_DEBUG,
                         vmcs().read(field::GUEST_PENDING_DEBUG).with<PendingDebug::SingleStep>(true));
    }
    if (vector == x86::exception_db && has_event_)
        return true; // its delivery is repeated, and hits the breakpoint again
    put_off_event();
    info.set<InterruptionInfo::NmiUnblocking>(false);
    if (info.get<InterruptionInfo::Type>() == InterruptionInfo::privileged_exception) {
        // INT1: its #DB comes instead of the step's, and it ends a shadow. Injected as what it is it would need the
        // step that is pending in the shadow, and the CPU would deliver both. [intel/vol3] 27.7.3
        move_past(exit.length);
        vmcs().write(field::GUEST_PENDING_DEBUG, PendingDebug{});
        info.set<InterruptionInfo::Type>(InterruptionInfo::hardware_exception);
    }
    inject(info, vmcs().read(field::EXIT_INTERRUPTION_ERROR_CODE), 0);
    take_interrupts();
    return true;
}

[[gnu::noinline]] Vcpu::After Vcpu::entry_failed(ExitReasonField reason) {
    if (reason.get<ExitReasonField::Basic>() == reason::machine_check_entry) {
        // What was to be injected still is: only an exit clears it. [intel/vol3] 27.8
        has_event_ = vmcs().read(field::ENTRY_INTERRUPTION_INFO).get<InterruptionInfo::Valid>();
        Exit exit{};
        exit.reason = ExitReason::MachineCheck;
        return ExitLoop::finish(*this, vm::route(*this, exit), exit);
    }
    std::array<char, 120> text{};
    lib::BufferSink sink(text);
    lib::format(sink, "VM entry failed: {}", reason::name(reason.get<ExitReasonField::Basic>()));
    check_guest_state(Loaded::still_loaded(), entry_controls_,
                      [&](std::string_view rule) { lib::format(sink, "; {}", rule); });
    return crash(sink.view());
}

void Vcpu::instruction_failed() {
    u32 const error = vmcs().read(field::VM_INSTRUCTION_ERROR);
    std::array<char, 120> text{};
    crash(lib::format_to(text, "{} failed: error {}, {}", is_launched_ ? "VMRESUME" : "VMLAUNCH", error,
                         instruction_error_name(error)));
}

void Vcpu::print_state(lib::TextSink& sink) {
    print_registers(sink);
    print_vmcs(vmcs(), sink);
}

} // namespace vmx
