// SPDX-License-Identifier: MIT
#pragma once
// Basic exit reasons by number and name. [intel/vol3] appendix C
#include <array>
#include <lib/types.hpp>
#include <string_view>

namespace vmx::reason {

using lib::u16;

inline constexpr u16 exception_or_nmi = 0, external_interrupt = 1, triple_fault = 2, init_signal = 3, sipi = 4,
                     interrupt_window = 7, nmi_window = 8, task_switch = 9, cpuid = 10, getsec = 11, hlt = 12,
                     invd = 13, invlpg = 14, rdpmc = 15, rdtsc = 16, rsm = 17, vmcall = 18, vmclear = 19, vmlaunch = 20,
                     vmptrld = 21, vmptrst = 22, vmread = 23, vmresume = 24, vmwrite = 25, vmxoff = 26, vmxon = 27,
                     control_register = 28, mov_dr = 29, io_instruction = 30, rdmsr = 31, wrmsr = 32,
                     invalid_guest_state = 33, msr_loading = 34, mwait = 36, monitor_trap = 37, monitor = 39,
                     pause = 40, machine_check_entry = 41, tpr_below_threshold = 43, apic_access = 44,
                     virtualized_eoi = 45, gdtr_idtr = 46, ldtr_tr = 47, ept_violation = 48, ept_misconfiguration = 49,
                     invept = 50, rdtscp = 51, preemption_timer = 52, invvpid = 53, wbinvd = 54, xsetbv = 55,
                     apic_write = 56, rdrand = 57, invpcid = 58, vmfunc = 59, encls = 60, rdseed = 61,
                     page_modification_log = 62, xsaves = 63, xrstors = 64;

constexpr std::string_view name(u16 number) {
    constexpr std::array<std::string_view, 65> names{"exception or NMI",
                                                     "external interrupt",
                                                     "triple fault",
                                                     "INIT",
                                                     "SIPI",
                                                     "I/O SMI",
                                                     "other SMI",
                                                     "interrupt window",
                                                     "NMI window",
                                                     "task switch",
                                                     "CPUID",
                                                     "GETSEC",
                                                     "HLT",
                                                     "INVD",
                                                     "INVLPG",
                                                     "RDPMC",
                                                     "RDTSC",
                                                     "RSM",
                                                     "VMCALL",
                                                     "VMCLEAR",
                                                     "VMLAUNCH",
                                                     "VMPTRLD",
                                                     "VMPTRST",
                                                     "VMREAD",
                                                     "VMRESUME",
                                                     "VMWRITE",
                                                     "VMXOFF",
                                                     "VMXON",
                                                     "control-register access",
                                                     "MOV DR",
                                                     "I/O instruction",
                                                     "RDMSR",
                                                     "WRMSR",
                                                     "invalid guest state",
                                                     "MSR loading",
                                                     "",
                                                     "MWAIT",
                                                     "monitor trap flag",
                                                     "",
                                                     "MONITOR",
                                                     "PAUSE",
                                                     "machine check at VM entry",
                                                     "",
                                                     "TPR below threshold",
                                                     "APIC access",
                                                     "virtualized EOI",
                                                     "GDTR or IDTR access",
                                                     "LDTR or TR access",
                                                     "EPT violation",
                                                     "EPT misconfiguration",
                                                     "INVEPT",
                                                     "RDTSCP",
                                                     "preemption timer",
                                                     "INVVPID",
                                                     "WBINVD",
                                                     "XSETBV",
                                                     "APIC write",
                                                     "RDRAND",
                                                     "INVPCID",
                                                     "VMFUNC",
                                                     "ENCLS",
                                                     "RDSEED",
                                                     "page-modification log full",
                                                     "XSAVES",
                                                     "XRSTORS"};
    return number < names.size() ? names[number] : std::string_view{"?"};
}

} // namespace vmx::reason
