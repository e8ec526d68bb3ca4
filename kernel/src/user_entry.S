// SPDX-License-Identifier: MIT
// void x86_enter_user(kernel::UserContext* context)
// Enters ring 3 with the registers in `context`. Whatever brings the CPU back - an interrupt, an exception, a system call -
// comes by its stub in trap_entry.S to trap_from_user: the registers are in `context` then, with the vector, and the function
// returns to its caller. Interrupts are off around it.
// On a CPU that is open to Meltdown, `context` names the tables for ring 3, and the code is mapped in them as well: the page
// with `context`, this section and little else is (kernel/entry_pages.hpp).
.section .entry, "ax"
#define KERNEL_STACK 176
#define CPU 184
#define ROOT 192
#define KERNEL_ROOT 200
#define DATA_SELECTOR 0x10
#define IA32_GS_BASE 0xc0000101

.balign 16
.globl x86_enter_user
x86_enter_user:
    pushq %rbp
    movq %rsp, %rbp
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %rbx
    movq %rsp, KERNEL_STACK(%rdi)
    movq %rdi, %rsp                      // an NMI or machine check now has a stack of its own
    cmpq $0, ROOT(%rdi)
    jne .Lload_root
.Lrestore:
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
    addq $16, %rsp                       // vector and error code
    iretq
.Lload_root:
    movq ROOT(%rdi), %rax
    movq %rax, %cr3
    jmp .Lrestore

// From trap_entry.S: on the stack of TSS.RSP0, which is the context; the stub has pushed the vector. GS, AC, DF and the data
// segments are still ring 3's.
.balign 16
.globl trap_from_user
trap_from_user:
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
.globl trap_from_user_saved
trap_from_user_saved:                    // a machine check comes here (traps.cpp), with RSP at the context
    cmpq $0, ROOT(%rsp)
    jne .Lload_kernel_root
.Lmapped:
    movl CPU(%rsp), %eax
    movl CPU+4(%rsp), %edx
    movl $IA32_GS_BASE, %ecx
    wrmsr
    movl $DATA_SELECTOR, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    movq KERNEL_STACK(%rsp), %rsp
    pushq $2                             // AC would open user pages to ring 0, whatever SMAP says
    popfq
    popq %rbx
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    popq %rbp
    ret
.Lload_kernel_root:
    movq KERNEL_ROOT(%rsp), %rax
    movq %rax, %cr3
    jmp .Lmapped
.section .note.GNU-stack,"",@progbits
