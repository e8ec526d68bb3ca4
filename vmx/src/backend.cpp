// SPDX-License-Identifier: MIT
#include <array>
#include <kernel/cpus.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>
#include <vmx/backend.hpp>
#include <vmx/ept_space.hpp>
#include <vmx/vcpu.hpp>

namespace vmx {
namespace {

namespace x86 = lib::x86;

constinit std::array<lib::HostPhys, kernel::max_cpus> vmxon_regions{};

} // namespace

std::expected<kernel::Own<Backend>, Refusal> Backend::create(Disabled const& disabled) {
    auto const capabilities = TRY(read_capabilities(disabled));
    kernel::Own<Backend> backend(new (std::nothrow) Backend(capabilities, disabled));
    if (!backend) return std::unexpected(Refusal{"too little memory", "add memory"});
    return backend;
}

lib::Result<lib::HostPhys> Backend::allocate_region() const {
    auto const frame = TRY(kernel::allocate_zeroed_frame());
    *kernel::phys_to_virt<u32>(frame) = capabilities_.basic.get<BasicInfo::Revision>();
    return frame;
}

std::expected<void, Refusal> Backend::enable_on_this_cpu() {
    // Firmware locks IA32_FEATURE_CONTROL on each CPU by itself, and a machine may have CPUs of two steppings.
    auto const here = TRY(read_capabilities(disabled_));
    if (here != capabilities_)
        return std::unexpected(Refusal{"its VT-x differs from the boot CPU's", "give the machine CPUs of one kind"});
    u64 control = x86::rdmsr(x86::IA32_FEATURE_CONTROL);
    if ((control & 1) == 0) x86::wrmsr(x86::IA32_FEATURE_CONTROL, control | 5); // locked, VMX outside SMX
    x86::write_cr0((x86::read_cr0() | capabilities_.cr0_fixed0) & capabilities_.cr0_fixed1);
    x86::write_cr4((x86::read_cr4() | capabilities_.cr4_fixed0 | x86::Cr4::VMXE::mask) & capabilities_.cr4_fixed1);
    lib::HostPhys& region = vmxon_regions[kernel::this_cpu().index];
    if (region.value == 0) {
        auto const allocated = allocate_region();
        if (!allocated) return std::unexpected(Refusal{"too little memory", "add memory"});
        region = *allocated;
    }
    constexpr Refusal in_use{"VT-x could not be turned on although it is there",
                             "another hypervisor may be active: update the firmware"};
    if (!x86::vmxon(region.value)) return std::unexpected(in_use);
    // Translations of an earlier hypervisor mean nothing to us.
    if (!x86::invept(invept_all, {0, 0})) return std::unexpected(in_use);
    if (capabilities_.has_vpid() && !x86::invvpid(invvpid_all, {})) return std::unexpected(in_use);
    Vcpu::clear_registers_of_cpu(capabilities_);
    return {};
}

void Backend::disable_on_this_cpu() {
    Vcpu::unload_current();
    x86::vmxoff();
    x86::write_cr4(x86::read_cr4() & ~x86::Cr4::VMXE::mask);
}

void Backend::constrain(vm::PlatformFacts& facts) const {
    facts.invpcid = capabilities_.cpu2.get<CpuControls2::EnableInvpcid>();
    facts.rdtscp = capabilities_.cpu2.get<CpuControls2::EnableRdtscp>();
    facts.xsaves = capabilities_.cpu2.get<CpuControls2::EnableXsaves>();
    if (!kernel::cpu_features().xsave) facts.xcr0_allowed = 0;
}

lib::Result<kernel::Own<vm::AddressSpace>> Backend::create_address_space() {
    kernel::Own<vm::AddressSpace> space(new (std::nothrow) EptSpace(capabilities_));
    if (!space) return lib::fail(lib::Errc::NoMemory);
    TRY(static_cast<EptSpace*>(space.get())->create(capabilities_.has_apic_accesses()));
    return space;
}

lib::Result<kernel::Own<vm::Vcpu>> Backend::create_vcpu(vm::Vm& vm, u32 id) { return Vcpu::create(*this, vm, id); }

u16 Backend::next_vpid() {
    u32 const vpid = vpids_.fetch_add(1, std::memory_order_relaxed) + 1;
    return vpid <= 0xffff ? static_cast<u16>(vpid) : u16{0};
}

} // namespace vmx
