// SPDX-License-Identifier: MIT
// The end of a single step that is ours: the way out of the shadow that an NMI waits for.
#include <lib/x86/registers.hpp>
#include <svm/vcpu.hpp>

namespace svm {
namespace {

namespace x86 = lib::x86;

constexpr u64 dr6_breakpoints = 0xf;

} // namespace

// #DB, the CPU's or the one that ends an instruction we carried out; DR6 says why. When the step was ours alone, the
// guest never hears of it.
void Vcpu::debug_exit() {
    if (is_stepping_) {
        u64 const flags = save().rflags;
        bool const is_done = (save().dr6 & dr6_single_step) != 0;
        end_step();
        if (is_done && nmi_state_ == NmiState::AtIret) {
            nmi_state_ = NmiState::Free;
            vmcb_->save.rflags = flags; // what it has popped
        }
        if (is_done && !had_trap_flag_) {
            u64 const breakpoints = save().dr6 & dr6_breakpoints;
            u64& dr6 = changing(clean::debug_registers).save.dr6;
            dr6 = dr6_before_step_;
            if (breakpoints == (dr6_before_step_ & dr6_breakpoints)) return;
            dr6 = (dr6_before_step_ & ~dr6_breakpoints) | breakpoints;
        }
    }
    if (has_event_) return; // its delivery is repeated, and hits the breakpoint in its way again
    EventInfo info{};
    info.set<EventInfo::Vector>(x86::exception_db);
    info.set<EventInfo::Type>(EventInfo::exception);
    inject(info);
}

// The instruction that was stepped over raised an exception, and has to raise it without TF.
void Vcpu::fault_in_step(u32 code) {
    constexpr u32 with_error_code = 1U << x86::exception_df | 1U << x86::exception_ts | 1U << x86::exception_np |
                                    1U << x86::exception_ss | 1U << x86::exception_gp | 1U << x86::exception_pf |
                                    1U << x86::exception_cp | 1U << 29 | 1U << 30; // #VC, #SX
    auto const vector = static_cast<u8>(code - exit_code::EXCEPTION_DE);
    if (has_event_) return; // in the middle of a delivery, which is repeated
    bool const is_software = vector == x86::exception_bp || vector == x86::exception_of;
    if (is_software && save().rip == step_rip_) return open_nmi_window(); // INT3 or INTO, still to be carried out
    inject_exception({vector, (with_error_code >> vector & 1) != 0, static_cast<u32>(control().exit_info_1),
                      control().exit_info_2}); // #PF: the address, CR2 is as before. [amd/vol2] 15.12.15
}

// The instruction in the shadow would show TF to the guest, so it does not get its step. The NMI comes before it: no
// harm, as it is not the load of a stack pointer that a shadow of MOV SS is made for.
void Vcpu::open_nmi_window() {
    end_step();
    vmcb_->control.interrupt_state = {};
}

void Vcpu::iret_exit() {
    if (nmi_state_ == NmiState::Free) return open_nmi_window(); // in a shadow, as PUSHF
    nmi_state_ = NmiState::AtIret;
    nmi_iret_rip_ = save().rip;
    set_intercept(exit_code::IRET, false);
}

} // namespace svm
