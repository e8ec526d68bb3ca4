// SPDX-License-Identifier: MIT
#include <array>
#include <cstring>
#include <kernel/cpus.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <svm/backend.hpp>
#include <svm/npt_space.hpp>
#include <svm/vcpu.hpp>

namespace svm {
namespace {

namespace x86 = lib::x86;

constexpr u32 VM_HSAVE_PA = 0xc001'0117; // [amd/vol2] 15.30.4
constexpr unsigned io_map_order = 2;     // three pages are used. [amd/vol2] 15.10.1
constexpr unsigned msr_map_order = 1;

constinit std::array<CpuState, kernel::max_cpus> states{};

// Two bits for each MSR, read and write, in ranges of 2 KiB for 0, C000_0000h and C001_0000h. [amd/vol2] 15.11
enum class Pass : u8 { Read = 1, Write = 2, Both = 3 };
void pass_msr(u8* map, u32 index, Pass what) {
    constexpr u32 high_base = 0xc000'0000, range_size = 0x800, per_byte = 4;
    u32 const offset = index >= high_base ? index - high_base : index;
    u8& byte = map[(index >= high_base ? range_size : 0U) + offset / per_byte];
    byte = static_cast<u8>(byte & ~(static_cast<u32>(what) << offset % per_byte * 2));
}

// What x2AVIC does alone. Reads: registers whose value in the page is what RDMSR returns. Writes: not those that would
// exit behind the access, because then it is too late for the #GP that reserved bits deserve. [amd/vol2] table 15-22
void pass_x2apic(u8* map) {
    using namespace vm::apic_reg;
    auto const pass = [&](u32 offset, Pass what) { pass_msr(map, x86::IA32_X2APIC_BASE + offset / 16, what); };
    for (u32 const offset : {ID, VERSION, PPR, LDR, SVR, ESR, LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0,
                             LVT_LINT1, LVT_ERROR, INITIAL_COUNT, DIVIDE})
        pass(offset, Pass::Read);
    for (u32 offset = ISR; offset < ESR; offset += 16) // and TMR and IRR
        pass(offset, Pass::Read);
    for (u32 const offset : {TPR, ICR_LOW})
        pass(offset, Pass::Both);
    for (u32 const offset : {EOI, SELF_IPI})
        pass(offset, Pass::Write);
}

} // namespace

CpuState& cpu_state(u32 cpu) { return states[cpu]; }

std::expected<kernel::Own<Backend>, Refusal> Backend::create(Disabled const& disabled) {
    auto const capabilities = TRY(read_capabilities(disabled));
    kernel::Own<Backend> backend(new (std::nothrow) Backend(capabilities, disabled));
    if (!backend || !backend->build()) return std::unexpected(Refusal{"too little memory", "add memory"});
    return backend;
}

lib::Result<void> Backend::build() {
    io_permissions_ = TRY(kernel::allocate_frames(io_map_order));
    std::memset(kernel::phys_to_virt<u8>(io_permissions_), 0xff, lib::page_size << io_map_order);
    msr_permissions_ = TRY(kernel::allocate_frames(msr_map_order));
    u8* const map = kernel::phys_to_virt<u8>(msr_permissions_);
    std::memset(map, 0xff, lib::page_size << msr_map_order);
    // The bases that system calls and context switches touch belong to the guest. The rest of what VMLOAD switches is
    // written once by any guest, and a write is checked: not every CPU refuses what the manual says it does.
    for (u32 const index : {x86::IA32_FS_BASE, x86::IA32_GS_BASE, x86::IA32_KERNEL_GS_BASE})
        pass_msr(map, index, Pass::Both);
    for (u32 const index : {x86::IA32_STAR, x86::IA32_LSTAR, x86::IA32_CSTAR, x86::IA32_FMASK, x86::IA32_SYSENTER_CS,
                            x86::IA32_SYSENTER_ESP, x86::IA32_SYSENTER_EIP})
        pass_msr(map, index, Pass::Read);
    if (!capabilities_.has_x2avic) return {};
    x2avic_msr_permissions_ = TRY(kernel::allocate_frames(msr_map_order));
    u8* const x2avic_map = kernel::phys_to_virt<u8>(x2avic_msr_permissions_);
    std::memcpy(x2avic_map, map, lib::page_size << msr_map_order);
    pass_x2apic(x2avic_map);
    return {};
}

Backend::~Backend() {
    if (io_permissions_.value != 0) kernel::free_frames(io_permissions_, io_map_order);
    for (HostPhys const map : {msr_permissions_, x2avic_msr_permissions_})
        if (map.value != 0) kernel::free_frames(map, msr_map_order);
}

std::expected<void, Refusal> Backend::enable_on_this_cpu() {
    // Firmware locks VM_CR on each CPU by itself, and a machine may have CPUs of two steppings.
    if (TRY(read_capabilities(disabled_)) != capabilities_)
        return std::unexpected(Refusal{"its AMD-V differs from the boot CPU's", "give the machine CPUs of one kind"});
    if (!unlock_svm()) return std::unexpected(locked_off);
    u32 const index = kernel::this_cpu().index;
    CpuState& here = cpu_state(index);
    for (HostPhys* const area : {&here.host_save_area, &here.host_area}) {
        if (area->value != 0) continue;
        auto const frame = kernel::allocate_zeroed_frame();
        if (!frame) return std::unexpected(Refusal{"too little memory", "add memory"});
        *area = *frame;
    }
    x86::wrmsr(x86::IA32_EFER, x86::rdmsr(x86::IA32_EFER) | x86::Efer::SVME::mask);
    x86::wrmsr(VM_HSAVE_PA, here.host_save_area.value);
    x86::vmsave(here.host_area.value);
    if (capabilities_.has_tsc_aux) kernel::clear_tsc_aux(); // whatever the firmware left there
    // Translations of an earlier hypervisor mean nothing to us: the first entry flushes all.
    here.asids.start(capabilities_.asids, index);
    return {};
}

void Backend::disable_on_this_cpu() {
    Vcpu::unload_current();
    x86::stgi(); // without SVME there would be no way to
    x86::wrmsr(x86::IA32_EFER, x86::rdmsr(x86::IA32_EFER) & ~u64{x86::Efer::SVME::mask});
}

void Backend::constrain(vm::PlatformFacts& facts) const {
    facts.invpcid = true; // needs no help with nested paging, nor do XSAVES and RDTSCP
    facts.rdtscp = capabilities_.has_tsc_aux;
    facts.xsaves = true;
    if (!kernel::cpu_features().xsave) facts.xcr0_allowed = 0;
    // Guests use x2APIC mode where they find it, and then AVIC could do nothing for them.
    if (capabilities_.has_avic && !capabilities_.has_x2avic) facts.x2apic = false;
}

lib::Result<kernel::Own<vm::AddressSpace>> Backend::create_address_space() {
    kernel::Own<vm::AddressSpace> space(new (std::nothrow) NptSpace(capabilities_));
    if (!space) return lib::fail(lib::Errc::NoMemory);
    TRY(static_cast<NptSpace*>(space.get())->create());
    return space;
}

lib::Result<kernel::Own<vm::Vcpu>> Backend::create_vcpu(vm::Vm& vm, u32 id) { return Vcpu::create(*this, vm, id); }

} // namespace svm
