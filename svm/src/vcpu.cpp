// SPDX-License-Identifier: MIT
// Creation of a vCPU: its VMCB and register areas.
#include <kernel/cpus.hpp>
#include <lib/x86/registers.hpp>
#include <svm/npt_space.hpp>
#include <svm/vcpu.hpp>

namespace svm {
namespace {

namespace x86 = lib::x86;

constexpr Intercepts intercepts_of_every_guest(u32 exceptions) {
    Intercepts intercepts{};
    // CR3 is the guest's own, and so is CR0.TS; hence the CPU may switch tasks by itself: one intercept stands for all
    // that a switch changes. [amd/vol2] 15.14.1 CR4 has bits whose feature we may not offer.
    intercepts.cr_writes = 1U << 4;
    intercepts.exceptions = exceptions;
    for (u32 const code : {exit_code::INTR,     exit_code::NMI,     exit_code::INIT,    exit_code::CR0_SEL_WRITE,
                           exit_code::RDPMC,    exit_code::CPUID,   exit_code::RSM,     exit_code::INVD,
                           exit_code::HLT,      exit_code::INVLPGA, exit_code::IOIO,    exit_code::MSR,
                           exit_code::SHUTDOWN, exit_code::VMRUN,   exit_code::VMMCALL, exit_code::VMLOAD,
                           exit_code::VMSAVE,   exit_code::STGI,    exit_code::CLGI,    exit_code::SKINIT,
                           exit_code::WBINVD,   exit_code::MONITOR, exit_code::MWAIT,   exit_code::MWAIT_ARMED,
                           exit_code::XSETBV,   exit_code::RDPRU,   exit_code::INVLPGB, exit_code::INVLPGB_ILLEGAL,
                           exit_code::MCOMMIT,  exit_code::TLBSYNC})
        intercepts.set(code);
    return intercepts;
}

// A guest that executes so many PAUSEs, each within so many cycles of the last, spins for what another vCPU holds: it
// yields. Without the filter every PAUSE would exit. [amd/vol2] 15.14.4
constexpr u16 pauses_before_exit = 3000, cycles_between_pauses = 128;

} // namespace

lib::Result<kernel::Own<vm::Vcpu>> Vcpu::create(Backend& backend, vm::Vm& vm, u32 id) {
    auto const page = TRY(kernel::allocate_zeroed_frame());
    auto const vmcb = kernel::allocate_zeroed_frame();
    Vcpu* const made = vmcb ? new (std::nothrow) Vcpu(backend, vm, id, *kernel::phys_to_virt<vm::ApicPage>(page),
                                                      *kernel::phys_to_virt<Vmcb>(*vmcb))
                            : nullptr;
    if (made == nullptr) {
        if (vmcb) kernel::free_frames(*vmcb, 0);
        kernel::free_frames(page, 0);
        return lib::fail(lib::Errc::NoMemory);
    }
    kernel::Own<vm::Vcpu> vcpu(made);
    TRY(made->build());
    return vcpu;
}

Vcpu::~Vcpu() {
    unload();
    kernel::free_frames(kernel::virt_to_phys(vmcb_), 0);
    kernel::free_frames(kernel::virt_to_phys(&apic_page_), 0);
}

lib::Result<void> Vcpu::build() {
    u64 const components = vm().cpuid().rules().xcr0;
    TRY(fpu_.create(components, vm().cpuid().xsave_size(components)));

    ControlArea& control = vmcb_->control;
    control.intercepts = intercepts_of_every_guest(intercepted_exceptions);
    if (capabilities_.has_pause_filter) {
        control.intercepts.set(exit_code::PAUSE);
        control.pause_filter_count = pauses_before_exit;
        if (capabilities_.has_pause_threshold) control.pause_filter_threshold = cycles_between_pauses;
    }
    control.iopm_base = backend_.io_permissions().value;
    control.msrpm_base = backend_.msr_permissions().value;
    control.nested_control = 1;
    control.nested_cr3 = static_cast<NptSpace&>(vm().space()).root().value;
    build_avic();
    // The same for all: guest state that reset_registers() does not name.
    vmcb_->save.pat = x86::pat_at_reset;
    drop_events();
    return {};
}

} // namespace svm
