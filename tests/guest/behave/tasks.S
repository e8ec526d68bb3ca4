// SPDX-License-Identifier: MIT
// Hardware task switches. Leaves long mode for 32-bit code without paging, switches tasks in all ways, then with PAE
// paging, and comes back. u32 behave_tasks(): a bit for each kind of switch that worked.
#include "behave/long_mode.inc"

.set CODE, 0x08
.set DATA, 0x10
.set BASED, 0x18     // code whose base is the 16-bit task's
.set MAIN, 0x20      // TSS
.set JUMPED, 0x28
.set CALLED, 0x30
.set FAULTED, 0x38
.set DOUBLE, 0x40
.set BAD, 0x48       // its DS is not valid
.set ABSENT, 0x50
.set SIXTEEN, 0x58   // a 16-bit TSS
.set UNMAPPED, 0x60  // a TSS on a page that is not there; so is a stack
.set GATE, 0x68      // a task gate to CALLED
.set WRONG, 0xfff8   // beyond the table
.set INTERRUPT, 0x40
.set UNMAPPED_AT, 0xd0000000
.set NT, 0x4000
.set BUSY, 2
.set TS, 8
// Fields of a TSS, [intel/vol3] figures 8-2 and 8-10
.set TSS_CR3, 0x1c
.set TSS_EIP, 0x20
.set TSS_EFLAGS, 0x24
.set TSS_EAX, 0x28
.set TSS_ESP, 0x38
.set TSS_EBP, 0x3c
.set TSS_CS, 0x4c
.set TSS_SS, 0x50
.set TSS_DS, 0x54
.set TSS16_IP, 0x0e
.set TSS16_FLAGS, 0x10
.set TSS16_AX, 0x12
.set TSS16_ES, 0x22

.macro set_base descriptor, at
    movl $\at, %eax
    movw %ax, task_gdt + \descriptor + 2
    shrl $16, %eax
    movb %al, task_gdt + \descriptor + 4
    movb %ah, task_gdt + \descriptor + 7
.endm
.macro set_gate vector, handler
    movl $\handler, %eax
    movw %ax, task_idt + 8 * \vector
    shrl $16, %eax
    movw %ax, task_idt + 8 * \vector + 6
    movw $CODE, task_idt + 8 * \vector + 2
    movw $0x8e00, task_idt + 8 * \vector + 4
.endm
.macro set_task_gate vector, selector
    movl $(\selector << 16), task_idt + 8 * \vector
    movl $0x8500, task_idt + 8 * \vector + 4
.endm
.macro set_task tss, entry, stack
    movl $pdpt_main, \tss + TSS_CR3
    movl $\entry, \tss + TSS_EIP
    movl $2, \tss + TSS_EFLAGS
    movl $\stack, \tss + TSS_ESP
    movl $DATA, \tss + 0x48
    movl $CODE, \tss + TSS_CS
    movl $DATA, \tss + TSS_SS
    movl $DATA, \tss + TSS_DS
    movl $DATA, \tss + 0x58
    movl $DATA, \tss + 0x5c
.endm
.macro worked stage
    orl $(1 << \stage), task_result
.endm
.macro expect_task selector, otherwise
    strw %cx
    cmpw $\selector, %cx
    jne \otherwise
.endm

.section .text
.code64
.globl behave_tasks
behave_tasks:
    push_kept_registers
    movq %rsp, task_saved_stack(%rip)
    sidt task_saved_idt(%rip)
    movq %cr4, %rax
    movq %rax, task_saved_cr4(%rip)
    subq $16, %rsp
    movl $task_compat, (%rsp)
    movl $0x18, 4(%rsp)
    ljmpl *(%rsp)

.code32
task_compat:
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl $0xc0000080, %ecx // IA32_EFER.LME
    rdmsr
    andl $~0x100, %eax
    wrmsr
    movl %cr4, %eax
    andl $~0x20, %eax // PAE
    movl %eax, %cr4
    lgdtl task_gdt_pointer
    lidtl task_idt_pointer
    ljmp $CODE, $1f
