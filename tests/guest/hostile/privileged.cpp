// SPDX-License-Identifier: MIT
// Every privileged and virtualization instruction in ring 0 and in ring 3. What each does is printed for comparison
// between machines; the assertion is that the guest is still there, with its registers under its control.
#include "hostile/hostile.hpp"

extern "C" {
extern hostile::Snippet const privileged_snippets[], privileged_snippets_end[];
}

namespace hostile {
namespace {

constexpr u64 interrupt_flag = 0x200;

void prepare_memory() {
    for (u64 at = user_data; at < user_stack_end; at += 8)
        x86::store64(at, 0);
    x86::store16(user_data + 64, 0xfff); // operand of LGDT and LIDT: base not canonical
    x86::store64(user_data + 66, 0x8000000000000000);
    x86::store32(user_data + 128, 0);
    x86::store16(user_data + 132, 0x40);
}

// A tick that wakes HLT and MWAIT, and everything else that waits.
void start_tick() {
    apic::enable();
    apic::write(apic::LvtTimer, apic::lvt_periodic | timer_vector);
    apic::write(apic::Tmict, 200'000);
}

Fault run(Snippet const& s, bool user) {
    prepare_memory();
    start_tick();
    Code code{{s.code, s.size}, {}, user};
    code.registers.rax = s.rax;
    code.registers.rcx = s.rcx;
    code.registers.rdx = s.rdx;
    code.registers.rbx = s.rbx;
    code.registers.rsi = code.registers.rdi = user_data;
    code.registers.rbp = 0x1234567890;
    code.registers.rflags = interrupt_flag | 2;
    auto const fault = run_code(code);
    repair_state();
    return fault;
}

struct Outcome {
    char text[24];
};
std::string_view describe(Fault const& fault, Outcome& out) {
    if (!fault.happened) return "ok";
    return lib::format_to(out.text, "#{}({:x})", fault.vector, fault.error);
}

bool is_wanted(std::string_view name) {
    return option("only").empty() ? !option_lists("skip", name) : option_lists("only", name);
}

} // namespace

// only=NAME,NAME and skip=NAME,NAME choose among the instructions: an emulator that carries out, without leaving the
// guest, what a CPU refuses takes the guest's own handlers away.
void privileged() {
    // native=1: TCG obeys such control values where a CPU raises #GP, and is gone.
    bool const spare_emulator = option("only").empty() && option_number("native", 0) == 1;
    u64 ok[2] = {}, faulted[2] = {};
    bool const quiet = option("verbose").empty();
    u64 const base = x86::rdmsr(IA32_APIC_BASE);
    for (auto const* s = privileged_snippets; s != privileged_snippets_end; s++) {
        std::string_view const name = s->name;
        if (spare_emulator &&
            (name.starts_with("cr0_") || name.starts_with("cr3_") || name.starts_with("cr4_") ||
             name.starts_with("efer_") || name.starts_with("lgdt") || name.starts_with("lidt") || name == "ltr_null"))
            continue;
        if (!is_wanted(name)) continue;
        if (!quiet) print("guest: privileged {}", name);
        for (unsigned ring = 0; ring < 2; ring++) {
            auto const fault = run(*s, ring != 0);
            (fault.happened ? faulted : ok)[ring]++;
            Outcome outcome;
            if (!quiet) print(" ring{} {}", ring * 3, describe(fault, outcome));
        }
        if (!quiet) print("\n");
        if (x86::rdmsr(IA32_APIC_BASE) != base) x86::wrmsr(IA32_APIC_BASE, base);
    }
    apic::enable();
    print("guest: ok privileged ring 0: {} ran {} faulted; ring 3: {} ran {} faulted; ticks {}\n", ok[0], faulted[0],
          ok[1], faulted[1], interrupt_count(timer_vector));
}

} // namespace hostile
