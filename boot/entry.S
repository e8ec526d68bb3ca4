// SPDX-License-Identifier: MIT
// Multiboot2 header and the way from GRUB's 32-bit protected mode to boot_main in long mode. Runs at physical addresses
// until the jump to boot_high: P(symbol) is a symbol's physical address.
#define P(symbol) ((symbol) - 0xffffffff80000000)
#define MULTIBOOT2_LOADER_MAGIC 0x36d76289

.section .multiboot2, "a"
.balign 8
multiboot2_header:                       // [multiboot2] 3.1.1
    .long 0xe85250d6                     // magic
    .long 0                              // architecture: i386, 32-bit protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + 0 + (multiboot2_header_end - multiboot2_header))
    .balign 8
    .short 1, 0                          // information request
    .long 2f - 1f + 8
1:  .long 1, 3, 4, 6, 14, 15             // command line, modules, basic memory, memory map, ACPI old and new
2:  .balign 8
    .short 3, 0                          // entry address: physical
    .long 12
    .long P(boot_entry)
    // No framebuffer tag: asked for one, GRUB 2.06 probes VBE, and with some BIOSes (Bochs') that corrupts GRUB's heap.
    .balign 8
    .short 6, 0                          // modules are page-aligned
    .long 8
    .balign 8
    .short 0, 0                          // end
    .long 8
multiboot2_header_end:

.section .boot.text, "ax"
.code32
.globl boot_entry
boot_entry:
    cli
    cld
    movl $P(boot_stack_top), %esp
    pushl $0
    popfl
    movl %ebx, %esi                      // the boot information
    cmpl $MULTIBOOT2_LOADER_MAGIC, %eax
    movl $P(not_multiboot2), %ebx
    jne boot_failed

    // CPUID itself: EFLAGS.ID can be toggled. [intel/vol1] 20.1
    pushfl
    popl %eax
    movl %eax, %ecx
    xorl $(1 << 21), %eax
    pushl %eax
    popfl
    pushfl
    popl %eax
    xorl %ecx, %eax
    movl $P(no_long_mode), %ebx
    testl $(1 << 21), %eax
    jz boot_failed
    pushl %ebx
    movl $0x80000000, %eax
    cpuid
    popl %ebx
    cmpl $0x80000001, %eax
    jb boot_failed
    pushl %ebx
    movl $0x80000001, %eax
    cpuid
    popl %ebx
    testl $(1 << 29), %edx               // LM
    jz boot_failed
    movl %edx, %ebp                      // NX is bit 20

    // Identity map of the first 4 GiB with 2 MiB pages; the same first GiB at kernel_base.
    movl $P(boot_pd), %edi
    movl $0x83, %eax                     // present, writable, large
    xorl %edx, %edx
1:  movl %eax, (%edi)
    movl %edx, 4(%edi)
    addl $8, %edi
    addl $0x200000, %eax
    jnc 1b
    movl $P(boot_pd) + 3, %eax
    movl $P(boot_pdpt_low), %edi
    movl $4, %ecx
2:  movl %eax, (%edi)
    addl $8, %edi
    addl $4096, %eax
    loop 2b
    movl $P(boot_pd) + 3, P(boot_pdpt_high) + 510 * 8
    movl $P(boot_pdpt_low) + 3, P(boot_pml4)
    movl $P(boot_pdpt_low) + 3, P(boot_pml4) + 256 * 8   // 0xffff800000000000: the direct map, for the first 4 GiB
    movl $P(boot_pdpt_high) + 3, P(boot_pml4) + 511 * 8
    movl $P(boot_pml4), %eax
    movl %eax, %cr3
    movl $(1 << 5), %eax                 // CR4.PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx               // IA32_EFER
    rdmsr
    orl $(1 << 8), %eax                  // LME
    testl $(1 << 20), %ebp
    jz 3f
    orl $(1 << 11), %eax                 // NXE
3:  wrmsr
    movl $0x80010033, %eax               // PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    lgdtl P(boot_gdt_pointer)
    ljmpl $8, $P(boot_long)

// EBX: the message. Serial port COM1 and the text screen, since nothing else is known yet.
boot_failed:
    movl $0xb8000, %edi
    movb $0x0c, %ah                      // bright red
1:  movb (%ebx), %al
    testb %al, %al
    jz 4f
    movw %ax, (%edi)
    addl $2, %edi
    movb %al, %cl
    movl $100000, %ebp                   // a missing port must not hang us
2:  movw $0x3fd, %dx
    inb %dx, %al
    testb $0x20, %al
    jnz 3f
    decl %ebp
    jnz 2b
3:  movw $0x3f8, %dx
    movb %cl, %al
    outb %al, %dx
    incl %ebx
    jmp 1b
4:  hlt
    jmp 4b

.code64
boot_long:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movabsq $boot_high, %rax
    jmpq *%rax
boot_high:
    movq $boot_stack_top, %rsp
    xorl %ebp, %ebp
    movl %esi, %edi
    pushq $0                             // ends a backtrace
    call boot_main
    ud2

.section .rodata.boot, "a"
not_multiboot2: .asciz "mullion: cannot start: not loaded by Multiboot2. In GRUB use the command multiboot2, not multiboot or linux.\r\n"
no_long_mode: .asciz "mullion: cannot start: this CPU has no 64-bit mode; an x86-64 CPU is required.\r\n"
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff             // 64-bit code
    .quad 0x00cf93000000ffff             // data
boot_gdt_pointer:
    .short . - boot_gdt - 1
    .long P(boot_gdt)

.section .bss.boot, "aw", @nobits
.balign 4096
boot_pml4: .skip 4096
boot_pdpt_low: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd: .skip 4 * 4096

// The page below the stack is left out of the final page tables, so that an overflow faults.
.section .boot.stack, "aw", @nobits
.balign 4096
.globl boot_stack_guard, boot_stack, boot_stack_top
boot_stack_guard: .skip 4096
boot_stack: .skip 16384
boot_stack_top:
.section .note.GNU-stack,"",@progbits
