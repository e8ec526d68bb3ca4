// SPDX-License-Identifier: MIT
// A hostile guest on AMD-V: see exit_player.hpp.
#include "exit_player.hpp"
#include "svm/machine.hpp"

#include <algorithm>
#include <svm/avic.hpp>

namespace {

using namespace fuzz;
namespace exit_code = svm::exit_code;

constexpr u32 incomplete_ipi = exit_code::AVIC_INCOMPLETE_IPI, unaccelerated = exit_code::AVIC_NOACCEL;

// Exits that a guest can cause, or that come while it runs. Those of the machine's interrupts, NMIs and machine checks
// are left out: what they say is not the guest's doing.
constexpr u32 codes[] = {
    exit_code::READ_CR0,  exit_code::READ_CR4,      exit_code::WRITE_CR0,    exit_code::WRITE_CR4,
    exit_code::WRITE_CR8, exit_code::EXCEPTION_DB,  exit_code::EXCEPTION_BP, exit_code::EXCEPTION_AC,
    exit_code::VINTR,     exit_code::CR0_SEL_WRITE, exit_code::RDPMC,        exit_code::CPUID,
    exit_code::RSM,       exit_code::IRET,          exit_code::INVD,         exit_code::PAUSE,
    exit_code::HLT,       exit_code::IOIO,          exit_code::MSR,          exit_code::SHUTDOWN,
    exit_code::VMRUN,     exit_code::VMMCALL,       exit_code::STGI,         exit_code::ICEBP,
    exit_code::WBINVD,    exit_code::MONITOR,       exit_code::XSETBV,       exit_code::NPF,
    exit_code::INIT,      exit_code::VMLOAD,        incomplete_ipi,          unaccelerated};
constexpr u8 events[] = {0, 2, 3, 4}; // types [amd/vol2] 15.20

// With what a CPU has by its first input byte: QEMU's, a Zen 2's and a Zen 4's.
constexpr u32 cpus[] = {amd_machine::features_tcg, amd_machine::features_zen2 & ~(1U << 13), amd_machine::features_zen2,
                        amd_machine::features_zen4};

template <u32 features> class Guest final : public ExitPlayer<amd_machine::SvmMachine> {
public:
    Guest() : ExitPlayer<amd_machine::SvmMachine>(features) { is_tcg = features == amd_machine::features_tcg; }

protected:
    void play_exit(Input& input) override {
        u32 const code = codes[input.take<u8>() % std::size(codes)];
        u8 const changes = input.take<u8>();
        bool const is_avics = code == incomplete_ipi || code == unaccelerated;
        if (is_avics && !uses_avic()) mask_pic();
        amd_machine::Exit exit{code, number(input), number(input)};
        if (code == exit_code::IOIO) exit.info_1 = io_info(exit.info_1);
        if (code == exit_code::MSR) exit.info_1 &= 1;
        if (code == exit_code::NPF) exit.info_2 &= 0xff'ffff'ffff;
        if (code == incomplete_ipi) exit.info_2 = exit.info_2 % 5 << 32; // the cause; index 0
        if (code == unaccelerated) exit.info_1 &= u64{1} << 32 | 0xff0;
        u64 const rip = number(input);
        u32 const flags = input.take<u32>();
        u64 const interrupted = interrupted_event(code, input);
        u8 const length = 1 + input.take<u8>() % 15;
        exit.before = [=, this](svm::Vmcb& block) {
            if ((changes & 1) != 0) block.save.rip = vcpu().is_64_bit() ? rip : rip & 0xffff'ffff;
            if ((changes & 2) != 0) block.save.rflags = (flags & 0x0024'7fd5) | 2;
            if ((changes & 4) != 0) block.control.interrupt_state.template set<svm::InterruptState::Shadow>(true);
            if ((changes & 0x30) == 0x30) block.control.exit_int_info.raw = interrupted;
            if ((features & 8) != 0) block.control.next_rip = block.save.rip + length;
            if ((changes & 0x40) != 0 && uses_avic()) deliver();
            if (!is_avics) return;
            bool const exits = uses_avic() && (code == incomplete_ipi ? send(block.control) : access(block.control));
            if (!exits) block.control.exit_code = exit_code::INTR; // no CPU would do that
        };
        run_once(exit);
    }

private:
    bool uses_avic() { return vmcb().control.interrupt_control.template get<svm::InterruptControl::AvicEnable>(); }
    // As guests do that use the APIC alone: AVIC is off before.
    void mask_pic() {
        vcpu().apic().mmio_write(vm::apic_reg::LVT_LINT0, 4, 0x1'0000);
        run({});
    }
    // [amd/vol2] 15.29.3
    void deliver() {
        vm::ApicPage& page = vcpu().apic().page();
        int const vector = page.highest(vm::apic_reg::IRR);
        u32 const priority = static_cast<u32>(std::max(page.highest(vm::apic_reg::ISR), 0));
        if (vector < 16 || (static_cast<u32>(vector) & 0xf0) <= (std::max(priority, page[vm::apic_reg::TPR]) & 0xf0))
            return;
        page.clear(vm::apic_reg::IRR, static_cast<u8>(vector));
        page.set(vm::apic_reg::ISR, static_cast<u8>(vector));
    }
    // What the CPU has done before it exits, when the exit comes after the access. False: it does not exit.
    bool access(svm::ControlArea& control) {
        svm::Unaccelerated const info{{control.exit_info_1}};
        u32 const offset = u32{info.get<svm::Unaccelerated::Offset>()} * 16;
        if (!info.get<svm::Unaccelerated::Write>() || !svm::is_trapped_write(offset)) return true;
        vm::ApicPage& page = vcpu().apic().page();
        if (offset != vm::apic_reg::EOI) {
            page[offset] = static_cast<u32>(control.exit_info_2);
            return true;
        }
        int const in_service = page.highest(vm::apic_reg::ISR);
        control.exit_info_2 = static_cast<u64>(std::max(in_service, 0));
        return in_service >= 0;
    }
    bool send(svm::ControlArea const& control) {
        vm::ApicPage& page = vcpu().apic().page();
        page[vm::apic_reg::ICR_LOW] = static_cast<u32>(control.exit_info_1);
        page[vm::apic_reg::ICR_HIGH] = static_cast<u32>(control.exit_info_1 >> 32);
        auto const vector = static_cast<u8>(control.exit_info_1);
        bool const is_sent = control.exit_info_2 >> 32 == svm::IncompleteIpi::target_not_running;
        if (is_sent && vector >= 16) page.set(vm::apic_reg::IRR, vector); // to itself among others
        return true;
    }
    // One size, one width of addresses. [amd/vol2] figure 15-2
    static u64 io_info(u64 any) {
        constexpr u64 sizes[] = {0x10, 0x20, 0x40}, addresses[] = {0x80, 0x100, 0x200};
        return (any & 0xffff'1c0d) | sizes[(any >> 4 & 7) % 3] | addresses[(any >> 7 & 7) % 3];
    }
    static u64 interrupted_event(u32 code, Input& input) {
        u8 const type = events[input.take<u8>() % std::size(events)];
        u8 vector = input.take<u8>();
        u64 has_code = 0;
        if (type == 2) vector = 2;
        if (type == 3) {
            vector &= 31;
            if (vector == lib::x86::exception_nmi) vector = lib::x86::exception_ud; // no CPU calls an NMI an exception
            has_code = 0x6002'7d00U >> vector & 1;
        }
        bool const may_strike = code == exit_code::NPF || code == exit_code::EXCEPTION_DB ||
                                code == exit_code::EXCEPTION_AC || code == exit_code::SHUTDOWN || code == unaccelerated;
        return may_strike ? amd_machine::event(vector, type) | has_code << 11 : 0;
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    if (size == 0) return 0;
    switch (data[0] & 3) {
    case 0: return play<Guest<cpus[0]>>(data + 1, size - 1);
    case 1: return play<Guest<cpus[1]>>(data + 1, size - 1);
    case 2: return play<Guest<cpus[2]>>(data + 1, size - 1);
    default: return play<Guest<cpus[3]>>(data + 1, size - 1);
    }
}
