// SPDX-License-Identifier: MIT
// Creation of a vCPU: its VMCS, MSR bitmap and register areas.
#include <cstring>
#include <kernel/cpus.hpp>
#include <kernel/page_table.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/registers.hpp>
#include <vmx/ept_space.hpp>
#include <vmx/vcpu.hpp>

extern "C" char vmx_exit[]; // vmx/src/entry.S

namespace vmx {
namespace {

namespace x86 = lib::x86;

// TSC ticks. PAUSEs no further apart than this are one loop; one that goes on for longer than the window waits for a
// vCPU that perhaps waits for this CPU: it gives the CPU away. [intel/vol3] 26.1.3
constexpr u32 pause_loop_gap = 128, pause_loop_window = 4096;

// Exceptions that never reach the guest directly. #DB and #AC: a guest can make the CPU deliver them to itself for ever
// without recognising an interrupt (CVE-2015-5307, CVE-2015-8104). #MC is the machine's.
constexpr u32 intercepted_exceptions = 1U << x86::exception_db | 1U << x86::exception_ac | 1U << x86::exception_mc;

} // namespace

lib::Result<kernel::Own<vm::Vcpu>> Vcpu::create(Backend& backend, vm::Vm& vm, u32 id) {
    auto const page = TRY(kernel::allocate_zeroed_frame());
    kernel::Own<Vcpu> vcpu(new (std::nothrow) Vcpu(backend, vm, id, *kernel::phys_to_virt<vm::ApicPage>(page)));
    if (!vcpu) {
        kernel::free_frames(page, 0);
        return lib::fail(lib::Errc::NoMemory);
    }
    TRY(vcpu->build());
    return kernel::Own<vm::Vcpu>(vcpu.release());
}

Vcpu::~Vcpu() {
    unload();
    if (region_.value != 0) kernel::free_frames(region_, 0);
    if (apic().descriptor() != nullptr) kernel::free_frames(kernel::virt_to_phys(apic().descriptor()), 0);
    if (msr_bitmap_ != nullptr) kernel::free_frames(kernel::virt_to_phys(msr_bitmap_), 0);
    kernel::free_frames(kernel::virt_to_phys(&apic_page_), 0);
}

lib::Result<void> Vcpu::build() {
    region_ = TRY(backend_.allocate_region());
    msr_bitmap_ = kernel::phys_to_virt<u8>(TRY(kernel::allocate_zeroed_frame()));
    u64 const components = vm().cpuid().rules().xcr0;
    TRY(fpu_.create(components, vm().cpuid().xsave_size(components)));
    saved_.dr6 = 0xffff'0ff0;
    // A page of its own: the manual asks for 64 bytes, Bochs 3.0 refuses VM entry with less than a page.
    if (capabilities_.has_posted_interrupts())
        apic().set_descriptor(kernel::phys_to_virt<vm::PendingInterrupts>(TRY(kernel::allocate_zeroed_frame())));

    if (!x86::vmclear(region_.value)) return lib::fail(lib::Errc::BadState);
    write_controls();
    write_host_state();

    // The same for all: guest state that reset_registers() does not name.
    vmcs().write(field::VMCS_LINK_POINTER, ~u64{0});
    vmcs().write(field::GUEST_PAT, x86::pat_at_reset);
    vmcs().write(field::GUEST_EFER, u64{0}); // set_cr0() looks at it
    vmcs().write(field::GUEST_DEBUGCTL, u64{0});
    vmcs().write(field::GUEST_ACTIVITY_STATE, u32{0}); // active: a vCPU that sleeps is not entered
    vmcs().write(field::GUEST_SYSENTER_CS, u32{0});
    vmcs().write(field::GUEST_SYSENTER_ESP, u64{0});
    vmcs().write(field::GUEST_SYSENTER_EIP, u64{0});
    drop_events();
    return {};
}

void Vcpu::write_controls() {
    Capabilities const& c = capabilities_;
    cpu_controls_ = c.cpu;
    cpu2_controls_ = c.cpu2;
    entry_controls_ = c.entry;
    // The APIC features come on with the APIC's mode: apply_apic_mode().
    using C2 = CpuControls2;
    cpu2_controls_.raw &= ~(C2::VirtualizeApicAccesses::mask | C2::VirtualizeX2apicMode::mask |
                            C2::ApicRegisterVirtualization::mask | C2::VirtualInterruptDelivery::mask);
    if (c.has_vpid()) vpid_ = backend_.next_vpid();
    cpu2_controls_.set<C2::UseTscScaling>(!vm().tsc_ratio().is_one());
    if (vpid_ == 0) cpu2_controls_.set<C2::EnableVpid>(false);

    pin_controls_.raw = c.pin.raw & ~u32{PinControls::ProcessPostedInterrupts::mask};
    vmcs().write(field::PIN_CONTROLS, pin_controls_);
    if (c.has_posted_interrupts()) {
        vmcs().write(field::POSTED_INTERRUPT_VECTOR, u16{kernel::vectors::notify});
        vmcs().write(field::POSTED_INTERRUPT_DESCRIPTOR, kernel::virt_to_phys(apic().descriptor()).value);
    }
    vmcs().write(field::CPU_CONTROLS, cpu_controls_);
    vmcs().write(field::CPU_CONTROLS2, cpu2_controls_);
    vmcs().write(field::EXIT_CONTROLS, c.exit);
    vmcs().write(field::ENTRY_CONTROLS, entry_controls_);
    if (vpid_ != 0) vmcs().write(field::VPID, vpid_);
    vmcs().write(field::EPT_POINTER, static_cast<EptSpace&>(vm().space()).pointer());
    vmcs().write(field::MSR_BITMAP, kernel::virt_to_phys(msr_bitmap_).value);
    vmcs().write(field::EXCEPTION_BITMAP, intercepted_exceptions);
    // Page faults are the guest's: with equal mask and match the bit of #PF above alone decides. [intel/vol3] 26.2
    vmcs().write(field::PAGE_FAULT_MASK, u32{0});
    vmcs().write(field::PAGE_FAULT_MATCH, u32{0});
    vmcs().write(field::CR3_TARGET_COUNT, u32{0});
    for (auto const count : {field::EXIT_MSR_STORE_COUNT, field::EXIT_MSR_LOAD_COUNT, field::ENTRY_MSR_LOAD_COUNT})
        vmcs().write(count, u32{0});
    if (c.has_tpr_shadow()) {
        vmcs().write(field::VIRTUAL_APIC_ADDRESS, kernel::virt_to_phys(&apic_page_).value);
        vmcs().write(field::TPR_THRESHOLD, tpr_threshold_);
    }
    if (cpu2_controls_.get<C2::UseTscScaling>()) vmcs().write(field::TSC_MULTIPLIER, vm().tsc_ratio().multiplier());
    if (c.cpu2.get<C2::EnableXsaves>()) vmcs().write(field::XSS_EXITING_BITMAP, u64{0});
    if (c.has_pause_loop_exiting()) {
        vmcs().write(field::PLE_GAP, pause_loop_gap);
        vmcs().write(field::PLE_WINDOW, pause_loop_window);
    }

    std::memset(msr_bitmap_, 0xff, lib::page_size);
    for (u32 const index : {x86::IA32_FS_BASE, x86::IA32_GS_BASE, x86::IA32_KERNEL_GS_BASE, x86::IA32_SYSENTER_CS,
                            x86::IA32_SYSENTER_ESP, x86::IA32_SYSENTER_EIP, x86::IA32_PAT})
        pass_msr(index, true, true);
    for (u32 const index : {x86::IA32_STAR, x86::IA32_LSTAR, x86::IA32_CSTAR, x86::IA32_FMASK})
        pass_msr(index, true, false);
    pass_msr(x86::IA32_EFER, true, false);
    pass_msr(x86::IA32_TSC, true, false); // RDMSR of it is subject to the TSC offset
    if (c.cpu2.get<C2::EnableRdtscp>()) pass_msr(x86::IA32_TSC_AUX, true, false);
}

// Four bitmaps of 1 KiB: reads of low and high MSRs, writes of low and high ones. [intel/vol3] 25.6.9
void Vcpu::pass_msr(u32 index, bool read, bool write) {
    constexpr u32 high_base = 0xc000'0000, per_bitmap = 0x2000;
    u32 const offset = index >= high_base ? index - high_base + per_bitmap : index;
    u8 const mask = static_cast<u8>(1U << offset % 8);
    auto const set = [&](u32 at, bool pass) {
        msr_bitmap_[at] = static_cast<u8>(pass ? msr_bitmap_[at] & ~mask : msr_bitmap_[at] | mask);
    };
    set(offset / 8, read);
    set(offset / 8 + 2 * per_bitmap / 8, write);
}

void Vcpu::write_host_state() {
    vmcs().write(field::HOST_CR0, x86::read_cr0());
    vmcs().write(field::HOST_CR4, x86::read_cr4());
    vmcs().write(field::HOST_CR3, kernel::kernel_page_table().root().value);
    vmcs().write(field::HOST_CS, kernel::code_selector);
    for (auto const selector : {field::HOST_SS, field::HOST_DS, field::HOST_ES})
        vmcs().write(selector, kernel::data_selector);
    // Neither is used with a selector; GS has its base from the CPU that runs the vCPU.
    for (auto const selector : {field::HOST_FS, field::HOST_GS})
        vmcs().write(selector, u16{0});
    vmcs().write(field::HOST_FS_BASE, u64{0});
    vmcs().write(field::HOST_SYSENTER_CS, u32{0});
    vmcs().write(field::HOST_SYSENTER_ESP, u64{0});
    vmcs().write(field::HOST_SYSENTER_EIP, u64{0});
    vmcs().write(field::HOST_TR, kernel::task_selector);
    vmcs().write(field::HOST_EFER, x86::rdmsr(x86::IA32_EFER));
    vmcs().write(field::HOST_PAT, x86::rdmsr(x86::IA32_PAT));
    vmcs().write(field::HOST_RIP, reinterpret_cast<u64>(vmx_exit));
}

void Vcpu::write_host_state_of_cpu() {
    kernel::Cpu& cpu = kernel::this_cpu();
    Loaded here = Loaded::still_loaded();
    here.write(field::HOST_GS_BASE, reinterpret_cast<u64>(&cpu));
    here.write(field::HOST_TR_BASE, reinterpret_cast<u64>(&cpu.tables.tss));
    here.write(field::HOST_GDTR_BASE, x86::sgdt().base);
    here.write(field::HOST_IDTR_BASE, x86::sidt().base);
}

} // namespace vmx
