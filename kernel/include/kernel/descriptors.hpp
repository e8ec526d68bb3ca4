// SPDX-License-Identifier: MIT
#pragma once
// GDT, TSS and IDT of one CPU. [intel/vol3] 3.4.5, 6.11, 8.7
#include <array>
#include <lib/types.hpp>
#include <span>

namespace kernel {

struct Cpu;

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

// What the CPU pushes when it goes to an InterruptStack comes here, below `cpu`: five words, and an error code or none.
// This memory may be mapped while ring 3 runs, and what is struck may be Mullion with a guest's registers, so the rest
// is saved on `stack`, which never is (kernel/src/trap_entry.S).
struct alignas(16) EntryStack {
    std::array<lib::u64, 12> room{};
    Cpu* cpu = nullptr;
    lib::u64 root = 0;  // of Mullion's page table, for CR3
    lib::u64 stack = 0; // its top
    lib::u64 unused = 0;
};

// Has pages of its own: they are mapped while ring 3 runs.
struct alignas(lib::page_size) DescriptorTables {
    std::array<lib::u64, 7> gdt{};
    TaskState tss{};
    std::array<EntryStack, 3> entry_stacks{};
    // Loads GDT, TSS and the shared IDT. `stacks[i]` is the top of the stack of IST i + 1.
    void load(Cpu& cpu, lib::u64 root, std::array<lib::u64, 3> const& stacks);
    // Sets the limit again: a VM exit of VT-x makes it 64 KiB, and ring 3 must not take for descriptors what lies
    // behind the table. [intel/vol3] 28.5.2
    void load_gdt() const;
};

// The IDT is the same on every CPU; built once. It has a page of its own.
void build_idt();
std::span<IdtGate const> interrupt_table();

} // namespace kernel