1:  movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl $main_stack_end, %esp

    set_base BASED, sixteen_entry
    set_base MAIN, main_tss
    set_base JUMPED, jumped_tss
    set_base CALLED, called_tss
    set_base FAULTED, faulted_tss
    set_base DOUBLE, double_tss
    set_base BAD, bad_tss
    set_base ABSENT, bad_tss
    set_base SIXTEEN, sixteen_tss
    set_base UNMAPPED, UNMAPPED_AT
    set_task main_tss, 0, main_stack_end
    set_task jumped_tss, jumped_entry, jumped_stack_end
    set_task called_tss, called_entry, called_stack_end
    set_task faulted_tss, faulted_entry, faulted_stack_end
    set_task double_tss, double_entry, double_stack_end
    set_task bad_tss, bad_entry, bad_stack_end
    movl $WRONG, bad_tss + TSS_DS
    movl $0x1111, jumped_tss + TSS_EAX
    set_gate 6, task_unexpected
    set_gate 10, invalid_task
    set_gate 11, absent_task
    set_gate 14, task_page_fault
    set_task_gate 8, DOUBLE
    set_task_gate 13, FAULTED
    set_task_gate INTERRUPT, CALLED
    movl $MAIN, %eax
    ltrw %ax

    movl $0x12345678, %ebp
    ljmp $JUMPED, $0
    cmpl $0x12345678, %ebp
    jne 1f
    expect_task MAIN, 1f
    testb $BUSY, task_gdt + JUMPED + 5
    jnz 1f
    testb $BUSY, task_gdt + MAIN + 5
    jz 1f
    cmpl $1, jumped_count
    jne 1f
    worked 0
1:  lcall $CALLED, $0
    pushfl
    popl %eax
    testl $NT, %eax
    jnz 1f
    testb $BUSY, task_gdt + CALLED + 5
    jnz 1f
    cmpl $1, called_count
    jne 1f
    worked 1
1:  lcall $GATE, $0
    cmpl $2, called_count
    jne 1f
    worked 2
1:  int $INTERRUPT
2:  cmpl $2b, main_tss + TSS_EIP
    jne 1f
    cmpl $3, called_count
    jne 1f
    worked 3
1:  movl $WRONG, %eax
    movl %eax, %fs // #GP
after_fault:
    cmpl $1, faulted_count
    jne 1f
    worked 4
1:  ljmp $BAD, $0
    expect_task MAIN, 1f
    cmpl $1, invalid_count
    jne 1f
    worked 6
1:  ljmp $ABSENT, $0
after_absent:
    cmpl $1, absent_count
    jne 1f
    worked 7
1:  movw $2, sixteen_tss + TSS16_FLAGS
    movw $0x3333, sixteen_tss + TSS16_AX
    movw $DATA, sixteen_tss + TSS16_ES
    movw $BASED, sixteen_tss + TSS16_ES + 2
    movw $DATA, sixteen_tss + TSS16_ES + 4
    movw $DATA, sixteen_tss + TSS16_ES + 6
    ljmp $SIXTEEN, $0
    cmpw $sixteen_end - sixteen_entry, sixteen_tss + TSS16_IP
    jne 1f
    cmpl $1, sixteen_count
    jne 1f
    worked 8
    // PAE paging: the main task's tables lack the last gigabyte
1:  movl $page_directories + 1, %eax
    movl $4, %ecx
    xorl %edi, %edi
2:  movl %eax, pdpt_other(, %edi, 8)
    movl %eax, pdpt_main(, %edi, 8)
    addl $4096, %eax
    incl %edi
    loop 2b
    movl $0, pdpt_main + 24
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $pdpt_main, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movl $paged_entry, jumped_tss + TSS_EIP
    movl $pdpt_other, jumped_tss + TSS_CR3
    ljmp $JUMPED, $0
    movl %cr3, %eax
    cmpl $pdpt_main, %eax
    jne 1f
    cmpl $1, paged_count
    jne 1f
    worked 9
1:  ljmp $UNMAPPED, $0
after_unmapped:
    cmpl $1, page_fault_count
    jne 1f
    worked 10
1:  movl $UNMAPPED_AT + 0x800, %esp
    ud2 // #UD, #PF, #DF
after_double:
    cmpl $1, double_count
    jne 1f
    worked 5
1:  movl %cr0, %eax
    andl $0x7ffffff7, %eax // no paging, and TS as it was
    movl %eax, %cr0
    // and up again
    enter_long_mode task_saved_cr4, task_ascended

jumped_entry:
    cmpl $0x1111, %eax
    jne 1f
    pushfl
    popl %edx
    testl $NT, %edx
    jnz 1f
    movl %cr0, %edx
    testl $TS, %edx
    jz 1f
    expect_task JUMPED, 1f
    testb $BUSY, task_gdt + MAIN + 5
    jnz 1f
    cmpl $0x12345678, main_tss + TSS_EBP
    jne 1f
    incl jumped_count
