// SPDX-License-Identifier: MIT
// The way into the guest: requests, interrupts and the run loop.
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/registers.hpp>
#include <svm/vcpu.hpp>
#include <utility>
#include <vm/exit_loop.hpp>
#include <vm/guest_walk.hpp>

// svm/src/entry.S, and what it calls
extern "C" void svm_run(svm::Vcpu* vcpu, std::array<lib::u64, 16>* gprs, lib::u64 vmcb, lib::u64 host_area);

namespace svm {
namespace {

namespace x86 = lib::x86;

} // namespace

void Vcpu::run_guest() {
    load();
    running_on_.store(kernel::this_cpu().index, std::memory_order_seq_cst);
    if (avic_mode_ != AvicMode::Off) publish_avic();
    if (before_entry() == After::Enter) svm_run(this, &gpr_, kernel::virt_to_phys(vmcb_).value, here_->host_area.value);
    running_on_.store(~0U, std::memory_order_seq_cst);
    if (avic_mode_ != AvicMode::Off) leave_avic();
}

Vcpu::After Vcpu::before_entry() {
    if (requests_.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        if (ExitLoop::prepare_entry(*this) == After::Leave) return After::Leave;
    }
    if (kernel::is_work_pending()) [[unlikely]]
        return leave(kernel::RunResult::Work);
    CpuState& here = *here_; // once: what is written below could alias the pointers
    if (here.presence.enter()) [[unlikely]]
        here.asids.expire();
    if (must_flush_ || !here.asids.is_current(lease_)) [[unlikely]]
        renew_asid();
    Vmcb& vmcb = *vmcb_;
    vmcb.save.rax = gpr(vm::Gpr::Rax);
    entered_rip_ = vmcb.save.rip;
    return After::Enter;
}

void Vcpu::take_backend_requests(u32 requests) {
    if ((requests & vm::request::flush_tlb) != 0) flush_translations();
}

[[gnu::noinline]] void Vcpu::renew_asid() {
    AsidPool& asids = here_->asids;
    if (asids.is_current(lease_) && capabilities_.has_flush_by_asid) {
        vmcb_->control.tlb_control = TlbControl::FlushAsid;
    } else {
        lease_ = asids.take();
        changing(clean::asid).control.asid = lease_.asid;
        // Where another vCPU of this VM ran before, a fresh ASID does not keep its APIC page away. [amd/vol2] 15.29.4.3
        if (avic_mode_ == AvicMode::XApic) vmcb_->control.tlb_control = TlbControl::FlushAsid;
    }
    if (asids.take_flush()) vmcb_->control.tlb_control = TlbControl::FlushAll;
    must_flush_ = false;
}

bool Vcpu::can_take_interrupt() const {
    return (save().rflags & x86::Rflags::IF::mask) != 0 && !control().interrupt_state.get<InterruptState::Shadow>();
}

void Vcpu::inject(EventInfo info) {
    info.set<EventInfo::Valid>(true);
    vmcb_->control.event_injection = info;
    has_event_ = true;
}

void Vcpu::inject_exception(vm::Exception const& exception) {
    EventInfo info{};
    info.set<EventInfo::Vector>(exception.vector);
    info.set<EventInfo::Type>(EventInfo::exception);
    // Real mode has no error codes.
    if (exception.has_error_code && (cr0() & x86::Cr0::PE::mask) != 0) {
        info.set<EventInfo::HasErrorCode>(true);
        info.set<EventInfo::ErrorCode>(exception.error_code);
    }
    if (exception.vector == x86::exception_pf) changing(clean::cr2).save.cr2 = exception.cr2;
    if (vm::is_fault(exception.vector)) vmcb_->save.rflags |= x86::Rflags::RF::mask; // VMRUN pushes RFLAGS as they are
    inject(info);
}

void Vcpu::set_intercept(u32 code, bool on) {
    if (control().intercepts.has(code) != on) changing(clean::intercepts).control.intercepts.set(code, on);
}

// What V_IRQ is for; nobody else writes this field. The CPU compares V_TPR with the vector's class itself, unless
// IgnoreTpr says that nobody may hold this one back. [amd/vol2] 15.21.4
void Vcpu::set_virtual_interrupt(VirtualInterrupt use, u8 vector) {
    InterruptControl interrupts = interrupt_control_of_mode_;
    interrupts.set<InterruptControl::VirtualTpr>(virtual_tpr_);
    interrupts.set<InterruptControl::VirtualIrq>(use != VirtualInterrupt::None);
    interrupts.set<InterruptControl::IgnoreTpr>(use == VirtualInterrupt::Window || put_off_interrupt_ >= 0);
    interrupts.set<InterruptControl::Priority>(static_cast<u8>(vector >> 4));
    interrupts.set<InterruptControl::Vector>(vector);
    virtual_interrupt_ = use;
    if (interrupts.raw != control().interrupt_control.raw)
        changing(clean::interrupt_control).control.interrupt_control = interrupts;
    set_intercept(exit_code::VINTR, use == VirtualInterrupt::Window);
}

// While an interrupt waits for a lower TPR, lowering it by CR8 must exit. While one waits for anything else, a write to
// CR8 aborts QEMU 7.2 (tcg_handle_interrupt), so it exits then too.
void Vcpu::set_task_priority_intercept(bool on) {
    if (has_tpr_intercept_ == on) return;
    has_tpr_intercept_ = on;
    constexpr u32 cr8 = 1U << 8;
    u16& writes = changing(clean::intercepts).control.intercepts.cr_writes;
    writes = static_cast<u16>(on ? writes | cr8 : writes & ~cr8);
}

bool Vcpu::deliver_events() {
    bool woken = has_event_;
    if (put_off_debug_trap_ && deliver_debug_trap()) [[unlikely]]
        woken = true;
    apic().merge_posted();
    if (nmi_pending_ && deliver_nmi()) woken = true;
    if (avic_ != nullptr && deliver_by_avic(woken)) return woken;
    virtual_tpr_ = static_cast<u8>(apic().task_priority() >> 4);
    if (deliver_interrupt()) woken = true;
    // Held back by the TPR? Then lowering it must exit.
    int const waiting = apic().highest_pending() < 0 ? apic().highest_irr() : -1;
    bool const stands = virtual_interrupt_ != VirtualInterrupt::None && !is_takeable_;
    set_task_priority_intercept(stands || (waiting >= 0 && (apic().task_priority() & 0xf0) >= (waiting & 0xf0)));
    return woken;
}

// The interrupt put off, else the 8259 pair's when LINT0 lets it through, else the APIC's. True when the guest takes
// one now.
bool Vcpu::deliver_interrupt() {
    auto const has_pic = [this] { return id() == 0 && vm().platform().has_pic_interrupt() && apic().accepts_pic(); };
    int const vector = apic().highest_pending();
    bool pic = has_pic();
    is_takeable_ = can_take_interrupt() && !has_event_;
    if (pic && put_off_interrupt_ < 0 && is_takeable_) {
        put_off_interrupt_ = vm().platform().acknowledge_pic();
        pic = has_pic();
    }
    bool const is_put_off = put_off_interrupt_ >= 0;
    if (is_stepping_ || (!pic && !is_put_off && vector < 0)) { // the step's trap comes first
        set_virtual_interrupt(VirtualInterrupt::None);
        return false;
    }
    if (pic || (is_put_off && vector >= 0)) {
        // Who comes next must know when the guest can take it: that takes V_IRQ for itself.
        if (is_put_off && is_takeable_) inject_interrupt(static_cast<u8>(std::exchange(put_off_interrupt_, -1)));
        set_virtual_interrupt(VirtualInterrupt::Window);
        return is_takeable_;
    }
    offer(static_cast<u8>(is_put_off ? put_off_interrupt_ : vector));
    return is_takeable_;
}

// One that the guest can take is injected; for any other the CPU waits by itself, and settle_offer() sees whether it
// has taken it.
void Vcpu::offer(u8 vector) {
    if (!is_takeable_ || capabilities_.quirks.repeats_injected_interrupts)
        return set_virtual_interrupt(VirtualInterrupt::Offer, vector);
    interrupt_taken(vector);
    inject_interrupt(vector);
    set_virtual_interrupt(VirtualInterrupt::None);
}

void Vcpu::interrupt_taken(u8 vector) {
    if (put_off_interrupt_ >= 0)
        put_off_interrupt_ = -1; // was acknowledged long ago
    else
        apic().acknowledge(vector);
}

void Vcpu::inject_interrupt(u8 vector) {
    EventInfo info{};
    info.set<EventInfo::Vector>(vector);
    inject(info);
}

// True when the NMI is on its way. The CPU does not say when the guest's NMI handler has ended: its IRET is
// intercepted, and when the next NMI waits already, that one instruction is stepped over.
bool Vcpu::deliver_nmi() {
    if (is_stepping_) end_step(); // an exit came before the trap: perhaps one more step is needed
    if (nmi_state_ == NmiState::AtIret && save().rip != nmi_iret_rip_) nmi_state_ = NmiState::Free;
    if (nmi_state_ == NmiState::Blocked) return false;
    if (has_event_) {
        look_after_delivery();
        return false;
    }
    bool const is_in_shadow = control().interrupt_state.get<InterruptState::Shadow>();
    if (nmi_state_ == NmiState::AtIret || (is_in_shadow && !is_before_system_call())) {
        step_over();
        return false;
    }
    if (is_in_shadow) vmcb_->control.interrupt_state = {};
    EventInfo info{};
    info.set<EventInfo::Vector>(x86::exception_nmi);
    info.set<EventInfo::Type>(EventInfo::nmi);
    inject(info);
    nmi_pending_ = false;
    nmi_state_ = NmiState::Blocked;
    set_intercept(exit_code::IRET, true);
    return true;
}

// SYSCALL keeps TF in R11, SYSENTER may never trap, and neither can be intercepted.
bool Vcpu::is_before_system_call() {
    std::array<u8, 16> code{};
    return vm::fetch_code(*this, code) >= 2 && code[0] == 0x0f && (code[1] == 0x05 || code[1] == 0x34);
}

// Runs one instruction of the guest with TF set, of which nothing may see the flag: not a fault's handler, not PUSHF,
// not INT n. All of these exit instead. Each exit ends the step, done or not.
void Vcpu::step_over() {
    is_stepping_ = true;
    had_trap_flag_ = (save().rflags & x86::Rflags::TF::mask) != 0;
    step_rip_ = save().rip;
    dr6_before_step_ = save().dr6;
    changing(clean::debug_registers).save.dr6 &= ~dr6_single_step; // so that its trap can be told
    vmcb_->save.rflags |= x86::Rflags::TF::mask;
    intercept_step(true);
}

void Vcpu::end_step() {
    is_stepping_ = false;
    intercept_step(false);
    if (!had_trap_flag_) vmcb_->save.rflags &= ~u64{x86::Rflags::TF::mask};
    changing(clean::debug_registers).save.dr6 |= dr6_before_step_ & dr6_single_step;
}

void Vcpu::intercept_step(bool on) {
    Intercepts& intercepts = changing(clean::intercepts).control.intercepts;
    intercepts.exceptions = on ? every_exception : intercepted_exceptions;
    for (u32 const code : {exit_code::PUSHF, exit_code::POPF, exit_code::INTN})
        intercepts.set(code, on);
    if (nmi_state_ == NmiState::Free) intercepts.set(exit_code::IRET, on);
}

} // namespace svm

extern "C" bool svm_after_exit(svm::Vcpu* vcpu);
extern "C" bool svm_after_exit(svm::Vcpu* vcpu) { return vm::ExitLoop<svm::Vcpu>::after_exit(*vcpu); }
