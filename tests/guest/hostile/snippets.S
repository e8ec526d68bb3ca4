// SPDX-License-Identifier: MIT
// Privileged and virtualization instructions, one per entry: SNIP "name", rax, rcx, rdx, rbx, instruction.
// RSI = RDI = user_data (64 KiB of ordinary memory, zeros), RBP = 0x1234567890.
#include "hostile/snippets.inc"

TABLE privileged_snippets
// VT-x
SNIP "vmxon", 0, 0, 0, 0, vmxon (%rsi)
SNIP "vmxoff", 0, 0, 0, 0, vmxoff
SNIP "vmcall_0", 0, 0, 0, 0, vmcall
SNIP "vmcall_garbage", 0xdeadbeefcafe, ~0, ~0, ~0, vmcall
SNIP "vmcall_1", 1, ~0, 0, 0, vmcall
SNIP "vmlaunch", 0, 0, 0, 0, vmlaunch
SNIP "vmresume", 0, 0, 0, 0, vmresume
SNIP "vmread_reg", 0x681e, 0, 0, 0, vmread %rax, %rcx
SNIP "vmread_mem", 0x681e, 0, 0, 0, vmread %rax, (%rsi)
SNIP "vmwrite", 0x681e, 0, 0, 0, vmwrite %rcx, %rax
SNIP "vmclear", 0, 0, 0, 0, vmclear (%rsi)
SNIP "vmptrld", 0, 0, 0, 0, vmptrld (%rsi)
SNIP "vmptrst", 0, 0, 0, 0, vmptrst (%rsi)
SNIP "vmfunc", 0, 0, 0, 0, vmfunc
SNIP "vmfunc_garbage", ~0, ~0, 0, 0, vmfunc
SNIP "invept", 1, 0, 0, 0, invept (%rsi), %rax
SNIP "invept_bad_type", ~0, 0, 0, 0, invept (%rsi), %rax
SNIP "invvpid", 0, 0, 0, 0, invvpid (%rsi), %rax
SNIP "invvpid_bad_type", 77, 0, 0, 0, invvpid (%rsi), %rax
SNIP "getsec", 0, 0, 0, 0, getsec
SNIP "getsec_garbage", 99, 0, 0, 0, getsec
// AMD-V
SNIP "vmrun", 0x800000, 0, 0, 0, vmrun
SNIP "vmload", 0x800000, 0, 0, 0, vmload
SNIP "vmsave", 0x811000, 0, 0, 0, vmsave
SNIP "vmmcall_0", 0, 0, 0, 0, vmmcall
SNIP "vmmcall_garbage", 0xdeadbeefcafe, ~0, ~0, ~0, vmmcall
SNIP "stgi", 0, 0, 0, 0, stgi
SNIP "clgi", 0, 0, 0, 0, clgi
SNIP "skinit", 0x800000, 0, 0, 0, skinit
SNIP "invlpga", 0x800000, ~0, 0, 0, invlpga
SNIP "vmgexit", 0, 0, 0, 0, .byte 0xf3, 0x0f, 0x01, 0xd9
SNIP "rsm", 0, 0, 0, 0, rsm
// idle
SNIP "hlt", 0, 0, 0, 0, hlt
SNIP "monitor", 0x810000, 0, 0, 0, monitor
SNIP "monitor_bad_hint", 0x810000, 1, 0, 0, monitor
SNIP "monitor_unbacked", 0xf0000000, 0, 0, 0, monitor
SNIP "mwait", 0, 0, 0, 0, mwait
SNIP "mwait_bad", ~0, 0xff, 0, 0, mwait
SNIP "monitorx", 0x810000, 0, 0, 0, monitorx
SNIP "mwaitx", 0, 0, 0, 0, mwaitx
SNIP "umonitor", 0x810000, 0, 0, 0, .byte 0xf3, 0x0f, 0xae, 0xf0
SNIP "umwait", 0, 0, 0, 0, .byte 0xf2, 0x0f, 0xae, 0xf1
SNIP "tpause", 0, 0, 0, 0, .byte 0x66, 0x0f, 0xae, 0xf1
SNIP "pause", 0, 0, 0, 0, pause
// XCR0
SNIP "xsetbv_0", 0, 0, 0, 0, xsetbv
SNIP "xsetbv_avx_without_sse", 5, 0, 0, 0, xsetbv
SNIP "xsetbv_all", ~0, 0, ~0, 0, xsetbv
SNIP "xsetbv_mpx_half", 0xf, 0, 0, 0, xsetbv
SNIP "xsetbv_avx512_half", 0x27, 0, 0, 0, xsetbv
SNIP "xsetbv_amx", 0x60007, 0, 0, 0, xsetbv
SNIP "xsetbv_bad_index", 1, 9, 0, 0, xsetbv
SNIP "xsetbv_lock_prefix", 1, 0, 0, 0, .byte 0xf0, 0x0f, 0x01, 0xd1
SNIP "xgetbv_bad_index", 0, 77, 0, 0, xgetbv
SNIP "xsave", ~0, 0, ~0, 0, xsave64 (%rsi)
SNIP "xsaves", ~0, 0, ~0, 0, xsaves64 (%rsi)
SNIP "xrstors_zeros", ~0, 0, ~0, 0, xrstors64 (%rsi)
SNIP "xrstor_unaligned", ~0, 0, ~0, 0, xrstor64 1(%rsi)
// control registers
SNIP "cr0_clear_pe", 0x80000030, 0, 0, 0, mov %rax, %cr0
SNIP "cr0_clear_pg", 0x31, 0, 0, 0, mov %rax, %cr0
SNIP "cr0_high_bits", 0xffffffff80000031, 0, 0, 0, mov %rax, %cr0
SNIP "cr0_nw_without_cd", 0xa0000031, 0, 0, 0, mov %rax, %cr0
SNIP "cr0_cd", 0xc0000031, 0, 0, 0, mov %rax, %cr0
SNIP "cr0_clear_ne", 0x80000011, 0, 0, 0, mov %rax, %cr0
SNIP "cr0_all_low", 0xffffffff, 0, 0, 0, mov %rax, %cr0
SNIP "cr1", 0, 0, 0, 0, .byte 0x0f, 0x22, 0xc8
SNIP "cr3_reserved", 0xfff0000000000000, 0, 0, 0, mov %rax, %cr3
SNIP "cr4_clear_pae", 0x600, 0, 0, 0, mov %rax, %cr4
SNIP "cr4_all", ~0, 0, 0, 0, mov %rax, %cr4
SNIP "cr4_reserved", 0x80000000a0, 0, 0, 0, mov %rax, %cr4
SNIP "cr4_vmxe", 0x20a0, 0, 0, 0, mov %rax, %cr4
SNIP "cr4_smxe", 0x40a0, 0, 0, 0, mov %rax, %cr4
SNIP "cr4_la57", 0x10a0, 0, 0, 0, mov %rax, %cr4
SNIP "cr4_pcide", 0x200a0, 0, 0, 0, mov %rax, %cr4
SNIP "cr4_cet", 0x8000a0, 0, 0, 0, mov %rax, %cr4
SNIP "cr8_16", 16, 0, 0, 0, mov %rax, %cr8
SNIP "cr8_15", 15, 0, 0, 0, mov %rax, %cr8
SNIP "cr8_read", 0, 0, 0, 0, mov %cr8, %rax
SNIP "cr9", 0, 0, 0, 0, .byte 0x44, 0x0f, 0x22, 0xc8
SNIP "lmsw", 0, 0, 0, 0, lmsw %ax
SNIP "lmsw_mem", 0xf, 0, 0, 0, lmsw (%rsi)
SNIP "smsw", 0, 0, 0, 0, smsw %rax
SNIP "clts", 0, 0, 0, 0, clts
// debug registers
SNIP "dr0", 0xffff800000000000, 0, 0, 0, mov %rax, %dr0
SNIP "dr4", 0, 0, 0, 0, .byte 0x0f, 0x23, 0xe0
SNIP "dr6_high", 0xffff00000000, 0, 0, 0, mov %rax, %dr6
SNIP "dr7_high", 0xffff00000000, 0, 0, 0, mov %rax, %dr7
SNIP "dr7_gd", 0x2400, 0, 0, 0, mov %rax, %dr7
SNIP "dr8", 0, 0, 0, 0, .byte 0x44, 0x0f, 0x23, 0xc0
// tables
SNIP "lgdt_noncanonical", 0, 0, 0, 0, lgdt 64(%rsi)
SNIP "lidt_noncanonical", 0, 0, 0, 0, lidt 64(%rsi)
SNIP "sgdt", 0, 0, 0, 0, sgdt (%rsi)
SNIP "sidt", 0, 0, 0, 0, sidt (%rsi)
SNIP "lldt_bad", 0x10, 0, 0, 0, lldt %ax
SNIP "ltr_busy", 0x40, 0, 0, 0, ltr %ax
SNIP "ltr_null", 0, 0, 0, 0, ltr %ax
SNIP "str", 0, 0, 0, 0, str %rax
SNIP "sldt", 0, 0, 0, 0, sldt %rax
SNIP "mov_ss_bad", 0x38, 0, 0, 0, mov %eax, %ss
SNIP "mov_ss_null", 0, 0, 0, 0, mov %eax, %ss
SNIP "far_call_bad", 0, 0, 0, 0, lcall *(%rsi)
SNIP "far_jump_tss", 0, 0, 0, 0, ljmp *128(%rsi)
SNIP "lret_zeros", 0, 0, 0, 0, lretq
SNIP "iret_zeros", 0, 0, 0, 0, iretq
// MSRs
SNIP "rdmsr_unknown", 0, 0x12345678, 0, 0, rdmsr
SNIP "efer_reserved", ~0, 0xc0000080, ~0, 0, wrmsr
SNIP "efer_clear_lme", 0, 0xc0000080, 0, 0, wrmsr
SNIP "efer_svme", 0x1d00, 0xc0000080, 0, 0, wrmsr
SNIP "efer_sce_nxe", 0xd01, 0xc0000080, 0, 0, wrmsr
SNIP "apic_base_reserved", ~0, 0x1b, ~0, 0, wrmsr
SNIP "apic_base_extd_without_en", 0xfee00500, 0x1b, 0, 0, wrmsr
SNIP "pat_bad", 0x02020202, 0x277, 0, 0, wrmsr
SNIP "lstar_noncanonical", 0, 0xc0000082, 0x80000000, 0, wrmsr
SNIP "fsbase_noncanonical", 0, 0xc0000100, 0x80000000, 0, wrmsr
SNIP "kernel_gsbase_noncanonical", 0, 0xc0000102, 0x80000000, 0, wrmsr
SNIP "sysenter_eip_noncanonical", 0, 0x176, 0x80000000, 0, wrmsr
SNIP "feature_control", 5, 0x3a, 0, 0, wrmsr
SNIP "vmx_basic_write", 0, 0x480, 0, 0, wrmsr
SNIP "microcode_update", 0x810000, 0x79, 0, 0, wrmsr
SNIP "amd_patch_loader", 0x810000, 0xc0010020, 0, 0, wrmsr
SNIP "xss_all", ~0, 0xda0, ~0, 0, wrmsr
SNIP "debugctl_all", ~0, 0x1d9, ~0, 0, wrmsr
SNIP "spec_ctrl_all", ~0, 0x48, ~0, 0, wrmsr
SNIP "mtrr_def_bad", 0x8ff, 0x2ff, 0, 0, wrmsr
SNIP "x2apic_id_write", 0, 0x802, 0, 0, wrmsr
SNIP "x2apic_eoi_nonzero", 1, 0x80b, 0, 0, wrmsr
SNIP "x2apic_self_ipi_bad_vector", 3, 0x83f, 0, 0, wrmsr
SNIP "x2apic_icr_bad_mode", 0x40300, 0x830, 0, 0, wrmsr
SNIP "x2apic_reserved_register", 0, 0x80e, 0, 0, rdmsr
SNIP "x2apic_tpr_reserved", 0x100, 0x808, 0, 0, wrmsr
SNIP "svm_vm_hsave", 0x800000, 0xc0010117, 0, 0, wrmsr
SNIP "svm_vm_cr", 0, 0xc0010114, 0, 0, wrmsr
// caches, counters, random
SNIP "wbinvd", 0, 0, 0, 0, wbinvd
SNIP "invd", 0, 0, 0, 0, invd
SNIP "wbnoinvd", 0, 0, 0, 0, .byte 0xf3, 0x0f, 0x09
SNIP "invlpg_noncanonical", 0x8000000000000000, 0, 0, 0, invlpg (%rax)
SNIP "invpcid_bad_type", 99, 0, 0, 0, invpcid (%rsi), %rax
SNIP "invpcid_all", 2, 0, 0, 0, invpcid (%rsi), %rax
SNIP "rdpmc", 0, 0, 0, 0, rdpmc
SNIP "rdpmc_garbage", 0, ~0, 0, 0, rdpmc
SNIP "rdtsc", 0, 0, 0, 0, rdtsc
SNIP "rdtscp", 0, 0, 0, 0, rdtscp
SNIP "rdpid", 0, 0, 0, 0, rdpid %rax
SNIP "rdrand", 0, 0, 0, 0, rdrand %rax
SNIP "rdseed", 0, 0, 0, 0, rdseed %rax
SNIP "cpuid_garbage", ~0, ~0, 0, 0, cpuid
SNIP "cpuid_40000000", 0x40000000, 0, 0, 0, cpuid
SNIP "cpuid_4000ffff", 0x4000ffff, 0, 0, 0, cpuid
SNIP "clzero", 0x810000, 0, 0, 0, clzero
// system calls, rings, segments' bases
SNIP "syscall", 0, 0, 0, 0, syscall
SNIP "sysret", 0, 0x800000, 0, 0, sysretq
SNIP "sysenter", 0, 0, 0, 0, sysenter
SNIP "sysexit", 0, 0, 0x8000000000000000, 0, sysexitq
SNIP "swapgs", 0, 0, 0, 0, swapgs
SNIP "rdfsbase", 0, 0, 0, 0, rdfsbase %rax
SNIP "wrfsbase_noncanonical", 0x8000000000000000, 0, 0, 0, wrfsbase %rax
SNIP "cli", 0, 0, 0, 0, cli
SNIP "sti", 0, 0, 0, 0, sti
SNIP "stac", 0, 0, 0, 0, stac
SNIP "clac", 0, 0, 0, 0, clac
SNIP "in_80", 0, 0, 0x80, 0, inb %dx, %al
SNIP "out_80", 0, 0, 0x80, 0, outb %al, %dx
// enclaves, keys, shadow stacks, and what else hides in opcode maps
SNIP "encls", 0, 0, 0, 0, encls
SNIP "enclu", 2, 0, 0, 0, enclu
SNIP "enclv", 0, 0, 0, 0, enclv
SNIP "pconfig", 0, 0, 0, 0, pconfig
SNIP "rdpkru", 0, 0, 0, 0, rdpkru
SNIP "wrpkru", ~0, 0, 0, 0, wrpkru
SNIP "setssbsy", 0, 0, 0, 0, setssbsy
SNIP "clrssbsy", 0, 0, 0, 0, clrssbsy (%rsi)
SNIP "rstorssp", 0, 0, 0, 0, rstorssp (%rsi)
SNIP "tdcall", 0, 0, 0, 0, .byte 0x66, 0x0f, 0x01, 0xcc
SNIP "seamcall", 0, 0, 0, 0, .byte 0x66, 0x0f, 0x01, 0xcf
SNIP "psmash", 0, 0, 0, 0, .byte 0xf3, 0x0f, 0x01, 0xff
SNIP "pvalidate", 0, 0, 0, 0, .byte 0xf2, 0x0f, 0x01, 0xff
SNIP "hreset", 0, 0, 0, 0, .byte 0xf3, 0x0f, 0x3a, 0xf0, 0xc0, 0x00
SNIP "serialize", 0, 0, 0, 0, .byte 0x0f, 0x01, 0xe8
SNIP "icebp", 0, 0, 0, 0, .byte 0xf1
SNIP "into_invalid", 0, 0, 0, 0, .byte 0xce
SNIP "int_13", 0, 0, 0, 0, .byte 0xcd, 0x0d
SNIP "int_2", 0, 0, 0, 0, .byte 0xcd, 0x02
SNIP "ud0", 0, 0, 0, 0, .byte 0x0f, 0xff, 0xc0
SNIP "ud1", 0, 0, 0, 0, .byte 0x0f, 0xb9, 0xc0
SNIP "too_long", 0, 0, 0, 0, .byte 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f, 0xa2
SNIP "cpuid_14_prefixes", 0, 0, 0, 0, .byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x0f, 0xa2
SNIP "lock_cpuid", 0, 0, 0, 0, .byte 0xf0, 0x0f, 0xa2
TABLE_END privileged_snippets

.section .note.GNU-stack, "", @progbits
