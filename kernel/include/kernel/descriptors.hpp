// SPDX-License-Identifier: MIT
#pragma once
// GDT, TSS and IDT of one CPU. [intel/vol3] 3.4.5, 6.11, 8.7
#include <array>
#include <lib/types.hpp>

namespace kernel {

struct [[gnu::packed]] TaskState {
    lib::u32 reserved0;
    lib::u64 rsp[3];
    lib::u64 reserved1;
    lib::u64 ist[7];
    lib::u64 reserved2;
    lib::u16 reserved3;
    lib::u16 io_map_base;
};
static_assert(sizeof(TaskState) == 104);

struct IdtGate {
    lib::u64 low;
    lib::u64 high;
};
static_assert(sizeof(IdtGate) == 16);

inline constexpr lib::u16 code_selector = 0x08;
inline constexpr lib::u16 data_selector = 0x10;
inline constexpr lib::u16 task_selector = 0x18;
inline constexpr lib::u16 user_data_selector = 0x28 | 3;
inline constexpr lib::u16 user_code_selector = 0x30 | 3;

// Stacks of their own for what may strike anywhere. Numbers are IST indices.
enum class InterruptStack : lib::u8 { None = 0, Nmi = 1, DoubleFault = 2, MachineCheck = 3 };

struct alignas(64) DescriptorTables {
    std::array<lib::u64, 7> gdt{};
    TaskState tss{};
    // Loads GDT, TSS and the shared IDT. `stacks[i]` is the top of IST i + 1.
    void load(std::array<lib::u64, 3> const& stacks);
    // Sets the limit again: a VM exit of VT-x makes it 64 KiB, and ring 3 must not take for descriptors what lies
    // behind the table. [intel/vol3] 28.5.2
    void load_gdt() const;
};

// The IDT is the same on every CPU; built once.
void build_idt();

} // namespace kernel
