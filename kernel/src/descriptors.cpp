// SPDX-License-Identifier: MIT
#include <array>
#include <kernel/descriptors.hpp>
#include <lib/service_abi.hpp>
#include <lib/x86/instructions.hpp>

extern "C" char trap_stubs[]; // kernel/src/trap_entry.S: 256 stubs, 16 bytes each

namespace kernel {
namespace {

using lib::u16;
using lib::u64;
using lib::u8;

constexpr unsigned vectors_total = 256;
constexpr unsigned stub_size = 16;
alignas(lib::page_size) constinit std::array<IdtGate, vectors_total> idt{};
static_assert(sizeof(idt) == lib::page_size);

constexpr u8 nmi = 2, double_fault = 8, machine_check = 18;

IdtGate interrupt_gate(u64 handler, InterruptStack stack, u64 privilege = 0) {
    u64 const present_interrupt_gate = 0x8eULL << 40 | privilege << 45; // type 14
    return {(handler & 0xffff) | u64{code_selector} << 16 | static_cast<u64>(stack) << 32 | present_interrupt_gate |
                ((handler >> 16) & 0xffff) << 48,
            handler >> 32};
}

} // namespace

void build_idt() {
    for (unsigned vector = 0; vector < vectors_total; vector++) {
        InterruptStack stack = InterruptStack::None;
        if (vector == nmi)
            stack = InterruptStack::Nmi;
        else if (vector == double_fault)
            stack = InterruptStack::DoubleFault;
        else if (vector == machine_check)
            stack = InterruptStack::MachineCheck;
        // Ring 3 may use INT with one vector only; with any other it is #GP.
        u64 const privilege = vector == lib::service::system_call_vector ? 3 : 0;
        idt[vector] = interrupt_gate(reinterpret_cast<u64>(trap_stubs) + u64{vector} * stub_size, stack, privilege);
    }
}

std::span<IdtGate const> interrupt_table() { return idt; }

void DescriptorTables::load(Cpu& cpu, u64 root, std::array<u64, 3> const& stacks) {
    tss = {};
    for (unsigned i = 0; i < stacks.size(); i++) {
        entry_stacks[i] = {.cpu = &cpu, .root = root, .stack = stacks[i]};
        tss.ist[i] = reinterpret_cast<u64>(&entry_stacks[i].cpu);
    }
    tss.io_map_base = sizeof(TaskState);
    u64 const base = reinterpret_cast<u64>(&tss);
    gdt = {0, 0x00af'9b00'0000'ffff, 0x00cf'9300'0000'ffff, // null, 64-bit code, data
                                                            // 64-bit TSS, available. [intel/vol3] figure 8-4
           (sizeof(TaskState) - 1) | (base & 0xff'ffff) << 16 | 0x89ULL << 40 | ((base >> 24) & 0xff) << 56, base >> 32,
           // Ring 3: data, 64-bit code. There is no 32-bit code segment, so a service has one mode only.
           0x00cf'f300'0000'ffff, 0x00af'fb00'0000'ffff};
    load_gdt();
    lib::x86::lidt({sizeof(idt) - 1, reinterpret_cast<u64>(idt.data())});
    asm volatile("pushq %0\n"
                 "leaq 1f(%%rip), %%rax\n"
                 "pushq %%rax\n"
                 "lretq\n"
                 "1: movl %1, %%ds\n"
                 "movl %1, %%es\n"
                 "movl %1, %%ss\n"
                 :
                 : "i"(code_selector), "r"(static_cast<lib::u32>(data_selector))
                 : "rax", "memory");
    lib::x86::lldt(0); // nothing of a firmware's
    lib::x86::ltr(task_selector);
}

void DescriptorTables::load_gdt() const { lib::x86::lgdt({sizeof(gdt) - 1, reinterpret_cast<u64>(gdt.data())}); }

} // namespace kernel
