// SPDX-License-Identifier: MIT
// The exit router: what becomes of an instruction that left the guest. One switch without a default, so a reason that
// nobody thought of does not compile.
#include <array>
#include <kernel/machine_check.hpp>
#include <lib/format.hpp>
#include <vm/guest_access.hpp>
#include <vm/task_switch.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

// The handlers are not inlined into the router: it stays a jump, and each saves only the registers that it needs
// itself. For the same reason the optimiser shall not know what they return: it would make calls of the jumps.
Outcome opaque(Outcome outcome) {
    asm("" : "+r"(outcome));
    return outcome;
}

u32 low(Vcpu& vcpu, Gpr name) { return static_cast<u32>(vcpu.gpr(name)); }
u64 edx_eax(Vcpu& vcpu) { return vcpu.gpr(Gpr::Rdx) << 32 | low(vcpu, Gpr::Rax); }

[[gnu::noinline]] Outcome refuse(Vcpu& vcpu) {
    vcpu.raise(general_protection());
    return opaque(Outcome::Inject);
}

[[gnu::noinline]] Outcome refuse_opcode(Vcpu& vcpu) {
    vcpu.raise(invalid_opcode());
    return opaque(Outcome::Inject);
}

Outcome set_cpuid(Vcpu& vcpu, CpuidRegs const& result) {
    vcpu.gpr(Gpr::Rax) = result.eax;
    vcpu.gpr(Gpr::Rbx) = result.ebx;
    vcpu.gpr(Gpr::Rcx) = result.ecx;
    vcpu.gpr(Gpr::Rdx) = result.edx;
    return Outcome::Advance;
}

[[gnu::noinline]] Outcome varying_cpuid(Vcpu& vcpu) {
    CpuidDynamic const dynamic{.cr4 = vcpu.cr4(),
                               .xcr0 = vcpu.xcr0(),
                               .apic_id = vcpu.id(),
                               .apic_enabled = vcpu.apic().mode() != LocalApic::Mode::Disabled};
    return opaque(set_cpuid(vcpu, vcpu.vm().cpuid().lookup(low(vcpu, Gpr::Rax), low(vcpu, Gpr::Rcx), dynamic)));
}

// What guests ask for most: "which CPU am I" of old serialising code, and user space looking for OSXSAVE.
[[gnu::noinline]] Outcome feature_cpuid(Vcpu& vcpu) {
    static_assert(cr4::OSXSAVE == u64{1} << 18);
    u64 const osxsave = vcpu.cr4_osxsave() << (CpuidPolicy::osxsave_bit - 18);
    CpuidRegs const& row = vcpu.features();
    vcpu.gpr(Gpr::Rax) = row.eax;
    vcpu.gpr(Gpr::Rbx) = row.ebx;
    vcpu.gpr(Gpr::Rcx) = row.ecx | osxsave;
    vcpu.gpr(Gpr::Rdx) = row.edx;
    return opaque(Outcome::Advance);
}

Outcome cpuid(Vcpu& vcpu) {
    if (auto const* const row = vcpu.vm().cpuid().plain(low(vcpu, Gpr::Rax))) [[likely]]
        return set_cpuid(vcpu, *row);
    if (low(vcpu, Gpr::Rax) == CpuidPolicy::features_leaf) return feature_cpuid(vcpu);
    return varying_cpuid(vcpu);
}

[[gnu::noinline]] Outcome read_msr(Vcpu& vcpu) {
    [[clang::uninitialized]] u64 value; // written with Done
    if (vcpu.msrs().read(low(vcpu, Gpr::Rcx), value) != MsrResult::Done) return refuse(vcpu);
    vcpu.gpr(Gpr::Rax) = static_cast<u32>(value);
    vcpu.gpr(Gpr::Rdx) = value >> 32;
    return Outcome::Advance;
}

[[gnu::noinline]] Outcome write_msr(Vcpu& vcpu) {
    if (vcpu.msrs().write(low(vcpu, Gpr::Rcx), edx_eax(vcpu)) != MsrResult::Done) return refuse(vcpu);
    return Outcome::Advance;
}

