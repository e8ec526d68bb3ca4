// SPDX-License-Identifier: MIT
// Entry of every interrupt and exception: a stub per vector pushes what is missing to make all frames alike
// (kernel/traps.hpp, TrapFrame). What interrupts ring 3 goes on in user_entry.S. All of it may be mapped while ring 3 runs
// (kernel/entry_pages.hpp).
.section .entry, "ax"
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

// With the frame at RSP. A frame for the backtrace, too: saved rbp, then the interrupted rip.
.macro call_trap_dispatch
    movq %rsp, %rdi
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
.endm

// What may strike anywhere, also between an entry from ring 3 and the moment at which GS and CR3 are ours again. RSP is in this
// CPU's EntryStack (kernel/descriptors.hpp), which may be mapped while ring 3 runs: no register stays in it.
#define ENTRY_CPU 80                     // from RSP after three more words
#define ENTRY_ROOT 88
#define ENTRY_STACK 96
.balign 16
trap_on_own_stack:
    pushq %rax
    pushq %rcx
    pushq %rdx
    movq %cr3, %rax
    movq ENTRY_ROOT(%rsp), %rdx
    cmpq %rax, %rdx
    je 1f
    movq %rdx, %cr3
1:  movq %rsp, %rcx
    movq ENTRY_STACK(%rsp), %rsp
    pushq %rcx
    pushq %rax                           // CR3 as it was
    pushq 72(%rcx)                       // SS, RSP, RFLAGS, CS, RIP, error code, vector
    pushq 64(%rcx)
    pushq 56(%rcx)
    pushq 48(%rcx)
    pushq 40(%rcx)
    pushq 32(%rcx)
    pushq 24(%rcx)
    pushq 16(%rcx)                       // RAX, RCX, RDX
    pushq 8(%rcx)
    pushq (%rcx)
    movq $0, 16(%rcx)
    movq $0, 8(%rcx)
    movq $0, (%rcx)
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
    movl ENTRY_CPU(%rcx), %eax
    movl ENTRY_CPU+4(%rcx), %edx
    movl $IA32_GS_BASE, %ecx
    wrmsr
    pushq $2                             // AC and DF may be ring 3's
    popfq
    call_trap_dispatch
    movq 80(%rsp), %rax                  // CR3 as it was
    movq %cr3, %rdx
    cmpq %rax, %rdx
    jne 2f
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
    // Back to ring 3 or the way there: only EntryStack is mapped, and these registers hold nothing of Mullion's.
2:  movq 88(%rsp), %rcx
    movq (%rsp), %rdx
    movq %rdx, (%rcx)
    movq 8(%rsp), %rdx
    movq %rdx, 8(%rcx)
    movq 16(%rsp), %rdx
    movq %rdx, 16(%rcx)
    movq 40(%rsp), %rdx                  // what trap_dispatch may have changed: RIP, CS, RFLAGS, RSP, SS
    movq %rdx, 40(%rcx)
    movq 48(%rsp), %rdx
    movq %rdx, 48(%rcx)
    movq 56(%rsp), %rdx
    movq %rdx, 56(%rcx)
    movq 64(%rsp), %rdx
    movq %rdx, 64(%rcx)
    movq 72(%rsp), %rdx
    movq %rdx, 72(%rcx)
    movq %rcx, %rsp
    movq %rax, %cr3
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

.balign 16
trap_common:
    testb $3, 24(%rsp)                   // CS: where it struck
    jnz trap_from_user
    save_registers
    cld
    call_trap_dispatch
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

.section .text

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
