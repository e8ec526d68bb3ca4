// SPDX-License-Identifier: MIT
// Where an application processor begins after SIPI: real mode at the start of a page below 1 MiB, into which
// boot/bring_up.cpp copies this. From there straight to long mode on the kernel's page table, in which this page is mapped
// at its own address, read-only and executable, as long as CPUs are being started. Reached by offsets only.
#define T(symbol) ((symbol) - ap_trampoline)

.section .rodata.ap_trampoline, "a"
.balign 16
.globl ap_trampoline, ap_trampoline_end, ap_protected_mode, ap_long_mode, ap_gdt, ap_gdt_end, ap_parameters
.code16
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    // One CPU per start: one that comes twice, or long after its time, must not take another's stack.
    movl $1, %eax
    xchgl %eax, T(ap_claimed)
    testl %eax, %eax
    jnz ap_park
    movl T(ap_base), %ebx
    lgdtl T(ap_gdt_pointer)
    movl $0x11, %eax                     // PE, ET; CD and NW off
    movl %eax, %cr0
    ljmpl *T(ap_protected_pointer)
ap_park:
    hlt
    jmp ap_park

.code32
ap_protected_mode:                       // EBX: the page
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $(1 << 5), %eax                 // PAE
    movl %eax, %cr4
    movl T(ap_cr3)(%ebx), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx               // IA32_EFER: LME, and NXE before a table with NX bits is used
    movl T(ap_efer)(%ebx), %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80010033, %eax               // PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    ljmpl *T(ap_long_pointer)(%ebx)

.code64
ap_long_mode:
    movl %ebx, %ebx
    movq T(ap_stack)(%rbx), %rsp
    movq T(ap_argument)(%rbx), %rdi
    movq T(ap_entry)(%rbx), %rax
    xorl %ebp, %ebp
    pushq $0                             // ends a backtrace
    jmpq *%rax

.balign 8
ap_gdt:                                  // accessed bits set: the page cannot be written from protected mode on
    .quad 0
    .quad 0x00cf9b000000ffff             // 32-bit code
    .quad 0x00cf93000000ffff             // data
    .quad 0x00af9b000000ffff             // 64-bit code
ap_gdt_end:

// boot/bring_up.cpp, TrampolineParameters
.balign 8
ap_parameters:
ap_claimed: .long 0
ap_base: .long 0
ap_cr3: .long 0
ap_efer: .long 0
ap_protected_pointer: .long 0
    .short 0x08
ap_gdt_pointer: .short 0
    .long 0
ap_long_pointer: .long 0
    .short 0x18
    .short 0, 0, 0
ap_stack: .quad 0
ap_argument: .quad 0
ap_entry: .quad 0
ap_trampoline_end:
.section .note.GNU-stack,"",@progbits
