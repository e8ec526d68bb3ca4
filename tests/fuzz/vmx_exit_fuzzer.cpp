// SPDX-License-Identifier: MIT
// A hostile guest on VT-x: see exit_player.hpp.
#include "exit_player.hpp"
#include "vmx/machine.hpp"

namespace {

using namespace fuzz;
namespace field = vmx::field;
namespace reason = vmx::reason;

// Exits that a guest can cause, or that come while it runs. Those of the machine's interrupts, NMIs and machine checks
// are left out: what they say is not the guest's doing.
constexpr u16 reasons[] = {reason::exception_or_nmi,
                           reason::triple_fault,
                           reason::init_signal,
                           reason::interrupt_window,
                           reason::nmi_window,
                           reason::task_switch,
                           reason::cpuid,
                           reason::getsec,
                           reason::hlt,
                           reason::invd,
                           reason::rdpmc,
                           reason::rsm,
                           reason::vmcall,
                           reason::vmclear,
                           reason::vmfunc,
                           reason::control_register,
                           reason::io_instruction,
                           reason::rdmsr,
                           reason::wrmsr,
                           reason::monitor,
                           reason::pause,
                           reason::tpr_below_threshold,
                           reason::apic_access,
                           reason::virtualized_eoi,
                           reason::ept_violation,
                           reason::preemption_timer,
                           reason::wbinvd,
                           reason::xsetbv,
                           reason::apic_write,
                           reason::xsaves};
constexpr u8 exceptions[] = {1, 17};             // of those that exit
constexpr u8 events[] = {0, 2, 3, 4, 5, 6};      // types [intel/vol3] table 25-17
constexpr u8 control_registers[] = {0, 3, 4, 8}; // [intel/vol3] table 28-3
constexpr u8 io_sizes[] = {0, 1, 3};             // [intel/vol3] table 28-5

class Guest final : public ExitPlayer<intel_machine::VmxMachine> {
protected:
    void play_exit(Input& input) override {
        u16 const why = reasons[input.take<u8>() % std::size(reasons)];
        u8 const changes = input.take<u8>();
        intel_machine::Exit exit{why, qualification(why, input), 1U + input.take<u8>() % 15};
        u64 const address = number(input), linear = number(input), rip = number(input);
        u32 const flags = input.take<u32>(), vectoring = vectoring_info(why, input);
        u8 const vector = exceptions[input.take<u8>() % std::size(exceptions)];
        exit.before = [=, this] {
            poke(field::GUEST_PHYSICAL_ADDRESS, address & 0xff'ffff'ffff);
            poke(field::GUEST_LINEAR_ADDRESS, linear);
            if ((changes & 1) != 0) poke(field::GUEST_RIP, vcpu().is_64_bit() ? rip : rip & 0xffff'ffff);
            if ((changes & 2) != 0) poke(field::GUEST_RFLAGS, (flags & 0x0024'7fd5) | 2);
            // A shadow needs what makes it: STI leaves IF set.
            if ((changes & 4) != 0) poke(field::GUEST_INTERRUPTIBILITY, (changes & 8) != 0 ? 2 : 8);
            if ((changes & 0x30) == 0x30) {
                poke(field::IDT_VECTORING_INFO, vectoring);
                // An interrupt was taken because the guest let it, and shadows do not outlive the delivery of an event.
                poke(field::GUEST_INTERRUPTIBILITY, this->field(field::GUEST_INTERRUPTIBILITY) & ~u64{3});
                if ((vectoring >> 8 & 7) == 0) poke(field::GUEST_RFLAGS, this->field(field::GUEST_RFLAGS) | 0x200);
            }
            // A step that a shadow holds back is reported. [intel/vol3] 28.3.4
            bool const is_held_back = (this->field(field::GUEST_INTERRUPTIBILITY) & 3) != 0 &&
                                      (this->field(field::GUEST_RFLAGS) & 0x100) != 0;
            poke(field::GUEST_PENDING_DEBUG, is_held_back ? 1U << 14 : 0);
            poke(field::IDT_VECTORING_ERROR_CODE, flags & 0xffff);
            poke(field::EXIT_INTERRUPTION_INFO, 0);
            if (why != reason::exception_or_nmi) return;
            u8 const type = vector == 1 && (changes & 0x40) != 0 ? 5 : 3;
            poke(field::EXIT_INTERRUPTION_INFO,
                 intel_machine::event(vector, type) | (vector == 17 ? 1U << 11 : 0) | (changes & 0x80 ? 1U << 12 : 0));
            poke(field::EXIT_INTERRUPTION_ERROR_CODE, 0);
        };
        run_once(exit);
    }

private:
    static u64 qualification(u16 why, Input& input) {
        u64 const any = number(input);
        switch (why) {
        case reason::control_register: return (any & ~u64{0xf}) | control_registers[any & 3];
        case reason::io_instruction: return (any & ~u64{7}) | io_sizes[(any & 7) % 3];
        case reason::exception_or_nmi: return any & 0x600f;
        default: return any;
        }
    }
    static u32 vectoring_info(u16 why, Input& input) {
        u8 const type = events[input.take<u8>() % std::size(events)];
        u8 vector = input.take<u8>();
        bool has_code = false;
        if (type == 2) vector = 2;
        if (type == 3) {
            vector &= 31;
            has_code = (0x6002'7d00U >> vector & 1) != 0;
        }
        if (type == 5) vector = 1;
        if (type == 6) vector = 3 + (vector & 1);
        // Instructions that exit are not in the middle of a delivery. [intel/vol3] 28.2.4
        bool const may_strike = why == reason::exception_or_nmi || why == reason::task_switch ||
                                why == reason::apic_access || why == reason::ept_violation;
        return may_strike ? intel_machine::event(vector, type) | (has_code ? 1U << 11 : 0) : 0;
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) { return play<Guest>(data, size); }
