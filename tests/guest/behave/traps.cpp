// SPDX-License-Identifier: MIT
// What exceptions leave in RFLAGS, single steps where a shadow holds them back, and SYSENTER from a 32-bit program.
#include "behave/behave.hpp"

#include <array>

extern "C" {
extern char const behave_after_int1[], behave_sysenter_landing[];
extern guest::u64 behave_sysenter_arrivals;
}

namespace behave {
namespace {

constexpr u64 resume_flag = 0x10000, trap_flag = 0x100, dr6_clear = 0xffff0ff0, dr6_step = 0x4000;
u64 fault_flags_seen;

bool on_fault(Frame& frame) {
    fault_flags_seen = frame.rflags;
    return false;
}

template <typename F> void expect_resume_flag(std::string_view what, u8 vector, F&& function) {
    set_handler(vector, on_fault);
    fault_flags_seen = 0;
    expect_true(what, try_execute(function).is(vector));
    expect(what, resume_flag, fault_flags_seen & resume_flag);
    set_handler(vector, nullptr);
}

unsigned steps, int1s;
u64 int1_rip, breakpoints;

bool on_debug(Frame& frame) {
    u64 const dr6 = x86::read_dr(6);
    x86::write_dr(6, dr6_clear);
    if ((dr6 & dr6_step) != 0)
        steps++;
    else if ((dr6 & 0xf) != 0)
        breakpoints++;
    else {
        int1s++;
        int1_rip = frame.rip;
    }
    if ((dr6 & 0xf) != 0) frame.rflags |= resume_flag;
    return true;
}

void expect_steps(std::string_view what, unsigned wanted_steps, unsigned wanted_int1s) {
    expect(what, wanted_steps, steps);
    expect(what, wanted_int1s, int1s);
    steps = int1s = 0;
}

// TF on, the instructions, TF off: PUSHFQ, ANDQ and the last POPFQ are steps too.
#define STEP_OVER(text)                                                                                                \
    asm volatile("pushfq; orq $0x100, (%%rsp); popfq\n\t" text "\n\tpushfq; andq $~0x100, (%%rsp); popfq"              \
                 :                                                                                                     \
                 :                                                                                                     \
                 : "rax", "memory")

} // namespace

// A fault's handler finds RF set, whoever raised it; the next instruction runs without. [intel/vol3] 19.3.1.1
void resume_flags() {
    if (!is_amd()) // QEMU 7.2 itself leaves it clear
        expect_resume_flag("RF after UD2", UD, [] { asm volatile("ud2"); });
    expect_resume_flag("RF after a bad MOV to CR4", GP, [] { x86::write_cr4(x86::read_cr4() | 1ULL << 40); });
    expect_resume_flag("RF after a bad WRMSR", GP, [] { x86::wrmsr(0xc0000080, 1ULL << 32); });
    expect_resume_flag("RF after a bad MOV to CR0", GP, [] { x86::write_cr0(x86::read_cr0() & ~1ULL); });
    set_handler(DB, on_debug);
    breakpoints = 0;
    x86::write_dr(6, dr6_clear);
    asm volatile("leaq 1f(%%rip), %%rax; movq %%rax, %%dr1; movq %0, %%dr7\n\t"
                 "movl $0xfec00010, %%eax; movl (%%rax), %%eax\n1: nop"
                 :
                 : "r"(0x408ULL)
                 : "rax", "memory");
    expect("a breakpoint after a device access is hit", 1, breakpoints);
    x86::write_dr(7, 0x400);
    set_handler(DB, nullptr);
}

void trap_steps() {
    set_handler(DB, on_debug);
    steps = int1s = 0;
    x86::write_dr(6, dr6_clear);
    STEP_OVER("movl %%ss, %%eax; movl %%eax, %%ss; nop");
    expect_steps("the step of MOV SS is lost", 5, 0);
    STEP_OVER("cli; sti; hlt");
    x86::cli();
    if (is_amd() && steps == 5) steps++; // QEMU's STI does not trap
    expect_steps("a step ends STI; HLT", 6, 0);
    if (!is_amd()) { // QEMU's INT1 stops the machine, for its debugger
        STEP_OVER("movl %%ss, %%eax; movl %%eax, %%ss; .byte 0xf1\n.globl behave_after_int1\nbehave_after_int1:");
        expect_steps("INT1 in the shadow of MOV SS", 4, 1);
        expect("its trap comes after it", reinterpret_cast<u64>(behave_after_int1), int1_rip);
        constexpr std::array<u8, 5> code{0x8c, 0xd0, 0x8e, 0xd0, 0xf1}; // MOV EAX, SS; MOV SS, EAX; INT1
        Frame registers{};
        registers.rflags = 2 | trap_flag;
        expect_true("the program goes on", !run_code({.bytes = code, .registers = registers, .user = true}).happened);
        if (steps == 2) steps--; // in Bochs INT n is a step too
        expect_steps("INT1 in the shadow of MOV SS, in ring 3", 1, 1);
        expect("its trap comes after it, in ring 3", user_page + code.size(), int1_rip);
    }
    set_handler(DB, nullptr);
}

// In compatibility mode: Intel's CPUs carry it out, AMD's raise #UD. QEMU carries it out, too, and leaves a code
// segment that its own VMRUN refuses at the next exit, here by CPUID or an interrupt.
void sysenter() {
    x86::wrmsr(0x174, 8);
    x86::wrmsr(0x175, user_stack_end - 0x1000);
    x86::wrmsr(0x176, reinterpret_cast<u64>(behave_sysenter_landing));
    constexpr std::array<u8, 2> code{0x0f, 0x34};
    for (unsigned i = 0; i < 20; i++) {
        Frame registers{};
        registers.rflags = 2;
        u64 const before = behave_sysenter_arrivals;
        auto const fault = run_code({.bytes = code, .registers = registers, .user = true, .is_32_bit = true});
        bool const has_arrived = behave_sysenter_arrivals == before + 1;
        if (!expect_true("SYSENTER lands, or it is #UD", has_arrived ? !fault.happened : fault.is(UD)))
            print("guest: exception {} error {:#x} at {:#x}\n", fault.vector, fault.error, fault.rip);
        make_exits(1);
    }
    x86::wrmsr(0x174, 0);
}

// Exits, and then out by the interrupt that ends a program.
asm(".pushsection .text\n"
    ".globl behave_sysenter_landing\n"
    "behave_sysenter_landing:\n"
    "movl $20000, %ecx\n"
    "1: decl %ecx; jnz 1b\n"
    "xorl %eax, %eax; cpuid; inb $0x61, %al\n"
    "incq behave_sysenter_arrivals(%rip)\n"
    "int $0x81\n"
    "ud2\n"
    ".popsection\n"
    ".pushsection .bss\n"
    ".balign 8\n"
    ".globl behave_sysenter_arrivals\n"
    "behave_sysenter_arrivals: .zero 8\n"
    ".popsection\n");

} // namespace behave
