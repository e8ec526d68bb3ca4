// SPDX-License-Identifier: MIT
// What only the VMCB knows of a vCPU's state goes out and comes back.
#include <lib/x86/registers.hpp>
#include <svm/vcpu.hpp>

namespace svm {

namespace x86 = lib::x86;
using vm::SavedEvents;

void Vcpu::save_backend(vm::VcpuState& state) {
    if (is_stepping_) { // what it is for is found again before the next entry
        end_step();
        requests_.fetch_or(vm::request::look_again, std::memory_order_relaxed);
    }
    state.idt = {save().idtr.base, save().idtr.limit, 0};
    state.cr2 = save().cr2;
    state.breakpoints = {saved_.dr0, saved_.dr1, saved_.dr2, saved_.dr3};
    SavedEvents& events = state.events;
    events.privilege_level = save().cpl;
    // The VMCB knows one shadow only. STI's needs the flag, and nothing tells the two apart otherwise.
    if (control().interrupt_state.get<InterruptState::Shadow>())
        events.shadow = (save().rflags & x86::Rflags::IF::mask) != 0 ? SavedEvents::AfterSti : SavedEvents::AfterMovSs;
    bool const is_before_iret = nmi_state_ == NmiState::AtIret && save().rip == nmi_iret_rip_;
    events.is_nmi_blocked = nmi_state_ == NmiState::Blocked || is_before_iret;
    if (!has_event_) return;
    EventInfo const event = control().event_injection;
    events.is_on_its_way = 1;
    events.type = event.get<EventInfo::Type>();
    events.vector = event.get<EventInfo::Vector>();
    events.has_error_code = event.get<EventInfo::HasErrorCode>();
    if (events.has_error_code != 0) events.error_code = event.get<EventInfo::ErrorCode>();
}

void Vcpu::restore_backend(vm::VcpuState const& state) {
    drop_events();
    SavedEvents const& events = state.events;
    vmcb_->save.cpl = events.privilege_level;
    changing(clean::cr2).save.cr2 = state.cr2;
    saved_ = {.dr0 = state.breakpoints[0],
              .dr1 = state.breakpoints[1],
              .dr2 = state.breakpoints[2],
              .dr3 = state.breakpoints[3]};
    vmcb_->control.interrupt_state.set<InterruptState::Shadow>(events.shadow != SavedEvents::NoShadow);
    if (events.is_nmi_blocked != 0) {
        nmi_state_ = NmiState::Blocked;
        set_intercept(exit_code::IRET, true);
    }
    if (events.is_on_its_way != 0) {
        EventInfo info{};
        info.set<EventInfo::Vector>(events.vector);
        info.set<EventInfo::Type>(events.type);
        if (events.has_error_code != 0) {
            info.set<EventInfo::HasErrorCode>(true);
            info.set<EventInfo::ErrorCode>(events.error_code);
        }
        inject(info);
    }
    // The CPU cannot be given a trap to deliver later.
    put_off_debug_trap_ = events.pending_debug != 0;
    // The other vCPUs may send interrupts before this one has run.
    if (avic_ != nullptr) publish_avic();
}

} // namespace svm
