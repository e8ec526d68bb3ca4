// SPDX-License-Identifier: MIT
// AVIC as one vCPU uses it. [amd/vol2] 15.29
#include <algorithm>
#include <kernel/cpus.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <svm/npt_space.hpp>
#include <svm/vcpu.hpp>
#include <vm/exit_loop.hpp>

namespace svm {
namespace {

namespace x86 = lib::x86;
using vm::Exit;
using vm::ExitReason;
namespace reg = vm::apic_reg;

constexpr u32 first_vector = 16; // those below are errors

} // namespace

void Vcpu::build_avic() {
    NptSpace& space = static_cast<NptSpace&>(vm().space());
    avic_ = space.avic();
    if (avic_ == nullptr) return;
    if (capabilities_.has_clean_bits) clean_after_exit_ |= clean::avic;
    ControlArea& control = changing(clean::avic).control;
    control.avic_apic_bar = vm::apic_base::default_address;
    control.avic_backing_page = kernel::virt_to_phys(&apic_page_).value;
    control.avic_logical_table = avic_->logical_table().value;
    control.avic_physical_table = avic_->physical_table().value | (vm().vcpu_count() - 1);
}

AvicMode Vcpu::wanted_avic_mode() {
    using Mode = vm::LocalApic::Mode;
    if (!apic().is_software_enabled()) return AvicMode::Off;
    // What reaches the guest beside the APIC needs V_IRQ, which AVIC ignores; a step would be taken by an interrupt.
    if (put_off_interrupt_ >= 0 || is_stepping_ || (id() == 0 && apic().accepts_pic())) return AvicMode::Off;
    switch (apic().mode()) {
    case Mode::Disabled: break;
    case Mode::XApic: return AvicMode::XApic;
    case Mode::X2Apic: return capabilities_.has_x2avic ? AvicMode::X2Apic : AvicMode::Off;
    }
    return AvicMode::Off;
}

void Vcpu::set_avic_mode(AvicMode mode) {
    bool const on = mode != AvicMode::Off, is_x2apic = mode == AvicMode::X2Apic;
    // From here on who posts tells us, and find_requests() looks for what was posted until now.
    if (!on) takes_posted_.store(false, std::memory_order_seq_cst);
    avic_mode_ = mode;
    interrupt_control_of_mode_.set<InterruptControl::AvicEnable>(on);
    interrupt_control_of_mode_.set<InterruptControl::X2AvicEnable>(is_x2apic);
    set_virtual_interrupt(VirtualInterrupt::None); // an offer is made again if need be
    set_task_priority_intercept(false);
    NptSpace const& space = static_cast<NptSpace&>(vm().space());
    ControlArea& control = changing(clean::avic | clean::nested_paging | clean::permission_maps).control;
    control.nested_cr3 = (mode == AvicMode::XApic ? space.root_with_apic() : space.root()).value;
    control.msrpm_base = (is_x2apic ? backend_.x2avic_msr_permissions() : backend_.msr_permissions()).value;
    flush_translations();
    apic().set_virtualized(on);
    if (on) takes_posted_.store(true, std::memory_order_seq_cst);
}

// Doorbell and table take ids of 8 bits, with x2AVIC 12. CPUs beyond are interrupted by kicks.
bool Vcpu::has_doorbell(u32 apic_id) const { return apic_id <= (capabilities_.has_x2avic ? 0xfffU : 0xffU); }

// What the CPUs of the others are told of this vCPU.
void Vcpu::publish_avic() {
    using Mode = vm::LocalApic::Mode;
    Mode const mode = apic().mode();
    PhysicalIdEntry entry{{kernel::virt_to_phys(&apic_page_).value & PhysicalIdEntry::page_mask}};
    // An APIC that accepts nothing is not there: who sends to it alone exits, who sends to all goes past it.
    entry.set<PhysicalIdEntry::Valid>(mode != Mode::Disabled && apic().is_software_enabled());
    u32 const where = running_on_.load(std::memory_order_relaxed);
    if (avic_mode_ != AvicMode::Off && where != ~0U && capabilities_.has_avic_running &&
        has_doorbell(kernel::cpu(where).apic_id)) {
        entry.set<PhysicalIdEntry::IsRunning>(true);
        entry.set<PhysicalIdEntry::HostApicId>(kernel::cpu(where).apic_id);
    }
    if (entry.raw != published_entry_.raw) avic_->set_physical(id(), entry);
    published_entry_ = entry;

    constexpr u64 valid = lib::bit(63), flat = lib::bit(40);
    u64 const address = (entry.get<PhysicalIdEntry::Valid>() ? valid : 0) | (apic().is_flat() ? flat : 0) |
                        u64{static_cast<u8>(mode)} << 32 | u64{apic().logical_id()};
    if (address == published_address_) return;
    published_address_ = address;
    avic_->update_logical(vm());
}

// run() has ended. Who sees the vCPU run sets IRR before that, and it is looked at here; who does not wakes it.
void Vcpu::leave_avic() {
    publish_avic();
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (leave_ == kernel::RunResult::Sleep && has_deliverable())
        requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
}

bool Vcpu::has_deliverable() {
    int const vector = apic().highest_irr();
    int const priority = std::max(apic().highest_isr(), int{apic().task_priority()});
    return vector >= 0 && (vector & 0xf0) > (priority & 0xf0) && (save().rflags & x86::Rflags::IF::mask) != 0;
}

// True when AVIC delivers the APIC's interrupts.
bool Vcpu::deliver_by_avic(bool& woken) {
    AvicMode const wanted = wanted_avic_mode();
    if (wanted != avic_mode_) set_avic_mode(wanted);
    publish_avic();
    if (avic_mode_ == AvicMode::Off) {
        apic().find_requests();
        return false;
    }
    // The CPU keeps V_TPR and the page together when the guest writes one of them, not when we do.
    if (auto const priority = static_cast<u8>(apic().task_priority() >> 4); priority != virtual_tpr_) {
        virtual_tpr_ = priority;
        set_virtual_interrupt(VirtualInterrupt::None);
    }
    if (activity_ != vm::Activity::Running && has_deliverable()) woken = true;
    return true;
}

void Vcpu::post_to_hardware(u8 vector, vm::TriggerMode trigger) {
    u32 const offset = (vector / 32U) * 16, mask = vm::ApicPage::vector_bit(vector);
    // Errors and what is or was level-triggered, whose bit in TMR is the owner's, are not for the CPU.
    bool const was_level = (apic_page_.shared(reg::TMR + offset).load(std::memory_order_relaxed) & mask) != 0;
    if (trigger == vm::TriggerMode::Level || vector < first_vector || was_level) return post_to_owner(vector, trigger);
    apic_page_.shared(reg::IRR + offset).fetch_or(mask, std::memory_order_seq_cst);
    notify_posted();
}

// IRR has something new, set by another CPU.
void Vcpu::notify_posted() {
    if (!takes_posted_.load(std::memory_order_seq_cst)) return post(vm::request::interrupt);
    u32 const where = running_on_.load(std::memory_order_seq_cst);
    if (where == ~0U) return post(vm::request::interrupt);
    if (where == kernel::this_cpu().index) {
        requests_.fetch_or(vm::request::interrupt, std::memory_order_relaxed);
        return;
    }
    u32 const apic_id = kernel::cpu(where).apic_id;
    if (!has_doorbell(apic_id)) return post(vm::request::interrupt);
    x86::wrmsr(AVIC_DOORBELL, apic_id); // outside of a guest it does nothing, and VMRUN looks at IRR
}

// The CPU has set IRR of every target, and one of them at least does not run.
void Vcpu::notify_targets(u64 icr) {
    auto const low = static_cast<u32>(icr), high = static_cast<u32>(icr >> 32);
    constexpr u32 logical_bit = 1U << 11;
    bool const logical = (low & logical_bit) != 0;
    auto const shorthand = static_cast<vm::Shorthand>(low >> 18 & 3);
    u32 const destination =
        apic().mode() == vm::LocalApic::Mode::X2Apic ? high : vm::bus_destination(static_cast<u8>(high >> 24), logical);
    for (u32 i = 0; i < vm().vcpu_count(); i++) {
        Vcpu& target = static_cast<Vcpu&>(vm().vcpu(i));
        if (shorthand == vm::Shorthand::AllExcludingSelf && &target == this) continue;
        if (shorthand == vm::Shorthand::None && !target.apic().matches(destination, logical)) continue;
        target.notify_posted();
    }
}

// An interrupt that the CPU has not sent to anybody. It may have left the busy bit of ICR set.
void Vcpu::send_by_software(u64 icr) {
    constexpr u64 busy = lib::bit(12);
    icr &= ~busy;
    if (apic().mode() == vm::LocalApic::Mode::X2Apic) {
        constexpr u32 x2apic_icr = x86::IA32_X2APIC_BASE + reg::ICR_LOW / 16;
        static_cast<void>(apic().write_x2apic(x2apic_icr, icr)); // behind the instruction, so without its #GP
        return;
    }
    apic().mmio_write(reg::ICR_HIGH, 4, icr >> 32);
    apic().mmio_write(reg::ICR_LOW, 4, static_cast<u32>(icr));
}

void Vcpu::incomplete_ipi_exit() {
    exit_counts_[static_cast<unsigned>(ExitReason::ApicWrite)]++;
    IncompleteIpi const info{{control().exit_info_2}};
    if (info.get<IncompleteIpi::Cause>() == IncompleteIpi::target_not_running)
        notify_targets(control().exit_info_1);
    else
        send_by_software(control().exit_info_1);
}

[[gnu::noinline]] Vcpu::After Vcpu::avic_exit(u32 code) {
    if (code == exit_code::AVIC_INCOMPLETE_IPI) {
        incomplete_ipi_exit();
        return After::Enter;
    }
    Exit exit{};
    if (!unaccelerated_exit(exit)) return After::Enter;
    if (has_event_ && exit.reason == ExitReason::ApicAccess)
        return crash("an interrupt's delivery touched the APIC: the guest's IDT or stack is there");
    return ExitLoop::finish(*this, vm::route(*this, exit), exit);
}

// True when `exit` is for the router; else it is dealt with.
bool Vcpu::unaccelerated_exit(Exit& exit) {
    Unaccelerated const info{{control().exit_info_1}};
    u32 const offset = u32{info.get<Unaccelerated::Offset>()} * 16;
    bool const is_write = info.get<Unaccelerated::Write>();
    if (!is_write || !is_trapped_write(offset)) { // before the access
        // Of the x2APIC's registers those are intercepted as MSRs, and do not come here.
        bool const is_memory = apic().mode() == vm::LocalApic::Mode::XApic;
        exit.reason = is_memory ? ExitReason::ApicAccess : ExitReason::Privileged;
        exit.memory = {vm::GuestPhys{vm::apic_base::default_address + offset}, is_write, false, false};
        return true;
    }
    if (offset == reg::ICR_LOW) {
        exit_counts_[static_cast<unsigned>(ExitReason::ApicWrite)]++;
        send_by_software(u64{apic_page_[reg::ICR_HIGH]} << 32 | apic_page_[reg::ICR_LOW]);
        return false;
    }
    if (offset != reg::EOI) {
        exit.reason = ExitReason::ApicWrite;
        exit.apic_offset = static_cast<u16>(offset);
        return true;
    }
    // Of a level-triggered interrupt. The manual does not say whether it is still in service: it is not any more.
    exit.reason = ExitReason::EndOfInterrupt;
    exit.vector = static_cast<u8>(control().exit_info_2);
    apic_page_.clear(reg::ISR, exit.vector);
    u32 const in_service = static_cast<u32>(std::max(apic().highest_isr(), 0)) & 0xf0;
    apic_page_[reg::PPR] = std::max<u32>(apic().task_priority(), in_service);
    return true;
}

} // namespace svm
