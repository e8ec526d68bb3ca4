// SPDX-License-Identifier: MIT
// CPUID, MSRs, control registers, exceptions.
#include "bench/measure.hpp"

extern "C" {
void bench_ud_gate();
void bench_bp_gate();
}
// The shortest handlers there are: skip UD2; return from INT3.
asm(R"(
    .globl bench_ud_gate, bench_bp_gate
bench_ud_gate:
    addq $2, (%rsp)
    iretq
bench_bp_gate:
    iretq
)");

namespace bench {
namespace {

using guest::cpuid_bit;

constexpr u32 IA32_APIC_BASE = 0x1b, IA32_TSC_ADJUST = 0x3b, IA32_MISC_ENABLE = 0x1a0, IA32_FS_BASE = 0xc0000100,
              IA32_EFER = 0xc0000080;

// Wrapped into lambdas below: a function pointer would not be inlined.
template <u32 leaf> [[gnu::always_inline]] inline void run_cpuid() {
    u32 eax = leaf, ecx = 0;
    asm volatile("cpuid" : "+a"(eax), "+c"(ecx) : : "rbx", "rdx", "memory");
}
template <u32 index> [[gnu::always_inline]] inline void run_rdmsr() {
    asm volatile("rdmsr" : : "c"(index) : "rax", "rdx", "memory");
}

void msrs() {
    bool const adjust = cpuid_bit(7, 0, 'b', 1);
    measure("rdmsr_apicbase", [] { run_rdmsr<IA32_APIC_BASE>(); });
    measure_if(adjust, "rdmsr_tsc_adjust", [] { run_rdmsr<IA32_TSC_ADJUST>(); });
    if (adjust) {
        u64 const value = x86::rdmsr(IA32_TSC_ADJUST);
        measure("wrmsr_tsc_adjust", [value] { x86::wrmsr(IA32_TSC_ADJUST, value); });
    } else {
        report_absent("wrmsr_tsc_adjust");
    }
    measure("rdmsr_misc_enable", [] { run_rdmsr<IA32_MISC_ENABLE>(); });
    measure("rdmsr_fsbase", [] { run_rdmsr<IA32_FS_BASE>(); });
    measure("wrmsr_fsbase", [] { x86::wrmsr(IA32_FS_BASE, 0); });
    measure("rdmsr_efer", [] { run_rdmsr<IA32_EFER>(); });
    u64 const efer = x86::rdmsr(IA32_EFER);
    measure("wrmsr_efer_same", [efer] { x86::wrmsr(IA32_EFER, efer); });
    measure("rdmsr_unknown_gp", [] { run_rdmsr<0x1234>(); });
}

void control_registers() {
    u64 const cr0 = x86::read_cr0(), cr3 = x86::read_cr3(), cr4 = x86::read_cr4();
    measure("mov_cr3", [cr3] { x86::write_cr3(cr3); });
    measure("invlpg", [] { x86::invlpg(guest::user_page); });
    measure("clts", [] { asm volatile("clts" : : : "memory"); });
    measure("cr0_wp_toggle", [cr0, wp = cr0 | 0x10000] {
        x86::write_cr0(wp);
        x86::write_cr0(cr0);
    });
    measure("cr4_pge_toggle", [cr4, pge = cr4 | 0x80] {
        x86::write_cr4(pge);
        x86::write_cr4(cr4);
    });
    measure_if(cpuid_bit(7, 0, 'b', 7), "cr4_smep_toggle", [cr4, smep = cr4 | 0x100000] {
        x86::write_cr4(smep);
        x86::write_cr4(cr4);
    });
    // One write each, to and fro.
    measure("cr0_wp_write", [value = cr0]() mutable { x86::write_cr0(value ^= 0x10000); });
    measure("cr4_pge_write", [value = cr4]() mutable { x86::write_cr4(value ^= 0x80); });
    measure_if(cpuid_bit(7, 0, 'b', 7), "cr4_smep_write",
               [value = cr4]() mutable { x86::write_cr4(value ^= 0x100000); });
    if (cpuid_bit(1, 0, 'c', 26)) {
        x86::write_cr4(cr4 | 0x40000); // OSXSAVE
        u64 const xcr0 = x86::xgetbv(0);
        measure("xsetbv_same", [xcr0] { x86::xsetbv(0, xcr0); });
        x86::write_cr4(cr4);
    } else {
        report_absent("xsetbv_same");
    }
    measure("mov_dr7", [] { x86::write_dr(7, 0x400); });
    measure("wbinvd", [] { x86::wbinvd(); });
    measure("pause", [] { x86::pause(); });
    measure("mov_cr8", [] { asm volatile("mov %0, %%cr8" : : "r"(0ULL) : "memory"); });
}

} // namespace

void instructions() {
    measure("cpuid_0", [] { run_cpuid<0>(); });
    measure("cpuid_1", [] { run_cpuid<1>(); });
    measure("cpuid_40000000", [] { run_cpuid<0x40000000>(); });
    u64 result = 0;
    if (guest::is_amd())
        measure("hypercall", [&] { asm volatile("vmmcall" : "=a"(result) : "a"(0) : "memory"); });
    else
        measure("hypercall", [&] { asm volatile("vmcall" : "=a"(result) : "a"(0) : "memory"); });
    msrs();
    measure_if(cpuid_bit(0x80000001, 0, 'd', 27), "rdtscp", [] {
        asm volatile("rdtscp" : : : "rax", "rcx", "rdx", "memory");
    });
    control_registers();
    guest::set_raw_gate(guest::UD, bench_ud_gate);
    guest::set_raw_gate(guest::BP, bench_bp_gate);
    measure("guest_ud2_roundtrip", [] { asm volatile("ud2" : : : "memory"); });
    measure("guest_int3_roundtrip", [] { asm volatile("int3" : : : "memory"); });
    guest::set_raw_gate(guest::UD, nullptr);
    guest::set_raw_gate(guest::BP, nullptr);
}

} // namespace bench
