// SPDX-License-Identifier: MIT
// Leaves long mode all the way down to 16-bit real mode at 0x8000 and comes back through unreal, protected and PAE mode.
// u32 behave_descend(u32 cr3): a bit per stage that worked. Position: copied to 0x8000, GDT from the kernel (it lies
// below 16 MiB and all its bases are 0).
#include "behave/long_mode.inc"

.set LOW, 0x8000
.set RESULT, 0x7000  // bits of stages
.set MAP, 0x7100     // an entry of the memory map
.set VECTOR, 0x60    // interrupt used in real mode
.set TICKS, 0x46c    // 40:6Ch
.set PATIENCE, 5000000 // calls of a BIOS service while two ticks are waited for; of 15 instructions, each 1 ns in some tests

.section .text
.code64
.globl behave_descend
behave_descend:
    push_kept_registers
    movq %rsp, saved_stack(%rip)
    sidt saved_idt(%rip)
    movq %cr4, %rax
    movq %rax, saved_cr4(%rip)
    movl $low_start, %esi
    movl $LOW, %edi
    movl $low_end - low_start, %ecx
    rep movsb
    movl $0, RESULT
    // far jump to 32-bit compatibility mode
    subq $16, %rsp
    movl $LOW + compat - low_start, (%rsp)
    movl $0x18, 4(%rsp)
    ljmpl *(%rsp)

.globl low_start, low_end
low_start:
.code32
compat:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $LOW - 0x400, %esp
    orl $1, RESULT // compatibility mode
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0 // paging off: long mode ends
    movl $0xc0000080, %ecx
    rdmsr
    testl $0x400, %eax // LMA must follow
    jnz 1f
    orl $2, RESULT
1:  andl $~0x100, %eax
    wrmsr
    movl %cr4, %eax
    andl $~0x20, %eax // PAE off
    movl %eax, %cr4
    ljmp $0x38, $LOW + protected16 - low_start
.code16
protected16:
    movw $0x50, %ax // 64 KiB limit
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmp $0, $LOW + real - low_start
real:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $LOW - 0x400, %esp
    orl $4, RESULT // real mode
    lidtl LOW + real_idt - low_start
    movl $LOW + handler - low_start, VECTOR * 4 // 0:offset
    int $VECTOR
    clc
    int $0x13 // no disks
    jnc 1f
    movl $0xe820, %eax
    movl $0x534d4150, %edx
    movl $20, %ecx
    xorl %ebx, %ebx
    movw $MAP, %di
    stc
    int $0x15
    jc 1f
    cmpl $0x534d4150, %eax
    jne 1f
    cmpl $0, MAP // the first entry: RAM from 0 on, up to what interrupt 12h says
    jne 1f
    cmpl $1, MAP + 16
    jne 1f
    testl %ebx, %ebx
    jz 1f
    xorl %ecx, %ecx // too little room
    movl $0xe820, %eax
    int $0x15
    jnc 1f
    int $0x12
    movzwl %ax, %eax
    shll $10, %eax
    cmpl %eax, MAP + 8
    jne 1f
    movw $0xe801, %ax
    int $0x15
    jc 1f
    cmpw $0x3c00, %ax
    jne 1f
    movb $0x01, %ah
    int $0x16
    jnz 1f // no key
    movb $0, %ah
    int $0x1a
    jc 1f
    orw $0x400, RESULT // BIOS services
    cld
    movw $LOW + teletype_text - low_start, %si
2:  lodsb
    testb %al, %al
    jz 3f
    movb $0x0e, %ah
    movw $7, %bx // page 0, grey
    int $0x10
    jmp 2b
3:  // the timer's interrupts count, and both ways to the count show it
    movl TICKS, %edi
    movl $PATIENCE, %ebp
    sti
4:  movb $0, %ah
    int $0x1a
    shll $16, %ecx
    movw %dx, %cx
    movl %ecx, %eax
    subl %edi, %eax
    cmpl $2, %eax
    jae 5f
    decl %ebp
    jnz 4b
5:  cli
    movl TICKS, %eax
    subl %ecx, %eax // at most one more since the call
    cmpl $1, %eax
    ja 1f
    testl %ebp, %ebp
    jz 1f
    orw $0x800, RESULT // ticks
1:  pushfw
    popw %bx
    movl $1, %eax
    cpuid // an exit in real mode
    inb $0x61, %al
    movw $0x1000, %ax
    movw %ax, %es
    movb $0x5a, %es:0x10 // 0x10010
    cmpb $0x5a, %es:0x10
    jne 1f
    orl $16, RESULT // real-mode addressing
1:  // unreal: a 4 GiB data segment kept in real mode
    lgdt LOW + low_gdt_pointer - low_start
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    jmp 2f
2:  movw $0x10, %cx
    movw %cx, %fs
    andb $0xfe, %al
    movl %eax, %cr0
    jmp 3f
3:  movl $0x00c00000, %esi
    movl $0xcafe1234, %fs:(%esi)
    cmpl $0xcafe1234, %fs:(%esi)
    jne 4f
    orl $32, RESULT // unreal mode
4:  movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $0x18, $LOW + protected32 - low_start
handler:
    orw $8, RESULT // interrupt in real mode
    iretw
.code32
protected32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    orl $64, RESULT // protected mode without paging
    // PAE paging without long mode: the first four entries of a PDPT; ours at 0x9000, one page directory of 2 MiB pages
    movl $0x9000, %edi
    movl $0x1000, %ecx
    xorl %eax, %eax
    rep stosl
    movl $0xa001, 0x9000
    movl $0xa000, %edi
    movl $0x83, %eax
    movl $16, %ecx
5:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 5b
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0x9000, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    cmpl $0xcafe1234, 0x00c00000
    jne 6f
    orl $128, RESULT // PAE paging
6:  movl $20, %ecx // CR0.PG toggles
7:  movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    orl $0x80000000, %eax
    movl %eax, %cr0
    loop 7b
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    orl $256, RESULT
    // 32-bit paging with 4 MiB pages
    movl $0x83, 0x9000
    movl $0x400083, 0x9004
    movl $0x800083, 0x9008
    movl $0xc00083, 0x900c
    movl %cr4, %eax
    andl $~0x20, %eax
    orl $0x10, %eax
    movl %eax, %cr4
    movl $0x9000, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    cmpl $0xcafe1234, 0x00c00000
    jne 8f
    orl $512, RESULT
8:  andl $0x7fffffff, %eax
    movl %eax, %cr0
    // and up again
    enter_long_mode saved_cr4, ascended
teletype_text:
    .asciz "guest: a line by interrupt 10h\r\n"
real_idt:
    .word 0x3ff
    .long 0
low_gdt_pointer:
    .word 0x5f
    .long gdt
low_end:

.code64
ascended:
    load_long_mode_segments
    movq saved_stack(%rip), %rsp
    lidt saved_idt(%rip)
    movl RESULT, %eax
    pop_kept_registers_and_return

.section .bss
.balign 8
saved_stack: .quad 0
saved_cr4: .quad 0
saved_idt: .skip 16

.section .note.GNU-stack, "", @progbits
