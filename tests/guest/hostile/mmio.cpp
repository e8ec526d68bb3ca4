// SPDX-License-Identifier: MIT
// All kinds of instructions on physical addresses that are devices, ROM or nothing.
#include "hostile/hostile.hpp"

#include <array>

extern "C" {
extern hostile::Snippet const mmio_forms[], mmio_forms_end[];
}

namespace hostile {
namespace {

struct Target {
    std::string_view name;
    u64 address;
    bool reads_only; // writes of arbitrary width there may disturb what the test stands on
};
constexpr std::array<Target, 14> targets = {{{"unbacked", 0xf0000000, false},
                                             {"unbacked_odd", 0xf0000003, false},
                                             {"unbacked_page_end", 0xf0000ffe, false},
                                             {"unbacked_quad_straddle", 0xf0000ff9, false},
                                             {"hole_above_lapic", 0xfef01000, false},
                                             {"ioapic_index", ioapic_page, false},
                                             {"ioapic_data", ioapic_page + 0x10, false},
                                             {"ioapic_odd", ioapic_page + 0x13, false},
                                             {"ioapic_page_end", ioapic_page + 0xffd, false},
                                             {"lapic_version", apic_page + 0x30, false},
                                             {"lapic_reserved", apic_page + 0x3f4, false},
                                             {"lapic_page_end", apic_page + 0xffc, false},
                                             {"rom", 0xf0000, false},
                                             {"rom_top", 0xfffffff0, true}}};

Fault run(Snippet const& s, u64 address) {
    Code code{{s.code, s.size}, {}, false};
    auto& r = code.registers;
    r.rax = s.rax;
    r.rcx = s.rcx;
    r.rdx = s.rdx;
    r.rsi = user_data;
    r.rdi = address;
    r.rflags = 2;
    return run_code(code);
}

} // namespace

void mmio() {
    u64 ran = 0, faulted = 0;
    bool const quiet = option("verbose").empty();
    // In xAPIC mode the long string forms would write the ICR: they run on the other pages only.
    for (auto const& target : targets)
        for (auto const* s = mmio_forms; s != mmio_forms_end; s++) {
            bool const is_long = s->rcx > 100;
            if (is_long &&
                (target.name.starts_with("lapic") || target.name.starts_with("hole") || target.name == "rom_top"))
                continue;
            if (target.reads_only && s->name[0] != 'm') continue;
            std::string_view const form = s->name;
            if (form == "execute" && !target.name.starts_with("unbacked") && !target.name.starts_with("hole")) continue;
            if (!quiet) print("guest: mmio {} {}", target.name, form);
            auto const fault = run(*s, target.address);
            (fault.happened ? faulted : ran)++;
            if (!quiet && fault.happened) print(" #{}({:x})", fault.vector, fault.error);
            if (!quiet) print("\n");
            repair_state();
            apic::enable();
        }
    for (u8 pin = 0; pin < 24; pin++)
        ioapic::redirect(pin, ioapic::masked);
    print("guest: ok mmio {} ran {} faulted\n", ran, faulted);
}

} // namespace hostile
