// SPDX-License-Identifier: MIT
// A vCPU's registers: in the VMCS, or in the CPU's own while it is loaded.
#include <bit>
#include <cstring>
#include <kernel/cpus.hpp>
#include <kernel/machine_check.hpp>
#include <kernel/panic.hpp>
#include <lib/x86/registers.hpp>
#include <vm/guest_walk.hpp>
#include <vmx/ept_space.hpp>
#include <vmx/vcpu.hpp>

namespace vmx {
namespace {

namespace x86 = lib::x86;

struct OnCpu {
    Vcpu* current; // whose VMCS is
    Vcpu* loaded;  // whose registers the CPU holds
    InterceptedMsrs msrs;
    u64 xcr0; // while nobody is loaded
};
constinit std::array<OnCpu, kernel::max_cpus> on_cpus{};

constexpr u64 cr0_owned_by_host = x86::Cr0::NE::mask | x86::Cr0::CD::mask | x86::Cr0::NW::mask | x86::Cr0::PG::mask;

struct SegmentFields {
    Rw<u16> selector;
    Rw<u32> limit, rights;
    Rw<u64> base;
};
constexpr SegmentFields segment_fields[] = {
    {field::GUEST_ES, field::GUEST_ES_LIMIT, field::GUEST_ES_RIGHTS, field::GUEST_ES_BASE},
    {field::GUEST_CS, field::GUEST_CS_LIMIT, field::GUEST_CS_RIGHTS, field::GUEST_CS_BASE},
    {field::GUEST_SS, field::GUEST_SS_LIMIT, field::GUEST_SS_RIGHTS, field::GUEST_SS_BASE},
    {field::GUEST_DS, field::GUEST_DS_LIMIT, field::GUEST_DS_RIGHTS, field::GUEST_DS_BASE},
    {field::GUEST_FS, field::GUEST_FS_LIMIT, field::GUEST_FS_RIGHTS, field::GUEST_FS_BASE},
    {field::GUEST_GS, field::GUEST_GS_LIMIT, field::GUEST_GS_RIGHTS, field::GUEST_GS_BASE},
    {field::GUEST_LDTR, field::GUEST_LDTR_LIMIT, field::GUEST_LDTR_RIGHTS, field::GUEST_LDTR_BASE},
    {field::GUEST_TR, field::GUEST_TR_LIMIT, field::GUEST_TR_RIGHTS, field::GUEST_TR_BASE},
};
constexpr u32 vmcs_unusable = 1U << 16;

} // namespace

void vmcs_access_failed(u16 encoding) {
    std::array<char, 64> text{};
    kernel::panic(lib::format_to(text, "VMCS field {:#x} is not accessible", encoding));
}

void Vcpu::make_current() {
    u32 const here = kernel::this_cpu().index;
    make_current_on(here, on_cpus[here].current);
}

inline void Vcpu::make_current_on(u32 here, Vcpu*& current) {
    ASSERT(last_cpu_ == ~0U || last_cpu_ == here); // unload() clears it before it may go elsewhere
    ASSERT(Loaded::load(region_).has_value());
    if (current != nullptr) current->is_current_ = false;
    current = this;
    is_current_ = true;
    last_cpu_ = here;
    if (host_state_of_ == here) [[likely]]
        return;
    host_state_of_ = here;
    write_host_state_of_cpu();
    // This CPU may have run the VM while no accesses to the APIC's page were virtualized.
    if (has_changed_apic_accesses_ && cpu2_controls_.get<CpuControls2::VirtualizeApicAccesses>())
        flush_guest_physical();
    requests_.fetch_or(vm::request::flush_tlb, std::memory_order_relaxed);
}

void Vcpu::load() {
    u32 const index = kernel::this_cpu().index;
    OnCpu& here = on_cpus[index];
    if (here.loaded == this) {
        // This CPU may have made or looked at another vCPU meanwhile.
        if (!is_current_) [[unlikely]]
            make_current_on(index, here.current);
        return;
    }
    if (here.loaded != nullptr) here.loaded->unload();
    make_current_on(index, here.current);
    here.loaded = this;
    auto const load_msr = [](u32 index, u64& there, u64 wanted) {
        if (there != wanted) x86::wrmsr(index, there = wanted);
    };
    load_msr(x86::IA32_STAR, here.msrs.star, intercepted_.star);
    load_msr(x86::IA32_LSTAR, here.msrs.lstar, intercepted_.lstar);
    load_msr(x86::IA32_CSTAR, here.msrs.cstar, intercepted_.cstar);
    load_msr(x86::IA32_FMASK, here.msrs.fmask, intercepted_.fmask);
    kernel::set_tsc_aux(tsc_aux_); // without RDTSCP always 0
    x86::wrmsr(x86::IA32_KERNEL_GS_BASE, saved_.kernel_gs_base);
    x86::write_cr2(saved_.cr2);
    x86::write_dr(0, saved_.dr0);
    x86::write_dr(1, saved_.dr1);
    x86::write_dr(2, saved_.dr2);
    x86::write_dr(3, saved_.dr3);
    x86::write_dr(6, saved_.dr6);
    fpu_.load(xcr0_, here.xcr0);
}

void Vcpu::unload() {
    u32 const index = kernel::this_cpu().index;
    OnCpu& here = on_cpus[index];
    if (here.loaded == this) {
        here.loaded = nullptr;
        saved_ = {.kernel_gs_base = x86::rdmsr(x86::IA32_KERNEL_GS_BASE),
                  .cr2 = x86::read_cr2(),
                  .dr0 = x86::read_dr(0),
                  .dr1 = x86::read_dr(1),
                  .dr2 = x86::read_dr(2),
                  .dr3 = x86::read_dr(3),
                  .dr6 = x86::read_dr(6)};
        here.xcr0 = fpu_.save(xcr0_);
    }
    if (last_cpu_ == index) {
        x86::vmclear(region_.value);
        if (here.current == this) here.current = nullptr;
        is_current_ = false;
        last_cpu_ = ~0U;
        is_launched_ = false;
    }
}

// What load() compares with, whatever the firmware left there.
void Vcpu::clear_registers_of_cpu(Capabilities const& capabilities) {
    OnCpu& here = on_cpus[kernel::this_cpu().index];
    here.msrs = {};
    for (u32 const index : {x86::IA32_STAR, x86::IA32_LSTAR, x86::IA32_CSTAR, x86::IA32_FMASK})
        x86::wrmsr(index, 0);
    if (capabilities.cpu2.get<CpuControls2::EnableRdtscp>()) kernel::clear_tsc_aux();
}

void Vcpu::unload_current() {
    if (Vcpu* const vcpu = on_cpus[kernel::this_cpu().index].loaded) vcpu->unload();
}

u64 Vcpu::cr0() {
    u64 const real = vmcs().read(field::GUEST_CR0);
    return (real & ~cr0_owned_by_host) | (vmcs().read(field::CR0_SHADOW) & cr0_owned_by_host);
}

void Vcpu::set_cr0(u64 value) {
    // NE must be on under VT-x; caching is not the guest's to turn off. With unrestricted guest PE and PG are free.
    u64 const real = (value & ~(x86::Cr0::CD::mask | x86::Cr0::NW::mask)) | x86::Cr0::NE::mask;
    vmcs().write(field::CR0_MASK, cr0_owned_by_host);
    vmcs().write(field::CR0_SHADOW, value);
    vmcs().write(field::GUEST_CR0, real);
    u64 efer_value = efer();
    bool const is_long = (value & x86::Cr0::PG::mask) != 0 && (efer_value & x86::Efer::LME::mask) != 0;
    efer_value = x86::Efer::LMA::set(efer_value, is_long);
    vmcs().write(field::GUEST_EFER, efer_value);
    entry_controls_.set<EntryControls::Ia32eModeGuest>(is_long);
    vmcs().write(field::ENTRY_CONTROLS, entry_controls_);
    if ((value & x86::Cr0::PG::mask) != 0 && !is_long && (cr4() & x86::Cr4::PAE::mask) != 0)
        load_page_directory_pointers();
    // Turning paging on or off flushes the TLB. [intel/vol3] 4.10.4.1
    requests_.fetch_or(vm::request::flush_tlb, std::memory_order_relaxed);
}

void Vcpu::load_page_directory_pointers() {
    u64 const table = cr3() & 0xffff'ffe0;
    u64 entries[4] = {};
    if (u8 const* const from = vm().ram().pointer(lib::GuestPhys{table}, sizeof(entries)))
        std::memcpy(entries, from, sizeof(entries));
    // An entry with reserved bits would fail VM entry, and the CPU would have refused it with #GP. The guest may have
    // written it after that was checked: it counts as not present.
    for (u64& entry : entries)
        if ((entry & 1) == 0 || !vm::is_valid_page_directory_pointer(entry, vm().cpuid().rules().physical_bits))
            entry = 0;
    vmcs().write(field::GUEST_PDPTE0, entries[0]);
    vmcs().write(field::GUEST_PDPTE1, entries[1]);
    vmcs().write(field::GUEST_PDPTE2, entries[2]);
    vmcs().write(field::GUEST_PDPTE3, entries[3]);
}

void Vcpu::set_cr3(u64 value) {
    vmcs().write(field::GUEST_CR3, value);
    if (!entry_controls_.get<EntryControls::Ia32eModeGuest>() && vm::paging_of(cr0(), cr4()) == vm::Paging::Pae)
        load_page_directory_pointers();
    requests_.fetch_or(vm::request::flush_tlb, std::memory_order_relaxed);
}

u64 Vcpu::cr4() {
    u64 const guests = vm().cpuid().rules().cr4 & ~x86::Cr4::MCE::mask;
    return (vmcs().read(field::GUEST_CR4) & guests) | (vmcs().read(field::CR4_SHADOW) & x86::Cr4::MCE::mask);
}

// MCE is the machine's: the guest has its own bit in the shadow only.
void Vcpu::set_cr4(u64 value) {
    vmcs().write(field::CR4_MASK, ~vm().cpuid().rules().cr4 | x86::Cr4::MCE::mask);
    vmcs().write(field::CR4_SHADOW, value);
    vmcs().write(field::GUEST_CR4, value | x86::Cr4::VMXE::mask | kernel::machine_check_cr4());
    requests_.fetch_or(vm::request::flush_tlb, std::memory_order_relaxed);
}

void Vcpu::set_efer(u64 value) {
    vmcs().write(field::GUEST_EFER, value);
    entry_controls_.set<EntryControls::Ia32eModeGuest>((value & x86::Efer::LMA::mask) != 0);
    vmcs().write(field::ENTRY_CONTROLS, entry_controls_);
}

vm::Segment Vcpu::segment(vm::SegmentName name) {
    auto const& fields = segment_fields[static_cast<unsigned>(name)];
    u32 const rights = vmcs().read(fields.rights);
    auto attributes = static_cast<u16>(rights & 0xf0ff);
    if ((rights & vmcs_unusable) != 0) attributes |= vm::segment::unusable;
    return {vmcs().read(fields.selector), attributes, vmcs().read(fields.limit), vmcs().read(fields.base)};
}

vm::Vector Vcpu::vector(unsigned number) { return fpu_.vector_in_cpu(xcr0_, number); }

void Vcpu::set_vector(unsigned number, vm::Vector const& value) { fpu_.set_vector_in_cpu(xcr0_, number, value); }

vm::CodeState Vcpu::code_state() {
    Loaded const here = vmcs();
    u64 const instruction = here.read(field::GUEST_RIP);
    u64 const table = here.read(field::GUEST_CR3);
    u32 const rights = here.read(field::GUEST_CS_RIGHTS);
    bool const is_long = entry_controls_.get<EntryControls::Ia32eModeGuest>();
    if (is_long && (rights & vm::segment::l_bit) != 0) [[likely]]
        return {instruction, table, vm::CpuMode::Bits64, vm::Paging::Long};
    return code_state_with_base();
}

// Outside of 64-bit mode. Apart, so that 64-bit code does not save the registers for it.
[[gnu::noinline]] vm::CodeState Vcpu::code_state_with_base() {
    Loaded const here = Loaded::still_loaded();
    bool const is_long = entry_controls_.get<EntryControls::Ia32eModeGuest>();
    bool const is_32 = (here.read(field::GUEST_CS_RIGHTS) & vm::segment::db_bit) != 0;
    return {(here.read(field::GUEST_RIP) + here.read(field::GUEST_CS_BASE)) & 0xffff'ffff, here.read(field::GUEST_CR3),
            is_32 ? vm::CpuMode::Bits32 : vm::CpuMode::Bits16,
            is_long ? vm::Paging::Long : vm::paging_of(cr0(), cr4())};
}

void Vcpu::set_segment(vm::SegmentName name, vm::Segment const& value) {
    auto const& fields = segment_fields[static_cast<unsigned>(name)];
    u32 rights = value.attributes & 0xf0ffU;
    if ((value.attributes & vm::segment::unusable) != 0) rights |= vmcs_unusable;
    vmcs().write(fields.selector, value.selector);
    vmcs().write(fields.limit, value.limit);
    vmcs().write(fields.base, value.base);
    vmcs().write(fields.rights, rights);
}

void Vcpu::set_gdt(vm::TablePointer table) {
    vmcs().write(field::GUEST_GDTR_BASE, table.base);
    vmcs().write(field::GUEST_GDTR_LIMIT, table.limit);
}

void Vcpu::set_idt(vm::TablePointer table) {
    vmcs().write(field::GUEST_IDTR_BASE, table.base);
    vmcs().write(field::GUEST_IDTR_LIMIT, table.limit);
}

u64 Vcpu::dr6() { return on_cpus[kernel::this_cpu().index].loaded == this ? x86::read_dr(6) : saved_.dr6; }

void Vcpu::set_dr6(u64 value) {
    saved_.dr6 = value;
    if (on_cpus[kernel::this_cpu().index].loaded == this) x86::write_dr(6, value);
}

void Vcpu::drop_events() {
    has_event_ = false;
    put_off_interrupt_ = -1;
    put_off_debug_trap_ = false;
    vmcs().write(field::ENTRY_INTERRUPTION_INFO, InterruptionInfo{});
    vmcs().write(field::GUEST_INTERRUPTIBILITY, Interruptibility{});
    vmcs().write(field::GUEST_PENDING_DEBUG, PendingDebug{});
}

void Vcpu::set_tsc_offset(u64 offset) {
    tsc_offset_ = offset;
    vmcs().write(field::TSC_OFFSET, offset);
}

u64 Vcpu::read_hardware(vm::HardwareMsr which) {
    using vm::HardwareMsr;
    bool const is_live = on_cpus[kernel::this_cpu().index].loaded == this;
    switch (which) {
    case HardwareMsr::Efer: return efer();
    case HardwareMsr::Pat: return vmcs().read(field::GUEST_PAT);
    case HardwareMsr::Star: return intercepted_.star;
    case HardwareMsr::Lstar: return intercepted_.lstar;
    case HardwareMsr::Cstar: return intercepted_.cstar;
    case HardwareMsr::Fmask: return intercepted_.fmask;
    case HardwareMsr::FsBase: return vmcs().read(field::GUEST_FS_BASE);
    case HardwareMsr::GsBase: return vmcs().read(field::GUEST_GS_BASE);
    case HardwareMsr::KernelGsBase: return is_live ? x86::rdmsr(x86::IA32_KERNEL_GS_BASE) : saved_.kernel_gs_base;
    case HardwareMsr::SysenterCs: return vmcs().read(field::GUEST_SYSENTER_CS);
    case HardwareMsr::SysenterEsp: return vmcs().read(field::GUEST_SYSENTER_ESP);
    case HardwareMsr::SysenterEip: return vmcs().read(field::GUEST_SYSENTER_EIP);
    case HardwareMsr::TscAux: return tsc_aux_;
    case HardwareMsr::Xss: return xss_;
    }
    return 0;
}

void Vcpu::write_hardware(vm::HardwareMsr which, u64 value) {
    using vm::HardwareMsr;
    OnCpu& here = on_cpus[kernel::this_cpu().index];
    bool const is_live = here.loaded == this;
    auto const set = [&](u32 index, u64 InterceptedMsrs::* msr) {
        intercepted_.*msr = value;
        if (is_live) x86::wrmsr(index, here.msrs.*msr = value);
    };
    switch (which) {
    case HardwareMsr::Efer: set_efer(value); break;
    case HardwareMsr::Pat: vmcs().write(field::GUEST_PAT, value); break;
    case HardwareMsr::Star: set(x86::IA32_STAR, &InterceptedMsrs::star); break;
    case HardwareMsr::Lstar: set(x86::IA32_LSTAR, &InterceptedMsrs::lstar); break;
    case HardwareMsr::Cstar: set(x86::IA32_CSTAR, &InterceptedMsrs::cstar); break;
    case HardwareMsr::Fmask: set(x86::IA32_FMASK, &InterceptedMsrs::fmask); break;
    case HardwareMsr::FsBase: vmcs().write(field::GUEST_FS_BASE, value); break;
    case HardwareMsr::GsBase: vmcs().write(field::GUEST_GS_BASE, value); break;
    case HardwareMsr::KernelGsBase:
        saved_.kernel_gs_base = value;
        if (is_live) x86::wrmsr(x86::IA32_KERNEL_GS_BASE, value);
        break;
    case HardwareMsr::SysenterCs: vmcs().write(field::GUEST_SYSENTER_CS, static_cast<u32>(value)); break;
    case HardwareMsr::SysenterEsp: vmcs().write(field::GUEST_SYSENTER_ESP, value); break;
    case HardwareMsr::SysenterEip: vmcs().write(field::GUEST_SYSENTER_EIP, value); break;
    case HardwareMsr::TscAux:
        tsc_aux_ = value;
        if (is_live) kernel::set_tsc_aux(value);
        break;
    case HardwareMsr::Xss: xss_ = value; break; // only 0 is allowed: vm/cpuid_policy offers no supervisor state
    }
}

} // namespace vmx
