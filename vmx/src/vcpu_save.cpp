// SPDX-License-Identifier: MIT
// What only the VMCS knows of a vCPU's state goes out and comes back.
#include <lib/x86/registers.hpp>
#include <vmx/vcpu.hpp>

namespace vmx {
namespace {

namespace x86 = lib::x86;
using vm::SavedEvents;

// Whether an instruction at RIP causes it: it does so again.
bool comes_again(InterruptionInfo info) { return info.get<InterruptionInfo::Type>() > vm::event_type::exception; }

} // namespace

void Vcpu::save_backend(vm::VcpuState& state) {
    state.idt = {vmcs().read(field::GUEST_IDTR_BASE), vmcs().read(field::GUEST_IDTR_LIMIT), 0};
    state.cr2 = saved_.cr2;
    state.breakpoints = {saved_.dr0, saved_.dr1, saved_.dr2, saved_.dr3};
    SavedEvents& events = state.events;
    events.privilege_level = static_cast<u8>(privilege_level());
    auto const blocking = vmcs().read(field::GUEST_INTERRUPTIBILITY);
    if (blocking.get<Interruptibility::BlockingBySti>()) events.shadow = SavedEvents::AfterSti;
    if (blocking.get<Interruptibility::BlockingByMovSs>()) events.shadow = SavedEvents::AfterMovSs;
    events.is_nmi_blocked = blocking.get<Interruptibility::BlockingByNmi>();
    events.pending_debug = vmcs().read(field::GUEST_PENDING_DEBUG).raw;
    auto const info = vmcs().read(field::ENTRY_INTERRUPTION_INFO);
    if (!has_event_ || comes_again(info)) return;
    events.is_on_its_way = 1;
    events.type = info.get<InterruptionInfo::Type>();
    events.vector = info.get<InterruptionInfo::Vector>();
    events.has_error_code = info.get<InterruptionInfo::HasErrorCode>();
    if (events.has_error_code != 0) events.error_code = vmcs().read(field::ENTRY_EXCEPTION_ERROR_CODE);
}

void Vcpu::restore_backend(vm::VcpuState const& state) {
    drop_events();
    SavedEvents const& events = state.events;
    // The privilege level is that of SS, also where the other vendor's CPU keeps it apart.
    if (auto stack = segment(vm::SegmentName::Ss); (stack.attributes >> 5 & 3) != events.privilege_level) {
        stack.attributes = static_cast<u16>((stack.attributes & ~0x60U) | unsigned{events.privilege_level} << 5);
        set_segment(vm::SegmentName::Ss, stack);
    }
    saved_.cr2 = state.cr2;
    saved_.dr0 = state.breakpoints[0];
    saved_.dr1 = state.breakpoints[1];
    saved_.dr2 = state.breakpoints[2];
    saved_.dr3 = state.breakpoints[3];
    Interruptibility blocking{};
    blocking.set<Interruptibility::BlockingBySti>(events.shadow == SavedEvents::AfterSti);
    blocking.set<Interruptibility::BlockingByMovSs>(events.shadow == SavedEvents::AfterMovSs);
    blocking.set<Interruptibility::BlockingByNmi>(events.is_nmi_blocked != 0);
    vmcs().write(field::GUEST_INTERRUPTIBILITY, blocking);
    PendingDebug pending{{events.pending_debug}};
    // VM entry insists on this in a shadow. [intel/vol3] 27.3.1.5
    if (events.shadow != SavedEvents::NoShadow)
        pending.set<PendingDebug::SingleStep>((state.rflags & x86::Rflags::TF::mask) != 0);
    vmcs().write(field::GUEST_PENDING_DEBUG, pending);
    if (events.is_on_its_way == 0) return;
    InterruptionInfo info{};
    info.set<InterruptionInfo::Vector>(events.vector);
    info.set<InterruptionInfo::Type>(events.type);
    info.set<InterruptionInfo::HasErrorCode>(events.has_error_code != 0);
    inject(info, events.error_code, 0);
}

} // namespace vmx
