// SPDX-License-Identifier: MIT
// Debug registers, single steps, MSRs, paging bits and CPUID.
#include "behave/behave.hpp"

namespace behave {
namespace {

unsigned hits, steps;
u64 last_dr6, watched_rip;

bool on_debug(Frame& frame) {
    last_dr6 = x86::read_dr(6);
    x86::write_dr(6, 0xffff0ff0);
    hits++;
    watched_rip = frame.rip;
    frame.rflags |= 0x10000; // RF: an instruction breakpoint does not hit again
    return true;
}
bool on_step(Frame& frame) {
    last_dr6 = x86::read_dr(6);
    x86::write_dr(6, 0xffff0ff0);
    steps++;
    (void)frame;
    return true;
}

// TF on, N instructions, TF off by POPF; #DB comes after every instruction while TF was set in front of it.
#define STEP_OVER(text)                                                                                                \
    asm volatile("pushfq; orq $0x100, (%%rsp); popfq\n\t" text "\n\tpushfq; andq $~0x100, (%%rsp); popfq"              \
                 :                                                                                                     \
                 :                                                                                                     \
                 : "rax", "rbx", "rcx", "rdx", "memory")

void expect_steps(std::string_view what, unsigned expected) {
    expect(what, expected, steps);
    expect_true("DR6.BS", (last_dr6 & 0x4000) != 0);
    steps = 0;
}

constexpr u32 IA32_EFER = 0xc0000080, IA32_STAR = 0xc0000081, IA32_LSTAR = 0xc0000082, IA32_FMASK = 0xc0000084,
              IA32_TSC_AUX = 0xc0000103, IA32_PAT = 0x277, IA32_TSC_ADJUST = 0x3b, IA32_TSC = 0x10;

void keeps(std::string_view what, u32 index, u64 value) {
    u64 const old = x86::rdmsr(index);
    x86::wrmsr(index, value);
    make_exits(2);
    expect(what, value, x86::rdmsr(index));
    x86::wrmsr(index, old);
}

void write_pkru(u32 value) { asm volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory"); }

} // namespace

void debug() {
    alignas(8) u64 volatile watched = 0;
    set_handler(DB, on_debug);
    hits = 0;
    x86::write_dr(0, reinterpret_cast<u64>(&watched));
    x86::write_dr(7, 0x400 | 2 | 0xdULL << 16); // G0, write, 4 bytes
    make_exits(50);
    expect("DR0 over exits", reinterpret_cast<u64>(&watched), x86::read_dr(0));
    expect("DR7 over exits", 0xd0402, x86::read_dr(7));
    expect("no hit by itself", 0, hits);
    watched = 1;
    expect("data breakpoint hits", 1, hits);
    expect("DR6.B0", 1, last_dr6 & 15);
    x86::write_dr(7, 0x400);
    watched = 2;
    expect("disabled breakpoint is silent", 1, hits);
    u64 target = 0;
    asm volatile("lea 1f(%%rip), %0; mov %0, %%dr1; mov %1, %%dr7\n1: nop" : "=&r"(target) : "r"(0x408ULL) : "memory");
    expect("instruction breakpoint hits", 2, hits);
    expect("at its address", target, watched_rip);
    expect("DR6.B1", 2, last_dr6 & 15);
    asm volatile("lea 1f(%%rip), %0; mov %0, %%dr1\nxor %%eax, %%eax\n1: cpuid"
                 : "=&r"(target)
                 :
                 : "rax", "rbx", "rcx", "rdx", "memory");
    expect("breakpoint on an emulated instruction", 3, hits);
    x86::write_dr(7, 0x400);
    set_handler(DB, nullptr);
}

void single_step() {
    set_handler(DB, on_step);
    steps = 0;
    // The first #DB comes after the instruction behind POPF; PUSHFQ, ANDQ and the last POPFQ follow.
    STEP_OVER("nop");
    expect_steps("steps over NOP", 4);
    STEP_OVER("xorl %%eax, %%eax; cpuid");
    expect_steps("steps over CPUID", 5);
    STEP_OVER("inb $0x61, %%al");
    expect_steps("steps over IN", 4);
    STEP_OVER("movb $0, %%al; outb %%al, $0x80");
    expect_steps("steps over OUT", 5);
    STEP_OVER("movl $0x1b, %%ecx; rdmsr");
    expect_steps("steps over RDMSR", 5);
    STEP_OVER("movl $0xfec00010, %%ecx; movl (%%rcx), %%eax");
    expect_steps("steps over MMIO", 5);
    STEP_OVER("wbinvd");
    expect_steps("steps over WBINVD", 4);
    set_handler(DB, nullptr);
}

void msrs() {
    x86::wrmsr(IA32_EFER, x86::rdmsr(IA32_EFER) | 1);
    keeps("STAR", IA32_STAR, 0x0023001000000000);
    keeps("LSTAR", IA32_LSTAR, 0xffff800012345678);
    keeps("FMASK", IA32_FMASK, 0x47700);
    keeps("KERNEL_GS_BASE", 0xc0000102, 0xffff800000001000);
    keeps("GS_BASE", 0xc0000101, 0x7fff12345000);
    keeps("SYSENTER_CS", 0x174, 8);
    keeps("SYSENTER_ESP", 0x175, 0xffff800000002000);
    keeps("SYSENTER_EIP", 0x176, 0xffff800000003000);
    keeps("PAT", IA32_PAT, 0x0007040600070406);
    expect_true("bad PAT type raises #GP", try_execute([] { x86::wrmsr(IA32_PAT, 2); }).is(GP));
    expect_true("non-canonical LSTAR raises #GP",
                try_execute([] { x86::wrmsr(IA32_LSTAR, 0x8000000000000000); }).is(GP));
    expect_true("LME cannot change under paging",
                try_execute([] { x86::wrmsr(IA32_EFER, x86::rdmsr(IA32_EFER) & ~0x100ULL); }).is(GP));
    expect_true("reserved EFER bits raise #GP",
                try_execute([] { x86::wrmsr(IA32_EFER, x86::rdmsr(IA32_EFER) | 1ULL << 32); }).is(GP));
    // SYSCALL from ring 0 lands at LSTAR with the return address in RCX; our landing is a jump through it.
    u64 rcx = 0, expected = 0;
    x86::wrmsr(IA32_STAR, 0x0023000800000000);
    asm volatile("lea 2f(%%rip), %%rax; mov %%rax, %%rdx; shr $32, %%rdx; mov $0xc0000082, %%ecx; wrmsr\n"
                 "lea 1f(%%rip), %1; syscall\n1: ud2\n2: mov %%rcx, %0"
                 : "=r"(rcx), "=&r"(expected)
                 :
                 : "rax", "rcx", "rdx", "r11", "memory");
    expect("SYSCALL leaves the next address in RCX", expected, rcx);
    if (cpuid_bit(0x80000001, 0, 'd', 27)) {
        x86::wrmsr(IA32_TSC_AUX, 0x1234);
        make_exits(5);
        u32 aux = 0;
        asm volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
        expect("RDTSCP gives TSC_AUX", 0x1234, aux);
    }
    if (!cpuid_bit(7, 0, 'b', 1)) return;
    u64 const adjust = x86::rdmsr(IA32_TSC_ADJUST), now = x86::rdtsc();
    x86::wrmsr(IA32_TSC_ADJUST, adjust + (1ULL << 40));
    u64 const moved = x86::rdtsc() - now;
    expect_true("TSC_ADJUST moves the TSC", moved >= 1ULL << 40 && moved < (1ULL << 40) + (1ULL << 32));
    x86::wrmsr(IA32_TSC_ADJUST, adjust);
    expect_true("and back", x86::rdtsc() - now < 1ULL << 32);
    u64 const base = x86::rdtsc();
    x86::wrmsr(IA32_TSC, base + (1ULL << 41));
    u64 const delta = x86::rdmsr(IA32_TSC_ADJUST) - adjust;
    expect_true("a write of the TSC shows in TSC_ADJUST",
                delta > (1ULL << 41) - (1ULL << 32) && delta < (1ULL << 41) + (1ULL << 32));
    x86::wrmsr(IA32_TSC_ADJUST, adjust);
}

void paging() {
    constexpr u64 page = 12 * lib::MiB; // of 2 MiB
    constexpr u64 no_execute = 1ULL << 63;
    x86::store8(page, 0xc3); // RET
    auto const call = [] { reinterpret_cast<void (*)()>(page)(); };
    expect_true("code runs without NX", !try_execute(call).happened);
    if (cpuid_bit(0x80000001, 0, 'd', 20)) {
        x86::wrmsr(IA32_EFER, x86::rdmsr(IA32_EFER) & ~0x800ULL);
        set_page_bits(page, no_execute, 0);
        auto const reserved = try_execute([] { x86::load8(page); });
        expect_true("NX bit is reserved without EFER.NXE", reserved.is(PF) && (reserved.error & 8) != 0);
        x86::wrmsr(IA32_EFER, x86::rdmsr(IA32_EFER) | 0x800);
        auto const fault = try_execute(call);
        expect_true("NX page does not run", fault.is(PF) && (fault.error & 0x10) != 0 && fault.cr2 == page);
        set_page_bits(page, 0, no_execute);
        x86::wrmsr(IA32_EFER, x86::rdmsr(IA32_EFER) & ~0x800ULL);
    }
    set_page_bits(page, 0, 2 | 0x60);
    x86::load8(page);
    expect("accessed bit", 0x20, page_entry(page) & 0x60);
    expect_true("read-only page is writable without CR0.WP", !try_execute([] { x86::store8(page, 0xc3); }).happened);
    x86::write_cr0(x86::read_cr0() | 0x10000);
    x86::invlpg(page);
    auto const write = try_execute([] { x86::store8(page, 0xc3); });
    expect_true("CR0.WP protects it", write.is(PF) && write.error == 3 && write.cr2 == page);
    x86::write_cr0(x86::read_cr0() & ~0x10000ULL);
    set_page_bits(page, 2, 0x60);
    x86::store8(page, 0xc3);
    expect("dirty bit", 0x60, page_entry(page) & 0x60);
    set_page_bits(page, page_bit_cache_disable | page_bit_write_through, 0);
    x86::store32(page + 64, 0x12345678);
    x86::wbinvd();
    set_page_bits(page, 0, page_bit_cache_disable | page_bit_write_through);
    expect("memory is one, cached or not", 0x12345678, x86::load32(page + 64));
    set_page_bits(page, 0, 1);
    auto const absent = try_execute([] { x86::load8(page + 5); });
    expect_true("absent page: #PF with CR2", absent.is(PF) && absent.error == 0 && absent.cr2 == page + 5);
    set_page_bits(page, 1, 0);
}

// Rights of a user page by its key; the register is the guest's over exits.
void protection_keys() {
    if (!cpuid_bit(7, 0, 'c', 3)) return;
    constexpr u64 key_1 = 1ULL << 59, cr4_pke = 1ULL << 22;
    constexpr u32 access_disable = 1U << 2, by_key = 1U << 5;
    x86::write_cr4(x86::read_cr4() | cr4_pke);
    expect("OSPKE follows CR4", 1, x86::cpuid(7).ecx >> 4 & 1);
    set_page_bits(user_page, key_1, 0);
    write_pkru(access_disable);
    make_exits(20);
    u32 pkru = 0;
    asm volatile("rdpkru" : "=a"(pkru) : "c"(0) : "rdx");
    expect("PKRU over exits", access_disable, pkru);
    auto const fault = try_execute([] { x86::load8(user_page); });
    expect_true("a key forbids access", fault.is(PF) && (fault.error & by_key) != 0 && fault.cr2 == user_page);
    write_pkru(0);
    expect_true("and allows it", !try_execute([] { x86::load8(user_page); }).happened);
    set_page_bits(user_page, 0, key_1);
    x86::write_cr4(x86::read_cr4() & ~cr4_pke);
}

void cpuid() {
    auto const one = x86::cpuid(1);
    u32 const max = x86::cpuid(0).eax;
    expect_true("TSC, MSR, PAE, APIC, PGE", (one.edx & 0x2270) == 0x2270);
    if ((one.ecx >> 26 & 1) != 0) {
        u64 const cr4 = x86::read_cr4();
        x86::write_cr4(cr4 & ~0x40000ULL);
        expect("OSXSAVE clear", 0, x86::cpuid(1).ecx >> 27 & 1);
        x86::write_cr4(cr4 | 0x40000);
        expect("OSXSAVE follows CR4", 1, x86::cpuid(1).ecx >> 27 & 1);
        x86::xsetbv(0, 1);
        expect("XSAVE size for x87", 576, x86::cpuid(0xd, 0).ebx);
        x86::xsetbv(0, 3);
        expect("XSAVE size for SSE", 576, x86::cpuid(0xd, 0).ebx);
        if ((x86::cpuid(0xd, 0).eax & 4) != 0) {
            x86::xsetbv(0, 7);
            expect("XSAVE size for AVX", 832, x86::cpuid(0xd, 0).ebx);
            expect("AVX area offset", 576, x86::cpuid(0xd, 2).ebx);
        }
        expect_true("maximum XSAVE size covers the current", x86::cpuid(0xd, 0).ecx >= x86::cpuid(0xd, 0).ebx);
        x86::xsetbv(0, 1);
        x86::write_cr4(cr4);
    }
    if (max >= 0xb && x86::cpuid(0xb, 0).ebx != 0)
        expect("x2APIC ID of leaf 0xb", one.ebx >> 24, x86::cpuid(0xb, 0).edx);
    u64 const base = x86::rdmsr(IA32_APIC_BASE);
    x86::wrmsr(IA32_APIC_BASE, base & ~apic_base_enable);
    expect("CPUID.APIC follows APIC_BASE.EN", 0, x86::cpuid(1).edx >> 9 & 1);
    x86::wrmsr(IA32_APIC_BASE, base);
    apic::enable();
    expect_true("upper halves are zero", try_execute([] {
                                             u64 rax = ~0ULL << 32, rbx = ~0ULL, rcx = ~0ULL << 32, rdx = ~0ULL;
                                             asm volatile("cpuid" : "+a"(rax), "+b"(rbx), "+c"(rcx), "+d"(rdx));
                                             if (((rax | rbx | rcx | rdx) >> 32) != 0) asm volatile("ud2");
                                         }).happened == false);
    if ((one.ecx >> 31 & 1) != 0) expect_true("hypervisor leaf range", x86::cpuid(0x40000000).eax >= 0x40000000);
    bool const vmx = !is_amd() && (one.ecx & 0x20) != 0, svm = is_amd() && cpuid_bit(0x80000001, 0, 'c', 2);
    print("guest: cpuid max {:#x} extended {:#x} vmx {} svm {}\n", max, x86::cpuid(0x80000000).eax, vmx, svm);
}

} // namespace behave
