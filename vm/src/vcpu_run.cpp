// SPDX-License-Identifier: MIT
// A vCPU between the run loop and its backend: what both vendors do around an entry and after an exit.
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/traps.hpp>
#include <vm/vm.hpp>

namespace vm {

kernel::RunResult Vcpu::run() {
    if (vm_.is_held()) return kernel::RunResult::Sleep;
    run_guest();
    return vm_.state() == VmState::Running ? leave_ : kernel::RunResult::Stopped;
}

bool Vcpu::has_wake_event() {
    if (vm_.is_held()) return false;
    u32 const requests = requests_.load(std::memory_order_acquire);
    if (activity_ == Activity::WaitForSipi) return (requests & (request::init | request::sipi | request::leave)) != 0;
    return (requests & request::wakes) != 0 || activity_ == Activity::Running || apic_.is_anything_posted();
}

kernel::RunnableIdentity Vcpu::identity() const { return {vm_.name(), id_}; }

void Vcpu::stopped() { vm_.platform().vcpu_stopped(); }

Vcpu::After Vcpu::crash(std::string_view text) {
    vm_.crash(*this, text);
    return leave(kernel::RunResult::Stopped);
}

// #AC struck while another event was delivered. Both are benign together: the later comes first, no double fault. What
// an instruction caused comes again when it is executed again; an interrupt, an NMI or a debug trap would be lost.
// [intel/vol3] 7.15 [amd/vol2] 8.2.9
void Vcpu::put_off_event(u8 type, u8 vector) {
    has_event_ = false;
    if (type == event_type::external) {
        put_off_interrupt_ = vector;
        requests_.fetch_or(request::interrupt, std::memory_order_relaxed);
        return;
    }
    if (type == event_type::nmi)
        nmi_pending_ = true;
    else if (type == event_type::exception && vector == lib::x86::exception_db)
        put_off_debug_trap_ = is_debug_trap(dr6(), dr7());
    else
        return;
    requests_.fetch_or(request::look_again, std::memory_order_relaxed);
}

void Vcpu::look_after_delivery() { kernel::local_apic().send_ipi(kernel::this_cpu().apic_id, kernel::vectors::kick); }

bool Vcpu::deliver_debug_trap() {
    if (has_event_) {
        look_after_delivery();
        return false;
    }
    put_off_debug_trap_ = false;
    inject_exception({lib::x86::exception_db, false, 0, 0});
    return true;
}

} // namespace vm
