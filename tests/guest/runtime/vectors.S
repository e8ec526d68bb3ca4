// SPDX-License-Identifier: MIT
// 256 interrupt stubs of 16 bytes, the common path to guest_dispatch(), and the pair guest_try/guest_recover.
.section .text
.code64
.balign 16
.globl vector_stubs
vector_stubs:
.set v, 0
.rept 256
    .balign 16
    // The CPU pushes an error code by itself for these. [intel/vol3] 6.15
    .if v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30
    .else
    pushq $0
    .endif
    pushq $v
    jmp common
    .set v, v + 1
.endr

common:
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
    cld
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $-16, %rsp
    call guest_dispatch
    movq %rbp, %rsp
leave:
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

// bool guest_try(void (*function)(void*), void* argument): true if an exception ended the call.
.globl guest_try
guest_try:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushfq
    pushq guest_recovery(%rip)
    movq %rsp, guest_recovery(%rip)
    movq %rdi, %rax
    movq %rsi, %rdi
    subq $8, %rsp
    call *%rax
    addq $8, %rsp
    xorl %eax, %eax
    jmp 1f

// Leaves the innermost guest_try from inside an exception handler, whatever the stack and the registers hold.
.globl guest_recover
guest_recover:
    movq guest_recovery(%rip), %rsp
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $1, %eax
1:  popq guest_recovery(%rip)
    popfq
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

// void guest_enter(Frame const*): becomes what the frame says, ring 0 or 3; never returns by itself.
.globl guest_enter
guest_enter:
    movq %rdi, %rsp
    testb $3, 18 * 8(%rsp) // the frame's CS
    jz leave
    movl $0x2b, %eax
    movl %eax, %ds
    movl %eax, %es
    jmp leave

.section .bss
.balign 8
.globl guest_recovery
guest_recovery: .quad 0

.section .note.GNU-stack, "", @progbits
