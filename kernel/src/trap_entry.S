// SPDX-License-Identifier: MIT
// Entry of every interrupt and exception: a stub per vector pushes what is missing to make all frames alike
// (kernel/traps.hpp, TrapFrame). What interrupts ring 3 goes on in user_entry.S.
.section .text
#define FRAME_SIZE 176
#define IA32_GS_BASE 0xc0000101

.macro stub vector
    .balign 16
    .if \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30
        // the CPU has pushed an error code
    .else
        pushq $0
    .endif
    pushq $\vector
    .if \vector == 2 || \vector == 8 || \vector == 18
        jmp trap_on_own_stack
    .else
        jmp trap_common
    .endif
.endm

.balign 16
.globl trap_stubs
trap_stubs:
.set i, 0
.rept 256
    stub i
    .set i, i + 1
.endr

.macro save_registers
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
.endm

// What may strike anywhere, also between an entry from ring 3 and the moment at which GS is ours again: the CPU's own data is
// named at the top of each of these stacks (initialise_cpu()).
.balign 16
trap_on_own_stack:
    save_registers
    movl FRAME_SIZE(%rsp), %eax
    movl FRAME_SIZE+4(%rsp), %edx
    movl $IA32_GS_BASE, %ecx
    wrmsr
    jmp trap_saved

.balign 16
trap_common:
    testb $3, 24(%rsp)                   // CS: where it struck
    jnz trap_from_user
    save_registers
trap_saved:
    cld
    movq %rsp, %rdi
    // A frame for the backtrace: saved rbp, then the interrupted rip.
    leaq 17*8(%rsp), %rax
    pushq (%rax)
    pushq %rbp
    movq %rsp, %rbp
    call trap_dispatch
    addq $16, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

// bool rdmsr_safe(u32 index, u64& value): false when the MSR faults.
.macro fixup fault, resume
    .pushsection .exception_fixups, "a"
    .quad \fault, \resume
    .popsection
.endm

.globl _ZN3lib3x8610rdmsr_safeEjRm
_ZN3lib3x8610rdmsr_safeEjRm:
    movl %edi, %ecx
1:  rdmsr
    shlq $32, %rdx
    orq %rdx, %rax
    movq %rax, (%rsi)
    movl $1, %eax
    ret
2:  xorl %eax, %eax
    ret
    fixup 1b, 2b

.globl _ZN3lib3x8610wrmsr_safeEjm
_ZN3lib3x8610wrmsr_safeEjm:
    movl %edi, %ecx
    movq %rsi, %rax
    movq %rsi, %rdx
    shrq $32, %rdx
1:  wrmsr
    movl $1, %eax
    ret
2:  xorl %eax, %eax
    ret
    fixup 1b, 2b
.section .note.GNU-stack,"",@progbits