[[gnu::noinline]] Outcome port_io(Vcpu& vcpu, Exit const& exit) {
    PortAccess const& port = exit.port;
    if (port.is_string) [[unlikely]]
        return port_string(vcpu, exit);
    u64& rax = vcpu.gpr(Gpr::Rax);
    if (!port.is_in) {
        vcpu.vm().platform().port_out(port.port, port.size, rax);
        return Outcome::Advance;
    }
    u64 const value = vcpu.vm().platform().port_in(port.port, port.size);
    if (port.size == 1)
        rax = (rax & ~u64{0xff}) | static_cast<u8>(value);
    else if (port.size == 2)
        rax = (rax & ~u64{0xffff}) | static_cast<u16>(value);
    else
        rax = static_cast<u32>(value);
    return Outcome::Advance;
}

[[gnu::noinline]] Outcome reserved_hypercall(Vcpu& vcpu) {
    if (vcpu.privilege_level() != 0) return refuse_opcode(vcpu);
    vcpu.gpr(Gpr::Rax) = ~u64{0};
    return Outcome::Advance;
}

// Number 0 in RAX: nothing happens, whoever asks. All others are reserved: RAX becomes all ones, #UD outside of ring 0.
Outcome hypercall(Vcpu& vcpu) {
    if (vcpu.gpr(Gpr::Rax) == 0) [[likely]]
        return Outcome::Advance;
    return reserved_hypercall(vcpu);
}

[[gnu::noinline]] Outcome set_extended_control(Vcpu& vcpu) {
    u64 const value = edx_eax(vcpu);
    if (low(vcpu, Gpr::Rcx) != 0 || vcpu.privilege_level() != 0 ||
        !is_valid_xcr0(value, vcpu.vm().cpuid().rules().xcr0))
        return refuse(vcpu);
    vcpu.set_xcr0(value);
    return Outcome::Advance;
}

Outcome write_cr0(Vcpu& vcpu, u64 value) {
    u64 const old = vcpu.cr0();
    PagingSwitch at;
    if (((old ^ value) & cr0::PG) != 0) {
        constexpr u16 type = 0xf, available_16_bit_tss = 1, busy_16_bit_tss = 3;
        auto const task = static_cast<u16>(vcpu.segment(SegmentName::Tr).attributes & type);
        at = {.has_long_code = (vcpu.segment(SegmentName::Cs).attributes & segment::l_bit) != 0,
              .has_16_bit_task = task == busy_16_bit_tss || task == available_16_bit_tss};
    }
    if (!is_valid_cr0_write(old, value, vcpu.cr4(), vcpu.efer(), at)) return refuse(vcpu);
    vcpu.set_cr0(effective_cr0(value));
    return Outcome::Advance;
}

Outcome write_cr4(Vcpu& vcpu, u64 value) {
    if (!is_valid_cr4_write(vcpu.cr4(), value, vcpu.cr3(), vcpu.efer(), vcpu.vm().cpuid().rules())) return refuse(vcpu);
    vcpu.set_cr4(value);
    return Outcome::Advance;
}

[[gnu::noinline]] Outcome control_register(Vcpu& vcpu, Exit const& exit) {
    RegisterAccess const& access = exit.control;
    using Kind = RegisterAccess::Kind;
    constexpr u64 lmsw_bits = cr0::PE | cr0::MP | cr0::EM | cr0::TS;
    switch (access.kind) {
    case Kind::Clts: return write_cr0(vcpu, vcpu.cr0() & ~cr0::TS);
    case Kind::Lmsw: {
        u64 const wanted = access.lmsw_source & lmsw_bits;
        u64 const keep_pe = vcpu.cr0() & cr0::PE; // LMSW can set PE, not clear it
        return write_cr0(vcpu, (vcpu.cr0() & ~lmsw_bits) | wanted | keep_pe);
    }
    case Kind::Smsw: return store_machine_status(vcpu, exit);
    case Kind::Read:
        vcpu.fetch_gprs();
        switch (access.number) {
        case 0: vcpu.gprs()[access.operand & 15] = vcpu.cr0(); break;
        case 3: vcpu.gprs()[access.operand & 15] = vcpu.cr3(); break;
        case 4: vcpu.gprs()[access.operand & 15] = vcpu.cr4(); break;
        case 8: vcpu.gprs()[access.operand & 15] = vcpu.apic().task_priority() >> 4; break;
        default: return refuse_opcode(vcpu);
        }
        vcpu.store_gprs();
        return Outcome::Advance;
    case Kind::Write: break;
    }
    vcpu.fetch_gprs();
    u64 const value = vcpu.gprs()[access.operand & 15];
    switch (access.number) {
    case 0: return write_cr0(vcpu, value);
    case 3:
        if (!is_valid_cr3_write(value, vcpu.cr4(), vcpu.efer(), vcpu.vm().cpuid().rules().physical_bits))
            return refuse(vcpu);
        vcpu.set_cr3(value & ~lib::bit(63));
        return Outcome::Advance;
    case 4: return write_cr4(vcpu, value);
    case 8:
        if (!is_valid_cr8_write(value)) return refuse(vcpu);
        vcpu.apic().set_task_priority(static_cast<u8>(value << 4));
        vcpu.interrupt_pending(vcpu.apic());
        return Outcome::Advance;
    default: return refuse_opcode(vcpu);
    }
}

