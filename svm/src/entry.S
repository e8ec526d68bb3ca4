// SPDX-License-Identifier: MIT
// void svm_run(svm::Vcpu* vcpu, std::array<u64, 16>* gprs, u64 vmcb, u64 host_area)
// Enters the guest again and again: after each exit the guest's general registers are stored and svm_after_exit(vcpu)
// decides. It returns true to go on; then what it left in the registers' array is loaded. RAX, RSP, RIP and RFLAGS are in
// the VMCB; `vmcb` and `host_area` are the physical addresses that VMRUN, VMLOAD and VMSAVE take. [amd/vol2] 15.5
//
// With the global interrupt flag clear nothing can strike while GS and TR are the guest's. RFLAGS.IF has to be set at
// VMRUN: it is the mask for the machine's interrupts while the guest runs.
.section .text
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

.balign 16
.globl svm_run
svm_run:
    pushq %rbp
    movq %rsp, %rbp
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %rbx
    pushq %rcx                           // 24(%rsp): the host's area
    pushq %rdx                           // 16(%rsp): the VMCB
    pushq %rsi                           // 8(%rsp): the registers
    pushq %rdi                           // 0(%rsp): the vCPU
1:  movq 16(%rsp), %rax
    movq 8(%rsp), %rdi
    clgi
    sti
    vmload %rax
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
    vmrun %rax
    vmsave %rax                          // RAX is the host's again
    pushq %rdi
    movq 16(%rsp), %rdi
    movq 32(%rsp), %rax
    vmload %rax
    cli
    stgi                                 // an NMI that ended the guest's run is taken here
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
    movq (%rsp), %rdi
    leaq 72(%rsp), %rbp                  // the frame of svm_run, for backtraces
    call svm_after_exit
    testb %al, %al
    jnz 1b
    addq $32, %rsp
    popq %rbx
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    popq %rbp
    ret
.section .note.GNU-stack,"",@progbits
