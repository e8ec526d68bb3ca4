// lib::u64 vmx_enter(std::array<u64, 16>* gprs, bool is_launched)
// Loads the guest's general registers, enters the guest, and after the next VM exit stores them and returns 0. RSP, RIP and
// RFLAGS are in the VMCS. A failed VMLAUNCH or VMRESUME returns 1. HOST_RIP is vmx_exit; HOST_RSP is written here because
// the stack is where the caller is.
.section .text
#define RAX 0
#define RCX 8
#define RDX 16
#define RBX 24
#define RBP 40
#define RSI 48
#define RDI 56
#define R8 64
#define R9 72
#define R10 80
#define R11 88
#define R12 96
#define R13 104
#define R14 112
#define R15 120
#define HOST_RSP 0x6c14

.macro restore_host
    popq %rbp
    popq %rbx
    popq %r12
    popq %r13
    popq %r14
    popq %r15
.endm

.balign 16
.globl vmx_enter
vmx_enter:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %rbx
    pushq %rbp
    pushq %rdi
    cmpq %rsp, 128(%rdi)                 // HostStack of this vCPU: the field is written only when the stack moved
    je 1f
    movq %rsp, 128(%rdi)
    movl $HOST_RSP, %eax
    vmwrite %rsp, %rax
1:  testl %esi, %esi
    movq RAX(%rdi), %rax
    movq RCX(%rdi), %rcx
    movq RDX(%rdi), %rdx
    movq RBX(%rdi), %rbx
    movq RBP(%rdi), %rbp
    movq RSI(%rdi), %rsi
    movq R8(%rdi), %r8
    movq R9(%rdi), %r9
    movq R10(%rdi), %r10
    movq R11(%rdi), %r11
    movq R12(%rdi), %r12
    movq R13(%rdi), %r13
    movq R14(%rdi), %r14
    movq R15(%rdi), %r15
    movq RDI(%rdi), %rdi
    jz 2f
    vmresume
    jmp 3f
2:  vmlaunch
3:  popq %rdi                            // VMfail: nothing was loaded
    movl $1, %eax
    restore_host
    ret

.balign 16
.globl vmx_exit
vmx_exit:
    pushq %rdi
    movq 8(%rsp), %rdi
    movq %rax, RAX(%rdi)
    movq %rcx, RCX(%rdi)
    movq %rdx, RDX(%rdi)
    movq %rbx, RBX(%rdi)
    movq %rbp, RBP(%rdi)
    movq %rsi, RSI(%rdi)
    movq %r8, R8(%rdi)
    movq %r9, R9(%rdi)
    movq %r10, R10(%rdi)
    movq %r11, R11(%rdi)
    movq %r12, R12(%rdi)
    movq %r13, R13(%rdi)
    movq %r14, R14(%rdi)
    movq %r15, R15(%rdi)
    popq RDI(%rdi)
    addq $8, %rsp
    xorl %eax, %eax
    restore_host
    ret
.section .note.GNU-stack,"",@progbits
