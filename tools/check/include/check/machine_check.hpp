// SPDX-License-Identifier: MIT
#pragma once
// Whether the machine that this Linux runs on has what Mullion needs. Facts are gathered in one place and judged in
// another.
#include <array>
#include <lib/format.hpp>
#include <lib/types.hpp>
#include <string_view>

namespace check {

using lib::u32;
using lib::u64;

enum class Answer : lib::u8 { Unknown, No, Yes };

// A model-specific register of one CPU, if this Linux lets it be read (root, module msr, no lockdown).
struct Msr {
    bool is_known = false;
    u64 value = 0;
};

struct MachineFacts {
    std::array<char, 12> vendor{}; // of the CPU, as CPUID spells it
    bool has_long_mode = false;
    bool has_vmx = false;           // CPUID
    bool has_svm = false;           // CPUID
    bool has_nested_paging = false; // CPUID, AMD
    bool is_virtual = false;        // a hypervisor is underneath
    u32 cpus = 0;                   // whose registers were read, or are in use
    u32 cpus_turned_off = 0;        // of them, where the firmware left virtualization off
    u32 cpus_locked_off = 0;        // of these, where only the firmware can turn it on
    bool are_registers_known = false;
    Msr processor_controls;       // IA32_VMX_PROCBASED_CTLS
    Msr secondary_controls;       // IA32_VMX_PROCBASED_CTLS2
    Answer ept = Answer::Unknown; // by Linux' own list, where the registers cannot be read
    Answer unrestricted_guest = Answer::Unknown;
    bool has_acpi_madt = false;
    bool has_com1 = false, has_com2 = false;
    u64 memory = 0; // bytes
    Answer secure_boot = Answer::Unknown;
    bool is_uefi = false;
    Answer grub = Answer::Unknown; // its command multiboot2
};

MachineFacts gather_machine_facts();

// One line for each fact, with what to do; returns how many of them keep Mullion from starting.
u32 judge_machine(MachineFacts const& facts, lib::TextSink& sink);

} // namespace check
