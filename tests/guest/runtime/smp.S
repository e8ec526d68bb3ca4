// SPDX-License-Identifier: MIT
// What a CPU runs behind a SIPI: copied to 0x8000, where it arrives in real mode with CS = 0x800. Straight into long
// mode on the tables of the first CPU, on the stack in smp_stack. [intel/vol3] 9.4.4
.set LOW, 0x8000

.section .text
.globl smp_trampoline, smp_trampoline_end
.code16
smp_trampoline:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl LOW + low_gdt - smp_trampoline
    movl $0x11, %eax // PE, ET
    movl %eax, %cr0
    ljmpl $0x18, $LOW + protected - smp_trampoline
.code32
protected:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $0x20, %eax // CR4.PAE
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx // IA32_EFER.LME
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $0x80000031, %eax // PG, NE, ET, PE
    movl %eax, %cr0
    ljmp $0x08, $ap64
.balign 4
low_gdt:
    .word 10 * 8 - 1
    .long gdt
smp_trampoline_end:

.code64
ap64:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movq smp_stack(%rip), %rsp
    xorl %ebp, %ebp
    call guest_ap_start

.section .bss
.balign 8
.globl smp_stack
smp_stack: .quad 0

.section .note.GNU-stack, "", @progbits
