// SPDX-License-Identifier: MIT
#include <kernel/cpu.hpp>
#include <kernel/entry_pages.hpp>
#include <kernel/page_table.hpp>
#include <kernel/panic.hpp>
#include <kernel/spinlock.hpp>
#include <lib/bits.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {
namespace {

namespace x86 = lib::x86;
using lib::u32;
using lib::u64;
using lib::u8;

constinit CpuFeatures features{};
constexpr unsigned exception_stack_pages = 2;

constinit u32 the_microcode_revision = 0;

// From CPUID 1 EAX. [amd/vol3] E.3.2
u32 family_of(u32 signature) {
    u32 const base = signature >> 8 & 0xf;
    return base == 0xf ? base + (signature >> 20 & 0xff) : base;
}

constexpr bool has(u32 word, unsigned number) { return (word >> number & 1) != 0; }

} // namespace

CpuFeatures const& cpu_features() { return features; }

void detect_cpu_features() {
    auto const vendor = x86::cpuid(0);
    features.is_intel = vendor.ebx == 0x756e'6547;                            // "Genu"
    features.is_amd = vendor.ebx == 0x6874'7541 || vendor.ebx == 0x6f67'7948; // "Auth", "Hygo"
    auto const basic = x86::cpuid(1);
    features.pcid = has(basic.ecx, 17);
    features.x2apic = has(basic.ecx, 21);
    features.tsc_deadline = has(basic.ecx, 24);
    features.xsave = has(basic.ecx, 26);
    features.open_to_meltdown = !features.is_amd;
    if (vendor.eax >= 7) {
        auto const structured = x86::cpuid(7);
        // [intel/vol4] 2.1, IA32_ARCH_CAPABILITIES
        constexpr unsigned has_arch_capabilities = 29;
        constexpr u64 RDCL_NO = lib::bit(0);
        u64 capabilities = 0;
        if (has(structured.edx, has_arch_capabilities) && x86::rdmsr_safe(x86::IA32_ARCH_CAPABILITIES, capabilities) &&
            (capabilities & RDCL_NO) != 0)
            features.open_to_meltdown = false;
        features.fsgsbase = has(structured.ebx, 0);
        features.tsc_adjust = has(structured.ebx, 1);
        features.smep = has(structured.ebx, 7);
        features.smap = has(structured.ebx, 20);
        features.umip = has(structured.ecx, 2);
    }
    if (vendor.eax >= 6) features.arat = has(x86::cpuid(6).eax, 2);
    u32 const last_extended = x86::cpuid(0x8000'0000).eax;
    auto const extended = x86::cpuid(0x8000'0001);
    features.no_execute = has(extended.edx, 20);
    features.pages_1g = has(extended.edx, 26);
    if (last_extended >= 0x8000'0007) features.invariant_tsc = has(x86::cpuid(0x8000'0007).edx, 8);
    u32 const family = family_of(basic.eax);
    features.c1e_stops_timer = features.is_amd && (family == 0xf || family == 0x10);
    features.leaks_x87_pointers = features.is_amd;
    features.physical_address_bits = 36;
    features.linear_address_bits = 48;
    if (last_extended >= 0x8000'0008) {
        auto const leaf = x86::cpuid(0x8000'0008);
        u32 const sizes = leaf.eax;
        if (has(leaf.ebx, 2)) features.leaks_x87_pointers = false; // RstrFpErrPtrs. [amd/vol3] E.4.7
        features.physical_address_bits = static_cast<u8>(sizes & 0xff);
        features.linear_address_bits = static_cast<u8>(sizes >> 8 & 0xff);
    }
}

void lift_firmware_limits() {
    constexpr u64 limit_cpuid = lib::bit(22); // [intel/vol4] 2.1, IA32_MISC_ENABLE
    u64 value = 0;
    if (features.is_intel && x86::rdmsr_safe(x86::IA32_MISC_ENABLE, value) && (value & limit_cpuid) != 0)
        x86::wrmsr_safe(x86::IA32_MISC_ENABLE, value & ~limit_cpuid);
    if (features.c1e_stops_timer) turn_c1e_off();
}

// Guests count on it against speculation, and their own writes to the MSR do not reach the CPU.
// [amd/speculation] mitigation G-2; [amd/vol3] E.4.15
void make_lfence_serialising() {
    if (!features.is_amd) return;
    constexpr u64 lfence_serialise = lib::bit(1);
    bool const is_always = x86::cpuid(0x8000'0000).eax >= 0x8000'0021 && has(x86::cpuid(0x8000'0021).eax, 2);
    u64 value = 0;
    if (!is_always && x86::rdmsr_safe(x86::DE_CFG, value) && (value & lfence_serialise) == 0) {
        x86::wrmsr_safe(x86::DE_CFG, value | lfence_serialise);
        x86::rdmsr_safe(x86::DE_CFG, value); // a hypervisor below may take the write and forget it
    }
    if (this_cpu().index == 0) features.serialising_lfence = is_always || (value & lfence_serialise) != 0;
}

void turn_c1e_off() {
    constexpr u64 smi_on_halt = lib::bit(27), c1e_on_halt = lib::bit(28); // [amd/vol2] appendix A, and BKDG of 10h
    u64 value = 0;
    if (x86::rdmsr_safe(x86::INT_PENDING_MSG, value) && (value & (smi_on_halt | c1e_on_halt)) != 0)
        x86::wrmsr_safe(x86::INT_PENDING_MSG, value & ~(smi_on_halt | c1e_on_halt));
}

void set_tsc_aux(u64 value) {
    Cpu& here = this_cpu();
    if (here.tsc_aux != value) x86::wrmsr(x86::IA32_TSC_AUX, here.tsc_aux = value);
}

void clear_tsc_aux() { x86::wrmsr(x86::IA32_TSC_AUX, this_cpu().tsc_aux = 0); }

u32 microcode_revision() { return the_microcode_revision; }
void set_microcode_revision(u32 revision) { the_microcode_revision = revision; }

void initialise_cpu(Cpu& cpu, u32 index) {
    cpu.self = &cpu;
    cpu.index = index;
    x86::wrmsr(x86::IA32_GS_BASE, reinterpret_cast<u64>(&cpu));
    std::array<u64, 3> stacks{};
    for (u64& top : stacks) {
        auto const stack = allocate_stack(exception_stack_pages);
        if (!stack) refuse_to_start("too little memory for exception stacks", "add memory");
        top = stack->value;
    }
    cpu.tables.load(cpu, kernel_page_table().root().value, stacks);
    // A firmware's SYSENTER must not be a way into ring 0: with no selector it is #GP. [intel/vol2] SYSENTER
    x86::wrmsr_safe(x86::IA32_SYSENTER_CS, 0);
    // Loading segment registers may clear the GS base on some CPUs; say it again.
    x86::wrmsr(x86::IA32_GS_BASE, reinterpret_cast<u64>(&cpu));
}

void enable_cpu_protections() {
    u64 const efer = x86::rdmsr(x86::IA32_EFER);
    if (features.no_execute) x86::wrmsr(x86::IA32_EFER, efer | x86::Efer::NXE::mask);
    x86::write_cr0((x86::read_cr0() | x86::Cr0::WP::mask | x86::Cr0::NE::mask | x86::Cr0::MP::mask) &
                   ~(x86::Cr0::EM::mask | x86::Cr0::TS::mask | x86::Cr0::CD::mask | x86::Cr0::NW::mask));
    // Ring 3 reads no performance counters and sets no segment bases.
    u64 cr4 =
        x86::read_cr4() & ~(x86::Cr4::PCE::mask | x86::Cr4::FSGSBASE::mask | x86::Cr4::TSD::mask | x86::Cr4::PGE::mask);
    cr4 |= x86::Cr4::OSFXSR::mask | x86::Cr4::OSXMMEXCPT::mask;
    if (!has_service_page_tables()) cr4 |= x86::Cr4::PGE::mask;
    if (features.smep) cr4 |= x86::Cr4::SMEP::mask;
    if (features.smap) cr4 |= x86::Cr4::SMAP::mask;
    if (features.umip) cr4 |= x86::Cr4::UMIP::mask;
    if (features.xsave) cr4 |= x86::Cr4::OSXSAVE::mask;
    x86::write_cr4(cr4);
    // Nothing is mapped by entry 1 yet, so no cache or TLB needs a flush. [intel/vol3] 13.12.4
    x86::wrmsr(x86::IA32_PAT, x86::pat_with_write_combining);
}

#ifdef MULLION_DEBUG
namespace detail {
namespace {
constexpr u32 bit_of(LockRank rank) { return 1U << static_cast<unsigned>(rank); }
#if __STDC_HOSTED__
bool are_interrupts_off() { return true; } // the scheduler's tests have no CPU
#else
bool are_interrupts_off() { return (x86::read_flags() & 1U << 9) == 0; }
#endif
} // namespace

void lock_order_enter(LockRank rank) {
    u32& held = this_cpu().held_lock_ranks;
    ASSERT(are_interrupts_off());
    ASSERT(held < bit_of(rank)); // ranks rise
    held |= bit_of(rank);
}
void lock_order_enter_second(LockRank rank) {
    ASSERT(this_cpu().held_lock_ranks >> static_cast<unsigned>(rank) == 1); // the first is held, and nothing above it
}
void lock_order_leave(LockRank rank) { this_cpu().held_lock_ranks &= ~bit_of(rank); }
} // namespace detail
#endif

#if __STDC_HOSTED__
constinit Cpu hosted_cpu{};
constinit thread_local Cpu* hosted_thread_cpu = nullptr;
#endif

} // namespace kernel
