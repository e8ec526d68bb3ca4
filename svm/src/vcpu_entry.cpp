// The way into the guest: requests, interrupts and the run loop.
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/registers.hpp>
#include <svm/vcpu.hpp>
#include <utility>

// svm/src/entry.S, and what it calls
extern "C" void svm_run(svm::Vcpu* vcpu, std::array<lib::u64, 16>* gprs, lib::u64 vmcb, lib::u64 host_area);

namespace svm {
namespace {

namespace x86 = lib::x86;

} // namespace

vm::Leave Vcpu::run() {
    load();
    running_on_.store(kernel::this_cpu().index, std::memory_order_seq_cst);
    if (before_entry() == After::Enter) svm_run(this, &gpr_, kernel::virt_to_phys(vmcb_).value, here_->host_area.value);
    running_on_.store(~0U, std::memory_order_seq_cst);
    return vm().state() == vm::VmState::Running ? leave_ : vm::Leave::Stopped;
}

bool measured_after_exit(Vcpu& vcpu);
// Called by the assembly loop.
bool after_exit(Vcpu& vcpu) {
    if (vcpu.exit_times() != nullptr) [[unlikely]]
        return measured_after_exit(vcpu);
    // Inlined although it stands in two places: a call would cost the usual exit ten instructions.
    [[clang::always_inline]] return vcpu.handle_exit() == Vcpu::After::Enter &&
        vcpu.before_entry() == Vcpu::After::Enter;
}
[[gnu::noinline]] bool measured_after_exit(Vcpu& vcpu) {
    return vcpu.measured(
        [&] { return vcpu.handle_exit() == Vcpu::After::Enter && vcpu.before_entry() == Vcpu::After::Enter; });
}

Vcpu::After Vcpu::before_entry() {
    if (requests_.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        if (prepare_entry() == After::Leave) return After::Leave;
    }
    if (kernel::is_work_pending()) [[unlikely]]
        return leave(vm::Leave::Work);
    if (here_->presence.enter()) [[unlikely]]
        here_->asids.expire();
    if (must_flush_ || !here_->asids.is_current(lease_)) [[unlikely]]
        renew_asid();
    vmcb_->save.rax = gpr(vm::Gpr::Rax);
    return After::Enter;
}

[[gnu::noinline]] Vcpu::After Vcpu::prepare_entry() {
    using namespace vm;
    u32 const requests = requests_.exchange(0, std::memory_order_acq_rel);
    handle_requests(requests);
    u32 const now = requests | requests_.exchange(0, std::memory_order_acq_rel); // what those caused
    if ((now & request::flush_tlb) != 0) flush_translations();
    bool const woken = deliver_events();
    if (activity_ == Activity::Halted && woken) activity_ = Activity::Running;
    if (activity_ != Activity::Running || nmi_pending_)
        requests_.fetch_or(request::look_again, std::memory_order_relaxed);
    if ((now & request::leave) != 0) return leave(vm::Leave::Work);
    if (activity_ != Activity::Running) return leave(vm::Leave::Sleep);
    return After::Enter;
}

[[gnu::noinline]] void Vcpu::renew_asid() {
    AsidPool& asids = here_->asids;
    if (asids.is_current(lease_) && capabilities_.has_flush_by_asid) {
        vmcb_->control.tlb_control = TlbControl::FlushAsid;
    } else {
        lease_ = asids.take();
        changing(clean::asid).control.asid = lease_.asid;
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
    inject(info);
}

void Vcpu::set_intercept(u32 code, bool on) {
    if (control().intercepts.has(code) != on) changing(clean::intercepts).control.intercepts.set(code, on);
}

// A virtual interrupt that never arrives: its intercept says that the guest could take one now.
void Vcpu::set_interrupt_window(bool on) {
    if (has_interrupt_window_ == on) return;
    has_interrupt_window_ = on;
    InterruptControl& interrupts = changing(clean::interrupt_control).control.interrupt_control;
    interrupts.set<InterruptControl::VirtualIrq>(on);
    interrupts.set<InterruptControl::IgnoreTpr>(on);
    set_intercept(exit_code::VINTR, on);
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

void Vcpu::write_virtual_tpr() {
    auto const priority = static_cast<u8>(apic().task_priority() >> 4);
    if (priority == virtual_tpr_) return;
    virtual_tpr_ = priority;
    changing(clean::interrupt_control).control.interrupt_control.set<InterruptControl::VirtualTpr>(priority);
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
    EventInfo info{};
    info.set<EventInfo::Vector>(was_put_off ? static_cast<u8>(std::exchange(put_off_interrupt_, -1))
                                            : vm().platform().acknowledge_pic());
    inject(info);
    if (was_put_off && has_pic) set_interrupt_window(true);
    return true;
}

// Gives the guest the most urgent event it can take now, and arranges an exit for when it can take the next. True when
// something arrived that ends a HLT.
bool Vcpu::deliver_events() {
    bool woken = has_event_;
    apic().merge_posted();
    if (nmi_pending_ && deliver_nmi()) woken = true;
    set_interrupt_window(false);
    write_virtual_tpr();
    if (deliver_interrupt()) woken = true;
    // Held back by the TPR? Then lowering it must exit.
    int const waiting = apic().highest_pending() < 0 ? apic().highest_irr() : -1;
    set_task_priority_intercept(has_interrupt_window_ ||
                                (waiting >= 0 && (apic().task_priority() & 0xf0) >= (waiting & 0xf0)));
    return woken;
}

// True when one is on its way.
bool Vcpu::deliver_interrupt() {
    bool const is_taken = inject_beside_apic();
    int const vector = apic().highest_pending();
    if (is_taken) {
        if (vector >= 0) set_interrupt_window(true);
        return true;
    }
    if (vector < 0) return false;
    if (has_event_ || !can_take_interrupt()) {
        set_interrupt_window(true);
        return false;
    }
    EventInfo info{};
    info.set<EventInfo::Vector>(static_cast<u8>(vector));
    apic().acknowledge(static_cast<u8>(vector));
    inject(info);
    if (apic().highest_pending() >= 0) requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
    return true;
}

// True when the NMI is on its way. The CPU does not say when the guest's NMI handler has ended: its IRET is
// intercepted, and when the next NMI waits already, that one instruction is stepped over.
bool Vcpu::deliver_nmi() {
    if (nmi_state_ == NmiState::AtIret && save().rip != nmi_iret_rip_) nmi_state_ = NmiState::Free;
    if (nmi_state_ == NmiState::Blocked) return false;
    if (has_event_) {
        // Look again right behind the delivery of that event: an interrupt of ours ends the guest's run there.
        kernel::local_apic().send_ipi(kernel::this_cpu().apic_id, kernel::vectors::kick);
        return false;
    }
    if (nmi_state_ == NmiState::AtIret || control().interrupt_state.get<InterruptState::Shadow>()) {
        step_over();
        return false;
    }
    EventInfo info{};
    info.set<EventInfo::Vector>(x86::exception_nmi);
    info.set<EventInfo::Type>(EventInfo::nmi);
    inject(info);
    nmi_pending_ = false;
    nmi_state_ = NmiState::Blocked;
    set_intercept(exit_code::IRET, true);
    return true;
}

void Vcpu::step_over() {
    if (is_stepping_) return;
    is_stepping_ = true;
    had_trap_flag_ = (save().rflags & x86::Rflags::TF::mask) != 0;
    dr6_before_step_ = save().dr6;
    vmcb_->save.rflags |= x86::Rflags::TF::mask;
}

} // namespace svm

extern "C" bool svm_after_exit(svm::Vcpu* vcpu);
extern "C" bool svm_after_exit(svm::Vcpu* vcpu) { return svm::after_exit(*vcpu); }