[[gnu::noinline]] Outcome apic_write(Vcpu& vcpu, Exit const& exit) {
    vcpu.apic().apic_write(exit.apic_offset);
    return opaque(Outcome::Retry);
}

[[gnu::noinline]] Outcome end_of_interrupt(Vcpu& vcpu, Exit const& exit) {
    vcpu.apic().eoi_exit(exit.vector);
    return opaque(Outcome::Retry);
}

[[gnu::noinline]] Outcome crash(Vcpu& vcpu, std::string_view what) {
    std::array<char, 120> text{};
    vcpu.vm().crash(vcpu, lib::format_to(text, "{} on vCPU {} at rip {:#x}", what, vcpu.id(), vcpu.rip()));
    return opaque(Outcome::StopVm);
}

[[gnu::noinline]] Outcome task_switch(Vcpu& vcpu, Exit const& exit) {
    switch (switch_task(vcpu, exit.task, exit.length)) {
    case TaskSwitchResult::Done: return Outcome::Retry;
    case TaskSwitchResult::Raised: return Outcome::Inject;
    case TaskSwitchResult::TripleFault: break;
    }
    return crash(vcpu, "triple fault in a task switch");
}

// The machine reports damage while a guest runs. What is not lost as a whole costs this VM only.
[[gnu::noinline]] Outcome machine_check(Vcpu& vcpu) {
    if (kernel::take_machine_check("a guest") == kernel::MachineCheck::Kind::Elsewhere) return Outcome::Retry;
    return crash(vcpu, kernel::machine_check_end);
}

} // namespace

Outcome route(Vcpu& vcpu, Exit const& exit) {
    ExitReason const reason = exit.reason; // once: the count below could alias it
    vcpu.exit_counts_.data()[static_cast<unsigned>(reason)]++;
    switch (reason) {
    case ExitReason::Cpuid: return cpuid(vcpu);
    case ExitReason::Hypercall: return hypercall(vcpu);
    case ExitReason::ReadMsr: return read_msr(vcpu);
    case ExitReason::WriteMsr: return write_msr(vcpu);
    case ExitReason::PortIo: return port_io(vcpu, exit);
    case ExitReason::MemoryFault:
    case ExitReason::ApicAccess: return memory_access(vcpu, exit);
    case ExitReason::Hlt: return Outcome::Sleep;
    case ExitReason::Pause: return Outcome::Yield;
    case ExitReason::Xsetbv: return set_extended_control(vcpu);
    case ExitReason::ControlRegister: return control_register(vcpu, exit);
    // INVD and WBINVD: memory is coherent, so there is nothing to write back, and INVD must not throw away what the
    // machine has not written back yet. The CPU or the backend has checked the privilege.
    case ExitReason::CacheControl: return Outcome::Advance;
    case ExitReason::Forbidden: return refuse_opcode(vcpu);
    case ExitReason::Privileged: return refuse(vcpu);
    case ExitReason::ApicWrite: return apic_write(vcpu, exit);
    case ExitReason::EndOfInterrupt: return end_of_interrupt(vcpu, exit);
    case ExitReason::TripleFault: return crash(vcpu, "triple fault");
    case ExitReason::TaskSwitch: return task_switch(vcpu, exit);
    case ExitReason::MachineCheck: return machine_check(vcpu);
    case ExitReason::InvalidState: return crash(vcpu, "registers that no CPU would run");
    // The backend deals with these itself and does not ask.
    case ExitReason::ExternalInterrupt:
    case ExitReason::InterruptWindow:
    case ExitReason::NmiWindow:
    case ExitReason::Exception:
    case ExitReason::DebugRegister:
    case ExitReason::TprBelowThreshold:
    case ExitReason::PreemptionTimer:
    case ExitReason::Nmi:
    case ExitReason::Unknown: break;
    }
    return crash(vcpu, "exit without a handler");
}

} // namespace vm