1:  ljmp $MAIN, $0
paged_entry:
    movl %cr3, %eax
    cmpl $pdpt_other, %eax
    jne 1f
    incl paged_count
1:  ljmp $MAIN, $0

called_entry:
    pushfl
    popl %edx
    testl $NT, %edx
    jz 1f
    cmpw $MAIN, called_tss // the link
    jne 1f
    testb $BUSY, task_gdt + MAIN + 5
    jz 1f
    expect_task CALLED, 1f
    incl called_count
1:  iretl
    jmp called_entry

bad_entry: // never
    ljmp $MAIN, $0

faulted_entry:
    popl %edx
    cmpl $WRONG, %edx
    jne 1f
    incl faulted_count
1:  movl $after_fault, main_tss + TSS_EIP
    iretl

double_entry:
    popl %edx
    testl %edx, %edx
    jnz 1f
    cmpl $UNMAPPED_AT + 0x800, main_tss + TSS_ESP
    jne 1f
    incl double_count
1:  movl $after_double, main_tss + TSS_EIP
    movl $main_stack_end, main_tss + TSS_ESP
    iretl

invalid_task: // #TS, in the task whose DS it is
    movl $DATA, %eax
    movl %eax, %ds
    popl %edx
    cmpl $WRONG, %edx
    jne 1f
    expect_task BAD, 1f
    incl invalid_count
1:  ljmp $MAIN, $0

absent_task: // #NP, in the task that jumped
    popl %edx
    cmpl $ABSENT, %edx
    jne 1f
    expect_task MAIN, 1f
    incl absent_count
1:  movl $after_absent, (%esp)
    iretl

task_page_fault:
    popl %edx
    testl $1, %edx
    jnz 1f
    movl %cr2, %eax
    shrl $12, %eax
    cmpl $(UNMAPPED_AT >> 12), %eax
    jne 1f
    expect_task MAIN, 1f
    incl page_fault_count
1:  movl $after_unmapped, (%esp)
    iretl

task_unexpected:
    hlt
    jmp task_unexpected

sixteen_entry: // at offset 0 of its segment
    cmpw $0x3333, %ax
    jne 1f
    strw %cx
    cmpw $SIXTEEN, %cx
    jne 1f
    incl sixteen_count
1:  ljmp $MAIN, $0
sixteen_end:

.code64
task_ascended:
    load_long_mode_segments
    movq task_saved_stack(%rip), %rsp
    lidt task_saved_idt(%rip)
    andb $~BUSY, gdt + 0x45
    movl $0x40, %eax
    ltrw %ax
    movl task_result, %eax
    pop_kept_registers_and_return

.section .data
.balign 8
task_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff // CODE
    .quad 0x00cf93000000ffff // DATA
    .quad 0x00409b000000ffff // BASED
    .quad 0x0000890000000067 // MAIN, and all the other 32-bit TSS
    .quad 0x0000890000000067
    .quad 0x0000890000000067
    .quad 0x0000890000000067
    .quad 0x0000890000000067
    .quad 0x0000890000000067
    .quad 0x0000090000000067 // ABSENT
    .quad 0x000081000000002b // SIXTEEN
    .quad 0x0000890000000067 // UNMAPPED
    .quad 0x0000850000300000 // GATE
task_gdt_end:
task_gdt_pointer:
    .word task_gdt_end - task_gdt - 1
    .long task_gdt
task_idt_pointer:
    .word 8 * (INTERRUPT + 1) - 1
    .long task_idt

.section .bss
.balign 32
pdpt_main: .skip 32
pdpt_other: .skip 32
task_idt: .skip 8 * (INTERRUPT + 1)
main_tss: .skip 0x68
jumped_tss: .skip 0x68
called_tss: .skip 0x68
faulted_tss: .skip 0x68
double_tss: .skip 0x68
bad_tss: .skip 0x68
sixteen_tss: .skip 0x2c
.balign 16
.skip 256
main_stack_end: .skip 256
jumped_stack_end: .skip 256
called_stack_end: .skip 256
faulted_stack_end: .skip 256
double_stack_end: .skip 256
bad_stack_end:
task_saved_stack: .quad 0
task_saved_cr4: .quad 0
task_saved_idt: .skip 16
task_result: .long 0
jumped_count: .long 0
paged_count: .long 0
called_count: .long 0
faulted_count: .long 0
double_count: .long 0
invalid_count: .long 0
absent_count: .long 0
page_fault_count: .long 0
sixteen_count: .long 0

.section .note.GNU-stack, "", @progbits
