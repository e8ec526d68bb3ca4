// SPDX-License-Identifier: MIT
// Interrupt gates of the benchmarks. The time stamp is taken as early as two pushes allow, the EOI comes behind it.
.section .text
.code64
.macro GATE name, body:vararg
.balign 16
.globl \name
\name:
    pushq %rax
    pushq %rdx
    rdtsc
    movl %eax, bench_isr_low(%rip)
    movl %edx, bench_isr_high(%rip)
    \body
    incq bench_isr_count(%rip)
    popq %rdx
    popq %rax
    iretq
.endm

.macro X2APIC_EOI
    pushq %rcx
    movl $0x80b, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    popq %rcx
.endm
.macro XAPIC_EOI
    movl $0xfee000b0, %eax
    movl $0, (%rax)
.endm

// For interrupts that the guest makes itself by INT, which need no EOI: the instructions of X2APIC_EOI without its WRMSR.
.macro NO_EOI
    pushq %rcx
    movl $0x80b, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    popq %rcx
.endm

GATE bench_isr_x2apic, X2APIC_EOI
GATE bench_isr_xapic, XAPIC_EOI
GATE bench_isr_without_eoi, NO_EOI

.section .bss
.balign 8
.globl bench_isr_low, bench_isr_high, bench_isr_count
bench_isr_low: .long 0
bench_isr_high: .long 0
bench_isr_count: .quad 0

.section .note.GNU-stack, "", @progbits
