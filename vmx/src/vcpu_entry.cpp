// SPDX-License-Identifier: MIT
// The way into the guest: requests, interrupts and the run loop.
#include <algorithm>
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/registers.hpp>
#include <utility>
#include <vm/exit_loop.hpp>
#include <vmx/ept_space.hpp>
#include <vmx/vcpu.hpp>

// vmx/src/entry.S, and what it calls
extern "C" void vmx_run(vmx::Vcpu* vcpu, std::array<lib::u64, 16>* gprs, bool is_launched);
extern "C" bool vmx_after_exit(std::array<lib::u64, 16>* gprs);
extern "C" void vmx_entry_failed(vmx::Vcpu* vcpu);

namespace vmx {
namespace {

namespace x86 = lib::x86;

} // namespace

void entry_instruction_failed(Vcpu& vcpu) { vcpu.instruction_failed(); }

void Vcpu::run_guest() {
    load();
    running_on_.store(kernel::this_cpu().index, std::memory_order_seq_cst);
    if (apic().is_anything_posted()) requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
    if (before_entry() == After::Enter) vmx_run(this, &gpr_, std::exchange(is_launched_, true));
    running_on_.store(~0U, std::memory_order_seq_cst);
    if (preemption_deadline_ != no_deadline) hand_timer_to_kernel();
}

Vcpu::After Vcpu::before_entry() {
    if (requests_.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        if (ExitLoop::prepare_entry(*this) == After::Leave) return After::Leave;
    }
    if (preemption_deadline_ != no_deadline) load_preemption_timer();
    if (kernel::is_work_pending()) [[unlikely]]
        return leave(kernel::RunResult::Work);
    return After::Enter;
}

// The APIC timer of a vCPU that runs is the VMX-preemption timer, where the CPU has one: it exits without an interrupt
// of ours. It counts down in the guest only, so every entry says anew how long. [intel/vol3] 26.5.1
[[gnu::noinline]] void Vcpu::load_preemption_timer() {
    u64 const now = x86::rdtsc();
    u64 const ahead = preemption_deadline_ > now ? preemption_deadline_ - now : 0;
    // Rounded up, so that it is never early but for a deadline too far for its 32 bits.
    u64 const ticks =
        (ahead >> capabilities_.preemption_timer_shift) + (capabilities_.preemption_timer_shift != 0 ? 1 : 0);
    vmcs().write(field::PREEMPTION_TIMER_VALUE, static_cast<u32>(std::min<u64>(ticks, ~u32{0})));
}

void Vcpu::set_preemption_timer(u64 deadline) {
    bool const on = deadline != no_deadline;
    if (on != (preemption_deadline_ != no_deadline)) {
        pin_controls_.set<PinControls::ActivatePreemptionTimer>(on);
        vmcs().write(field::PIN_CONTROLS, pin_controls_);
    }
    preemption_deadline_ = deadline;
}

// The vCPU stops running, its timer does not.
void Vcpu::hand_timer_to_kernel() {
    u64 const deadline = preemption_deadline_;
    set_preemption_timer(no_deadline);
    kernel::arm_timer(apic_timer_, deadline);
}

void Vcpu::arm_timer(u64 deadline_guest_tsc) {
    bool const runs_here = running_on_.load(std::memory_order_relaxed) == kernel::this_cpu().index;
    if (!capabilities_.has_preemption_timer() || !runs_here) return vm::Vcpu::arm_timer(deadline_guest_tsc);
    kernel::cancel_timer(apic_timer_);
    set_preemption_timer(host_deadline(deadline_guest_tsc));
}

void Vcpu::disarm_timer() {
    if (preemption_deadline_ != no_deadline) set_preemption_timer(no_deadline);
    vm::Vcpu::disarm_timer();
}

void Vcpu::take_backend_requests(u32 requests) {
    using namespace vm;
    if ((requests & request::apic_mode) != 0) apply_apic_mode();
    if ((requests & (request::eoi_bitmap | request::apic_mode)) != 0) apply_eoi_bitmap();
    if ((requests & request::flush_tlb) != 0) flush_translations();
}

// Posted interrupts: the CPU takes them from the descriptor when it is told by vectors::notify. It does not set TMR, so
// that a level-triggered one that it took would get no EOI: those wait elsewhere, for the owner.
void Vcpu::post_to_hardware(u8 vector, vm::TriggerMode trigger) {
    if (trigger == vm::TriggerMode::Level) return post_to_owner(vector, trigger);
    if (!apic().descriptor()->post(vector, trigger)) return;
    u32 const where = running_on_.load(std::memory_order_acquire);
    if (where == ~0U || where == kernel::this_cpu().index) return post(vm::request::interrupt);
    // Should it leave the guest meanwhile, run() or has_wake_event() finds what was posted.
    kernel::local_apic().send_ipi(kernel::cpu(where).apic_id, kernel::vectors::notify);
}

void Vcpu::flush_translations() {
    // EPT changes are flushed by who makes them; this is about what the guest's paging has cached.
    if (vpid_ == 0) return; // every entry flushes
    x86::InvvpidDescriptor const descriptor{vpid_, {}, 0};
    ASSERT(x86::invvpid(capabilities_.ept_vpid.get<EptVpidCapabilities::InvvpidSingle>() ? invvpid_single : invvpid_all,
                        descriptor));
}

void Vcpu::flush_guest_physical() const {
    u64 const type = capabilities_.ept_vpid.get<EptVpidCapabilities::InveptSingle>() ? invept_single : invept_all;
    ASSERT(x86::invept(type, {static_cast<EptSpace&>(vm_.space()).pointer().raw, 0}));
}

void Vcpu::apply_apic_mode() {
    using Mode = vm::LocalApic::Mode;
    using C2 = CpuControls2;
    Mode const mode = apic().mode();
    bool const xapic = mode == Mode::XApic && capabilities_.has_apic_accesses();
    bool const x2apic = mode == Mode::X2Apic && capabilities_.has_x2apic_mode();
    bool const registers = (xapic || x2apic) && capabilities_.has_register_virtualization();
    is_delivery_virtualized_ = (xapic || x2apic) && capabilities_.has_interrupt_delivery();
    bool const posted = is_delivery_virtualized_ && capabilities_.has_posted_interrupts();
    pin_controls_.set<PinControls::ProcessPostedInterrupts>(posted);
    vmcs().write(field::PIN_CONTROLS, pin_controls_);
    takes_posted_.store(posted, std::memory_order_relaxed);
    if (cpu2_controls_.get<C2::VirtualizeApicAccesses>() != xapic) {
        // Translations from before would let the guest past the control to the page itself. [intel/vol3] 30.4.5
        has_changed_apic_accesses_ = has_applied_apic_mode_;
        flush_guest_physical();
    }
    has_applied_apic_mode_ = true;
    cpu2_controls_.set<C2::VirtualizeApicAccesses>(xapic);
    cpu2_controls_.set<C2::VirtualizeX2apicMode>(x2apic);
    cpu2_controls_.set<C2::ApicRegisterVirtualization>(registers);
    cpu2_controls_.set<C2::VirtualInterruptDelivery>(is_delivery_virtualized_);
    vmcs().write(field::CPU_CONTROLS2, cpu2_controls_);
    if (xapic) vmcs().write(field::APIC_ACCESS_ADDRESS, static_cast<EptSpace&>(vm().space()).apic_access_page().value);
    set_tpr_threshold(0);
    apic().set_virtualized(is_delivery_virtualized_);
    if (is_delivery_virtualized_) {
        GuestInterruptStatus status{};
        int const in_service = apic().highest_isr();
        if (in_service >= 0) status.set<GuestInterruptStatus::Servicing>(static_cast<u8>(in_service));
        vmcs().write(field::GUEST_INTERRUPT_STATUS, status);
    }
    intercept_x2apic();
    requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
}

void Vcpu::intercept_x2apic() {
    constexpr u32 first = x86::IA32_X2APIC_BASE, count = 0x40;
    bool const mode = cpu2_controls_.get<CpuControls2::VirtualizeX2apicMode>();
    bool const registers = mode && cpu2_controls_.get<CpuControls2::ApicRegisterVirtualization>();
    using namespace vm::apic_reg;
    for (u32 index = 0; index < count; index++) {
        u32 const offset = index * 16;
        // Registers whose value in the page is what RDMSR returns; the rest is not readable or counts down.
        bool const is_plain = offset == ID || offset == VERSION || (offset == PPR && is_delivery_virtualized_) ||
                              offset == LDR || offset == SVR || (offset >= ISR && offset < ESR) || offset == ESR ||
                              offset == INITIAL_COUNT || offset == DIVIDE ||
                              (offset >= LVT_TIMER && offset <= LVT_ERROR);
        bool const pass_read = (registers && is_plain) || (mode && offset == TPR);
        bool const pass_write =
            (mode && offset == TPR) || (is_delivery_virtualized_ && mode && (offset == EOI || offset == SELF_IPI));
        pass_msr(first + index, pass_read, pass_write);
    }
}

void Vcpu::apply_eoi_bitmap() {
    if (!is_delivery_virtualized_) return;
    auto const vectors = vm().platform().eoi_vectors();
    vmcs().write(field::EOI_EXIT_BITMAP_0, vectors[0]);
    vmcs().write(field::EOI_EXIT_BITMAP_1, vectors[1]);
    vmcs().write(field::EOI_EXIT_BITMAP_2, vectors[2]);
    vmcs().write(field::EOI_EXIT_BITMAP_3, vectors[3]);
}

bool Vcpu::can_take_interrupt() {
    if ((vmcs().read(field::GUEST_RFLAGS) & x86::Rflags::IF::mask) == 0) return false;
    return (vmcs().read(field::GUEST_INTERRUPTIBILITY).raw & Interruptibility::shadow) == 0;
}

void Vcpu::inject(InterruptionInfo info, u32 error_code, u32 instruction_length) {
    info.set<InterruptionInfo::Valid>(true);
    vmcs().write(field::ENTRY_INTERRUPTION_INFO, info);
    if (info.get<InterruptionInfo::HasErrorCode>()) vmcs().write(field::ENTRY_EXCEPTION_ERROR_CODE, error_code);
    if (instruction_length != 0) vmcs().write(field::ENTRY_INSTRUCTION_LENGTH, instruction_length);
    has_event_ = true;
}

void Vcpu::inject_exception(vm::Exception const& exception) {
    InterruptionInfo info{};
    info.set<InterruptionInfo::Vector>(exception.vector);
    info.set<InterruptionInfo::Type>(InterruptionInfo::hardware_exception);
    // Real mode has no error codes. [intel/vol3] 27.2.1.3
    info.set<InterruptionInfo::HasErrorCode>(exception.has_error_code && (cr0() & x86::Cr0::PE::mask) != 0);
    if (exception.vector == x86::exception_pf) x86::write_cr2(exception.cr2);
    if (vm::is_fault(exception.vector)) // VM entry pushes RFLAGS as they are. [intel/vol3] 27.6.1
        vmcs().write(field::GUEST_RFLAGS, vmcs().read(field::GUEST_RFLAGS) | x86::Rflags::RF::mask);
    // A fault ends no shadow, but VM entry refuses to inject past one of MOV SS.
    inject(info, exception.error_code, 0);
}

void Vcpu::set_interrupt_window(bool on) {
    if (cpu_controls_.get<CpuControls::InterruptWindowExiting>() == on) return;
    cpu_controls_.set<CpuControls::InterruptWindowExiting>(on);
    vmcs().write(field::CPU_CONTROLS, cpu_controls_);
}

// A threshold above the TPR's class fails VM entry, so it never outlives its reason. [intel/vol3] 27.2.1.1
void Vcpu::set_tpr_threshold(u32 priority_class) {
    if (tpr_threshold_ == priority_class || !capabilities_.has_tpr_shadow()) return;
    tpr_threshold_ = priority_class;
    vmcs().write(field::TPR_THRESHOLD, priority_class);
}

void Vcpu::set_nmi_window(bool on) {
    if (cpu_controls_.get<CpuControls::NmiWindowExiting>() == on) return;
    cpu_controls_.set<CpuControls::NmiWindowExiting>(on);
    vmcs().write(field::CPU_CONTROLS, cpu_controls_);
}

// An interrupt that the APIC does not wait with: the one put off, else the 8259 pair's when LINT0 lets it through. True
// when it is on its way.
bool Vcpu::inject_beside_apic() {
    bool const has_pic = id() == 0 && vm().platform().has_pic_interrupt() && apic().accepts_pic();
    bool const was_put_off = put_off_interrupt_ >= 0;
    if (!was_put_off && !has_pic) return false;
    if (has_event_ || !can_take_interrupt()) {
        set_interrupt_window(true);
        return false;
    }
    InterruptionInfo info{};
    info.set<InterruptionInfo::Vector>(was_put_off ? static_cast<u8>(std::exchange(put_off_interrupt_, -1))
                                                   : vm().platform().acknowledge_pic());
    inject(info, 0, 0);
    if (was_put_off && has_pic) set_interrupt_window(true);
    return true;
}

bool Vcpu::deliver_events() {
    bool woken = has_event_;
    if (put_off_debug_trap_ && deliver_debug_trap()) [[unlikely]]
        woken = true;
    apic().merge_posted();
    if (nmi_pending_) {
        bool const blocked = vmcs().read(field::GUEST_INTERRUPTIBILITY).raw != 0;
        if (!has_event_ && !blocked) {
            InterruptionInfo info{};
            info.set<InterruptionInfo::Vector>(x86::exception_nmi);
            info.set<InterruptionInfo::Type>(InterruptionInfo::nmi);
            inject(info, 0, 0);
            nmi_pending_ = false;
            set_nmi_window(false);
            woken = true;
        } else {
            set_nmi_window(true);
        }
    }
    if (is_delivery_virtualized_) return deliver_virtualized() || woken;

    set_interrupt_window(false);
    int const vector = apic().highest_pending();
    // Held back by the TPR? Then lowering it must exit. [intel/vol3] 30.1.2
    int const waiting = vector < 0 ? apic().highest_irr() : -1;
    bool const is_held_back = waiting >= 0 && (apic().task_priority() & 0xf0) >= (waiting & 0xf0);
    set_tpr_threshold(is_held_back ? static_cast<u32>(waiting) >> 4 : 0);
    if (inject_beside_apic()) {
        if (vector >= 0) set_interrupt_window(true);
        return true;
    }
    if (vector < 0) return woken;
    if (has_event_ || !can_take_interrupt()) {
        set_interrupt_window(true);
        return woken;
    }
    InterruptionInfo info{};
    info.set<InterruptionInfo::Vector>(static_cast<u8>(vector));
    apic().acknowledge(static_cast<u8>(vector));
    inject(info, 0, 0);
    if (apic().highest_pending() >= 0) requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
    return true;
}

bool Vcpu::deliver_virtualized() {
    // The CPU evaluates RVI against the PPR at entry and after. [intel/vol3] 30.2
    int const highest = apic().highest_irr();
    auto status = vmcs().read(field::GUEST_INTERRUPT_STATUS);
    u8 const requesting = highest < 0 ? u8{0} : static_cast<u8>(highest);
    if (status.get<GuestInterruptStatus::Requesting>() != requesting) {
        status.set<GuestInterruptStatus::Requesting>(requesting);
        vmcs().write(field::GUEST_INTERRUPT_STATUS, status);
    }
    set_interrupt_window(false);
    bool const is_taken = inject_beside_apic();
    if (activity_ == vm::Activity::Running) return is_taken; // nobody to be woken
    // HLT ends when the interrupt can be taken: IF is on (we only sleep then or for ever) and the class beats the PPR,
    // which here is the hardware's: from the page.
    int const priority = std::max(apic().highest_isr(), int{apic().task_priority()});
    bool const deliverable =
        (requesting & 0xf0) > (priority & 0xf0) && (vmcs().read(field::GUEST_RFLAGS) & x86::Rflags::IF::mask) != 0;
    return is_taken || deliverable;
}

} // namespace vmx

bool vmx_after_exit(std::array<lib::u64, 16>* gprs) {
    return vm::ExitLoop<vmx::Vcpu>::after_exit(vmx::Vcpu::around(gprs));
}
void vmx_entry_failed(vmx::Vcpu* vcpu) { vmx::entry_instruction_failed(*vcpu); }
