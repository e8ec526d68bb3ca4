// SPDX-License-Identifier: MIT
// Both entries arrive in 32-bit protected mode with flat segments and paging off: PVH with EBX = start info, Multiboot1
// with EAX = 0x2badb002 and EBX = Multiboot information. [xen/pvh] [multiboot1] 3.2
.set MULTIBOOT_MAGIC, 0x1badb002
.set MULTIBOOT_FLAGS, 0x3 // page-aligned modules, memory information

.section .multiboot, "a"
.balign 4
    .long MULTIBOOT_MAGIC
    .long MULTIBOOT_FLAGS
    .long -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)

.section .note.pvh, "a", @note
.balign 4
    .long 4, 4, 18 // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long entry_pvh

.section .boot, "ax"
.code32
.globl entry_pvh
entry_pvh:
    movl %eax, %esi
    rdtsc
    movl %eax, first_tsc
    movl %edx, first_tsc + 4
    movl %esi, boot_magic
    movl %ebx, boot_info_address
    cli
    cld
    movl $boot_stack_end, %esp
    pushl $0
    popfl

    // 1:1 map of 4 GiB in 2 MiB pages, supervisor only; the upper levels allow user so that single pages can.
    movl $page_directories + 7, %eax
    movl $pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b
    movl $pdpt + 7, pml4
    movl $0x83, %eax // present, writable, 2 MiB
    movl $page_directories, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b

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
    lgdt gdt_pointer
    ljmp $0x08, $entry64

.code64
entry64:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %eax, %eax
    movw %ax, %fs
    movw %ax, %gs
    movl $boot_stack_end, %esp
    xorl %ebp, %ebp
    call guest_start
1:  hlt
    jmp 1b

.section .data
.balign 16
.globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff // 0x08 code, 64-bit
    .quad 0x00cf93000000ffff // 0x10 data
    .quad 0x00cf9b000000ffff // 0x18 code, 32-bit
    .quad 0x00cffb000000ffff // 0x20 user code, 32-bit
    .quad 0x00cff3000000ffff // 0x28 user data
    .quad 0x00affb000000ffff // 0x30 user code, 64-bit
    .quad 0x00009b000000ffff // 0x38 code, 16-bit
    .quad 0, 0               // 0x40 TSS, filled in by the runtime
    .quad 0x000093000000ffff // 0x50 data, 16-bit limit
gdt_end:
.globl gdt_pointer
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
.balign 8
.globl first_tsc, boot_magic, boot_info_address
first_tsc: .quad 0
boot_magic: .long 0
boot_info_address: .long 0

.section .bss
.balign 4096
.globl pml4, page_directories
pml4: .skip 4096
pdpt: .skip 4096
page_directories: .skip 4 * 4096
.skip 32768
boot_stack_end:

.section .note.GNU-stack, "", @progbits
