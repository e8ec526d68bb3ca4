// SPDX-License-Identifier: MIT
// The local APIC's own order of things, in xAPIC mode and then, where there is one, in x2APIC mode.
#include "behave/behave.hpp"

namespace behave {
namespace {

// Long enough for the machine's own interrupts, where this vCPU shares its CPU with another.
u64 some_slices;
void spin_for_some_slices() {
    u64 const end = x86::rdtsc() + some_slices;
    while (x86::rdtsc() < end) {
    }
}

unsigned nested_in_handler;
bool on_slow(Frame&) {
    record_start();
    // The EOI, without an exit to ask for the mode: Bochs 2.7 holds the machine's interrupts back after an entry with
    // IF clear.
    *reinterpret_cast<u32 volatile*>(apic_page + 16 * apic::Eoi) = 0;
    // From here on only IF holds the low one back.
    spin_for_some_slices();
    nested_in_handler = recorded();
    return true;
}

bool nmi_seen;
bool on_nmi(Frame&) {
    nmi_seen = true;
    return true;
}

void priorities() {
    for (u8 const v : {vector_low, vector_middle, vector_high})
        record_vector(v);
    record_start();
    for (u8 const v : {vector_low, vector_high, vector_middle})
        apic::self_ipi(v);
    expect_true("IRR holds a self IPI", apic::bit(apic::Irr, vector_low));
    expect("nothing delivered with IF clear", 0, recorded());
    interrupt_window();
    drain();
    expect("three self IPIs delivered", 3, recorded());
    expect("highest vector first", vector_high, record(0));
    expect("middle vector second", vector_middle, record(1));
    expect("lowest vector last", vector_low, record(2));
    expect_true("IRR empty afterwards", !apic::bit(apic::Irr, vector_low));
}

void task_priority() {
    record_start();
    apic::write(apic::Tpr, 0x50);
    expect("PPR follows TPR", 0x50, apic::read(apic::Ppr));
    u64 cr8 = 0;
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    expect("CR8 is TPR[7:4]", 5, cr8);
    apic::self_ipi(vector_low);
    apic::self_ipi(vector_middle); // same class as TPR: held
    apic::self_ipi(vector_high);
    interrupt_window();
    expect("TPR lets only the higher class in", 1, recorded());
    expect("and it is the high one", vector_high, record(0));
    asm volatile("mov %0, %%cr8" : : "r"(4ULL) : "memory");
    expect("TPR is CR8 << 4", 0x40, apic::read(apic::Tpr));
    interrupt_window();
    expect("CR8 lowered by one class lets the next in", 2, recorded());
    asm volatile("mov %0, %%cr8" : : "r"(0ULL) : "memory");
    interrupt_window();
    expect("CR8 0 lets the last in", 3, recorded());
}

unsigned nested_step;
bool on_outer(Frame&) { // runs at vector_middle
    expect_true("ISR bit of the running interrupt", apic::bit(apic::Isr, vector_middle));
    expect("PPR is the class in service", vector_middle & 0xf0, apic::read(apic::Ppr) & 0xf0);
    record_start();
    apic::self_ipi(vector_low);
    apic::self_ipi(vector_high);
    interrupt_window();
    expect("only the higher vector nests", 1, recorded());
    expect("the nested vector", vector_high, record(0));
    nested_step++;
    apic::eoi();
    return true;
}

void nesting() {
    nested_step = 0;
    set_handler(vector_middle, on_outer);
    apic::self_ipi(vector_middle);
    interrupt_window();
    interrupt_window();
    expect("outer handler ran once", 1, nested_step);
    expect("the lower vector follows the EOI", 2, recorded());
    expect("it is the low one", vector_low, record(1));
    record_vector(vector_middle);
}

void nmi() {
    nmi_seen = false;
    set_handler(NMI, on_nmi);
    if (apic::is_x2apic()) {
        x86::wrmsr(0x830, u64{apic::read(apic::Id)} << 32 | 0x400);
    } else {
        apic::write(apic::IcrHigh, apic::read(apic::Id));
        apic::write(apic::Icr, 0x400); // delivery mode NMI to our own ID: the self shorthand allows only fixed
    }
    for (u32 i = 0; i < 1000 && !nmi_seen; i++)
        x86::cpuid(0);
    expect_true("NMI to oneself arrives with IF clear", nmi_seen);
    set_handler(NMI, nullptr);
}

void one_mode() {
    priorities();
    task_priority();
    nesting();
    nmi();
}

} // namespace

void local_apic() {
    // Virtual-wire mode, as firmware leaves it.
    expect("LINT0 is handed over as ExtINT", apic::lvt_extint, apic::lint0_at_start);
    expect("LINT1 is handed over as NMI", 0x400, apic::read(apic::LvtLint1));
    one_mode();
    u32 const id = apic::read(apic::Id) >> 24;
    expect("APIC ID in CPUID.1:EBX", x86::cpuid(1).ebx >> 24, id);
    if (!apic::has_x2apic()) {
        expect_true(
            "EXTD refused without x2APIC",
            try_execute([] { x86::wrmsr(IA32_APIC_BASE, x86::rdmsr(IA32_APIC_BASE) | apic_base_x2apic); }).is(GP));
        return;
    }
    expect_true("x2APIC MSR in xAPIC mode raises #GP", try_execute([] { x86::rdmsr(0x802); }).is(GP));
    apic::enter_x2apic();
    expect("x2APIC ID", id, apic::read(apic::Id));
    expect("logical ID derived from it", (id >> 4) << 16 | 1U << (id & 15),
           apic::read(apic::Ldr)); // [intel/vol3] 12.12.10.2
    one_mode();
    expect_true("EOI of non-zero raises #GP", try_execute([] { x86::wrmsr(0x80b, 1); }).is(GP));
    expect_true("write to the ID raises #GP", try_execute([] { x86::wrmsr(0x802, 0); }).is(GP));
    expect_true("no DFR in x2APIC mode", try_execute([] { x86::rdmsr(0x80e); }).is(GP));
    expect_true("x2APIC to xAPIC raises #GP",
                try_execute([] { x86::wrmsr(IA32_APIC_BASE, x86::rdmsr(IA32_APIC_BASE) & ~apic_base_x2apic); }).is(GP));
    apic::leave_x2apic();
    expect_true("back in xAPIC mode", !apic::is_x2apic());
}

void shadows() {
    record_vector(vector_low);
    record_start();
    apic::self_ipi(vector_low);
    asm volatile("sti; cli" : : : "memory");
    expect("STI; CLI lets nothing in", 0, recorded());
    asm volatile("sti; nop; cli" : : : "memory");
    expect("STI; NOP; CLI lets one in", 1, recorded());
    record_start();
    apic::self_ipi(vector_low);
    // The shadow holds over the instruction behind STI even when that one is emulated.
    u32 eax = 0;
    asm volatile("sti; cpuid; cli" : "+a"(eax) : : "rbx", "rcx", "rdx", "memory");
    u64 const after_cpuid = recorded();
    interrupt_window();
    expect("interrupt behind STI; CPUID comes exactly once", 1, recorded());
    expect("and comes before CLI ends the window", 1, after_cpuid);
    record_start();
    apic::self_ipi(vector_low);
    asm volatile("mov %%ss, %%eax; sti; nop; mov %%eax, %%ss; cli" : : : "rax", "memory");
    expect("delivered in front of MOV SS", 1, recorded());
    record_start();
    apic::self_ipi(vector_low);
    x86::sti_hlt();
    x86::cli();
    expect("STI; HLT wakes with what was pending", 1, recorded());
    // Fault and pending interrupt: the interrupt waits for IF, the fault does not.
    record_start();
    apic::self_ipi(vector_low);
    expect_true("exception with an interrupt pending", try_execute([] { asm volatile("ud2"); }).is(UD));
    expect("which stays pending", 0, recorded());
    interrupt_window();
    expect("and arrives afterwards", 1, recorded());
    drain();
}

void interrupt_flag() {
    some_slices = clock::tsc_hz() / 20; // no exits while it spins
    record_vector(vector_low);
    record_vector(vector_high);
    record_start();
    apic::self_ipi(vector_low);
    apic::self_ipi(vector_high);
    spin_for_some_slices();
    expect("nothing comes while IF is clear", 0, recorded());
    interrupt_window();
    drain();
    expect("both come afterwards", 2, recorded());
    set_handler(vector_middle, on_slow);
    apic::self_ipi(vector_low);
    apic::self_ipi(vector_middle);
    interrupt_window();
    drain();
    expect("nothing comes into a handler that keeps IF clear", 0, nested_in_handler);
    expect("what waited comes behind it", 1, recorded());
    record_vector(vector_middle);
}

} // namespace behave
