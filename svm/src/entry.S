// void svm_enter(std::array<u64, 16>* gprs, u64 vmcb, u64 host_area)
// Loads the guest's general registers, enters the guest, and after the next exit stores them. RAX, RSP, RIP and RFLAGS are in
// the VMCB; the physical addresses are what VMRUN, VMLOAD and VMSAVE take. [amd/vol2] 15.5
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
.globl svm_enter
svm_enter:
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %rbx
    pushq %rbp
    pushq %rdx
    pushq %rdi
    movq %rsi, %rax
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
    movq 8(%rsp), %rdi
    movq 16(%rsp), %rax
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
    addq $16, %rsp
    popq %rbp
    popq %rbx
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    ret
.section .note.GNU-stack,"",@progbits
