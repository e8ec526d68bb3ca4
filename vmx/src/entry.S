// SPDX-License-Identifier: MIT
// void vmx_run(vmx::Vcpu* vcpu, std::array<u64, 16>* gprs, bool is_launched)
// Enters the guest again and again: after each VM exit the guest's general registers are stored and
// vmx_after_exit(gprs) decides, which knows the vCPU around them. It returns true to resume; then what it left in the registers' array is loaded. A failed VMLAUNCH or VMRESUME
// goes to vmx_entry_failed(vcpu). RSP, RIP and RFLAGS of the guest are in the VMCS; HOST_RIP is vmx_exit; HOST_RSP is
// written here, because the stack is where the caller is.
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


.balign 16
.globl vmx_run
vmx_run:
    pushq %rbp
    movq %rsp, %rbp
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %rbx
    pushq %rsi                           // 8(%rsp): the registers
    pushq %rdi                           // 0(%rsp): the vCPU
    movl $HOST_RSP, %eax
    vmwrite %rsp, %rax
    testl %edx, %edx
    movq %rsi, %rdi
    jnz 1f
    call load_guest
    vmlaunch
    jmp failed
1:  call load_guest
    vmresume
failed:
    movq (%rsp), %rdi                    // VMfail: the registers here are the guest's, which are stored already
    call vmx_entry_failed
    jmp leave

.balign 16
load_guest:                              // RDI: the registers
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
    ret

.balign 16
.globl vmx_exit
vmx_exit:
    pushq %rdi
    movq 16(%rsp), %rdi
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
    leaq 56(%rsp), %rbp                  // the frame of vmx_run, for backtraces
    call vmx_after_exit
    movq 8(%rsp), %rdi
    testb %al, %al
    jz leave
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
    vmresume
    jmp failed
leave:
    addq $16, %rsp
    popq %rbx
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    popq %rbp
    ret
.section .note.GNU-stack,"",@progbits
