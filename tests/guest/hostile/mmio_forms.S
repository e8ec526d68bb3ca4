// SPDX-License-Identifier: MIT
// Instruction forms with a memory operand at (%rdi), the address under test. RSI = ordinary memory, RCX = 3 for the
// repeated forms, RAX, RDX, RBX = patterns.
#include "hostile/snippets.inc"

.set A, 0x1122334455667788

TABLE mmio_forms
SNIP "mov_r8", A, 3, 0, 0, movb (%rdi), %al
SNIP "mov_r16", A, 3, 0, 0, movw (%rdi), %ax
SNIP "mov_r32", A, 3, 0, 0, movl (%rdi), %eax
SNIP "mov_r64", A, 3, 0, 0, movq (%rdi), %rax
SNIP "mov_m8", A, 3, 0, 0, movb %al, (%rdi)
SNIP "mov_m16", A, 3, 0, 0, movw %ax, (%rdi)
SNIP "mov_m32", A, 3, 0, 0, movl %eax, (%rdi)
SNIP "mov_m64", A, 3, 0, 0, movq %rax, (%rdi)
SNIP "mov_m8_imm", A, 3, 0, 0, movb $0x5a, (%rdi)
SNIP "mov_m32_imm", A, 3, 0, 0, movl $0x5a5a5a5a, (%rdi)
SNIP "mov_m64_imm", A, 3, 0, 0, movq $-1, (%rdi)
SNIP "mov_high_byte", A, 3, 0, 0, movb %ah, (%rdi)
SNIP "mov_moffs", A, 3, 0, 0, movabsl 0xf0000010, %eax
SNIP "movzx_8_64", A, 3, 0, 0, movzbq (%rdi), %rax
SNIP "movzx_16_32", A, 3, 0, 0, movzwl (%rdi), %eax
SNIP "movsx_8_32", A, 3, 0, 0, movsbl (%rdi), %eax
SNIP "movsxd", A, 3, 0, 0, movslq (%rdi), %rax
SNIP "and_m", A, 3, 0, 0, andl %eax, (%rdi)
SNIP "or_m_imm", A, 3, 0, 0, orb $1, (%rdi)
SNIP "xor_r", A, 3, 0, 0, xorq (%rdi), %rax
SNIP "add_m", A, 3, 0, 0, addw %ax, (%rdi)
SNIP "adc_m", A, 3, 0, 0, adcl %eax, (%rdi)
SNIP "sub_r", A, 3, 0, 0, subl (%rdi), %eax
SNIP "cmp_m", A, 3, 0, 0, cmpl $7, (%rdi)
SNIP "test_m", A, 3, 0, 0, testb $7, (%rdi)
SNIP "inc_m", A, 3, 0, 0, incl (%rdi)
SNIP "neg_m", A, 3, 0, 0, negq (%rdi)
SNIP "not_m", A, 3, 0, 0, notb (%rdi)
SNIP "lock_or", A, 3, 0, 0, lock orl %eax, (%rdi)
SNIP "xchg", A, 3, 0, 0, xchgl %eax, (%rdi)
SNIP "cmpxchg", A, 3, 0, 0, lock cmpxchgl %edx, (%rdi)
SNIP "cmpxchg8b", A, 3, 0, 0, lock cmpxchg8b (%rdi)
SNIP "cmpxchg16b", A, 3, 0, 0, lock cmpxchg16b (%rdi)
SNIP "xadd", A, 3, 0, 0, lock xaddl %eax, (%rdi)
SNIP "bts_m_imm", A, 3, 0, 0, btsl $3, (%rdi)
SNIP "bt_m_reg", 100, 3, 0, 0, btl %eax, (%rdi)
SNIP "shl_m", A, 3, 0, 0, shll $1, (%rdi)
SNIP "shld_m", A, 3, 0, 0, shldl $4, %eax, (%rdi)
SNIP "imul_m", A, 3, 0, 0, imull (%rdi), %eax
SNIP "div_m", A, 3, 0, 0, divl (%rdi)
SNIP "cmov_m", A, 3, 0, 0, cmovel (%rdi), %eax
SNIP "setcc_m", A, 3, 0, 0, sete (%rdi)
SNIP "bswap_movbe", A, 3, 0, 0, movbel (%rdi), %eax
SNIP "push_m", A, 3, 0, 0, pushq (%rdi)
SNIP "pop_m", A, 3, 0, 0, popq (%rdi)
SNIP "call_m", A, 3, 0, 0, callq *(%rdi)
SNIP "jmp_m", A, 3, 0, 0, jmpq *(%rdi)
SNIP "execute", A, 3, 0, 0, jmpq *%rdi
SNIP "movs_to", A, 3, 0, 0, rep movsl
SNIPS "movs_from", A, 3, 0, 0, "xchgq %rsi, %rdi", "rep movsb"
SNIPS "movs_both", A, 3, 0, 0, "movq %rdi, %rsi", "rep movsl"
SNIP "stos", A, 3, 0, 0, rep stosl
SNIP "stos_long", A, 3000, 0, 0, rep stosb
SNIPS "stos_down", A, 600, 0, 0, "std", "rep stosq", "cld"
SNIPS "lods", A, 3, 0, 0, "movq %rdi, %rsi", "rep lodsq"
SNIP "scas", A, 3, 0, 0, repne scasb
SNIP "cmps", A, 3, 0, 0, repe cmpsl
SNIP "ins", A, 3, 0x80, 0, rep insb
SNIP "movnti", A, 3, 0, 0, movntil %eax, (%rdi)
SNIP "movd_load", A, 3, 0, 0, movd (%rdi), %xmm0
SNIP "movdqu_load", A, 3, 0, 0, movdqu (%rdi), %xmm0
SNIP "movdqu_store", A, 3, 0, 0, movdqu %xmm0, (%rdi)
SNIP "movaps_store", A, 3, 0, 0, movaps %xmm0, (%rdi)
SNIP "addps", A, 3, 0, 0, addps (%rdi), %xmm0
SNIP "fld", A, 3, 0, 0, fldl (%rdi)
SNIP "fstp80", A, 3, 0, 0, fstpt (%rdi)
SNIP "fxsave", A, 3, 0, 0, fxsave64 (%rdi)
SNIP "ldmxcsr", A, 3, 0, 0, ldmxcsr (%rdi)
SNIP "prefetch", A, 3, 0, 0, prefetcht0 (%rdi)
SNIP "clflush", A, 3, 0, 0, clflush (%rdi)
SNIP "invlpg", A, 3, 0, 0, invlpg (%rdi)
SNIP "sgdt", A, 3, 0, 0, sgdt (%rdi)
SNIP "verr", A, 3, 0, 0, verr (%rdi)
SNIP "mov_seg_store", A, 3, 0, 0, movw %ds, (%rdi)
SNIP "gs_override", A, 3, 0, 0, movl %gs:(%rdi), %eax
SNIP "addr32", A, 3, 0, 0, movl (%edi), %eax
SNIP "sib", A, 0, 0, 0, movl (%rdi,%rcx,4), %eax
TABLE_END mmio_forms

.section .note.GNU-stack, "", @progbits
