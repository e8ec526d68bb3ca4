// SPDX-License-Identifier: MIT
#pragma once
// Exit codes by number and name. [amd/vol2] appendix C. From INTR on, an intercept's bit in the VMCB is its exit code
// less INTR.
#include <array>
#include <lib/types.hpp>
#include <string_view>

namespace svm::exit_code {

using lib::u32;

inline constexpr u32 READ_CR0 = 0x00, READ_CR4 = 0x04, WRITE_CR0 = 0x10, WRITE_CR4 = 0x14, WRITE_CR8 = 0x18,
                     READ_DR0 = 0x20, WRITE_DR7 = 0x3f, EXCEPTION_DE = 0x40, EXCEPTION_DB = 0x41, EXCEPTION_BP = 0x43,
                     EXCEPTION_OF = 0x44, EXCEPTION_AC = 0x51, EXCEPTION_MC = 0x52, EXCEPTION_LAST = 0x5f, INTR = 0x60,
                     NMI = 0x61, SMI = 0x62, INIT = 0x63, VINTR = 0x64, CR0_SEL_WRITE = 0x65, RDPMC = 0x6f,
                     PUSHF = 0x70, POPF = 0x71, CPUID = 0x72, RSM = 0x73, IRET = 0x74, INTN = 0x75, INVD = 0x76,
                     PAUSE = 0x77, HLT = 0x78, INVLPGA = 0x7a, IOIO = 0x7b, MSR = 0x7c, TASK_SWITCH = 0x7d,
                     SHUTDOWN = 0x7f, VMRUN = 0x80, VMMCALL = 0x81, VMLOAD = 0x82, VMSAVE = 0x83, STGI = 0x84,
                     CLGI = 0x85, SKINIT = 0x86, ICEBP = 0x88, WBINVD = 0x89, MONITOR = 0x8a, MWAIT = 0x8b,
                     MWAIT_ARMED = 0x8c, XSETBV = 0x8d, RDPRU = 0x8e, INVLPGB = 0xa0, INVLPGB_ILLEGAL = 0xa1,
                     MCOMMIT = 0xa3, TLBSYNC = 0xa4, NPF = 0x400, AVIC_INCOMPLETE_IPI = 0x401, AVIC_NOACCEL = 0x402,
                     INVALID = 0xffff'ffff;

constexpr std::string_view name(u32 code) {
    constexpr std::array<std::string_view, 0x45> from_intr{"INTR",
                                                           "NMI",
                                                           "SMI",
                                                           "INIT",
                                                           "VINTR",
                                                           "CR0 write",
                                                           "SIDT",
                                                           "SGDT",
                                                           "SLDT",
                                                           "STR",
                                                           "LIDT",
                                                           "LGDT",
                                                           "LLDT",
                                                           "LTR",
                                                           "RDTSC",
                                                           "RDPMC",
                                                           "PUSHF",
                                                           "POPF",
                                                           "CPUID",
                                                           "RSM",
                                                           "IRET",
                                                           "INTn",
                                                           "INVD",
                                                           "PAUSE",
                                                           "HLT",
                                                           "INVLPG",
                                                           "INVLPGA",
                                                           "IOIO",
                                                           "MSR",
                                                           "task switch",
                                                           "FERR freeze",
                                                           "shutdown",
                                                           "VMRUN",
                                                           "VMMCALL",
                                                           "VMLOAD",
                                                           "VMSAVE",
                                                           "STGI",
                                                           "CLGI",
                                                           "SKINIT",
                                                           "RDTSCP",
                                                           "ICEBP",
                                                           "WBINVD",
                                                           "MONITOR",
                                                           "MWAIT",
                                                           "MWAIT armed",
                                                           "XSETBV",
                                                           "RDPRU",
                                                           "EFER write",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "",
                                                           "INVLPGB",
                                                           "illegal INVLPGB",
                                                           "INVPCID",
                                                           "MCOMMIT",
                                                           "TLBSYNC"};
    if (code < WRITE_CR0) return "CR read";
    if (code < READ_DR0) return "CR write";
    if (code <= WRITE_DR7) return "DR access";
    if (code <= EXCEPTION_LAST) return "exception";
    if (code - INTR < from_intr.size()) return from_intr[code - INTR];
    if (code == NPF) return "nested page fault";
    if (code == AVIC_INCOMPLETE_IPI) return "incomplete IPI";
    if (code == AVIC_NOACCEL) return "unaccelerated APIC access";
    return code == INVALID ? "invalid guest state" : "?";
}

} // namespace svm::exit_code
