// SPDX-License-Identifier: MIT
#include "hostile/hostile.hpp"

#include <array>

namespace hostile {
namespace {

u64 cr0, cr3, cr4, efer, xcr0;
constexpr u32 IA32_EFER = 0xc0000080;
constexpr std::array<Test, 11> tests = {{{"msrs", msrs},
                                         {"ports", ports},
                                         {"privileged", privileged},
                                         {"mmio", mmio},
                                         {"storm", storm},
                                         {"random", random},
                                         {"stuck", stuck},
                                         {"triple", triple},
                                         {"elsewhere", triple_elsewhere},
                                         {"badcr3", bad_page_table},
                                         {"reset", reset}}};

} // namespace

void remember_state() {
    x86::write_cr4(x86::read_cr4() | 0x600); // OSFXSR, OSXMMEXCPT: foreign code may use SSE
    if (cpuid_bit(1, 0, 'c', 26)) {
        x86::write_cr4(x86::read_cr4() | 0x40000);
        xcr0 = x86::xgetbv(0);
    }
    cr0 = x86::read_cr0();
    cr3 = x86::read_cr3();
    cr4 = x86::read_cr4();
    efer = x86::rdmsr(IA32_EFER);
}

void repair_state() {
    x86::cli();
    for (int i = 0; i < 2; i++) // DR7.GD makes the first attempt fault
        try_execute([] {
            x86::write_dr(7, 0x400);
            x86::write_dr(6, 0);
        });
    x86::write_cr0(cr0);
    x86::write_cr4(cr4);
    x86::write_cr3(cr3);
    x86::wrmsr(IA32_EFER, efer);
    if (xcr0 != 0) x86::xsetbv(0, xcr0);
    asm volatile("mov %0, %%cr8" : : "r"(0ULL) : "memory");
    asm volatile("fninit" : : : "memory");
    load_idt();
}

} // namespace hostile

void guest_main() {
    using namespace hostile;
    auto const wanted = option("test");
    for (auto const& test : tests) {
        bool const ends_vm = test.run == triple || test.run == triple_elsewhere || test.run == bad_page_table ||
                             test.run == reset || test.run == stuck;
        if (option_lists("test", test.name) || (!ends_vm && wanted == "all")) {
            remember_state();
            test.run();
            repair_state();
        }
    }
    if (wanted.empty())
        guest::print(
            "guest: hostile needs test=all or some of msrs ports privileged mmio storm random stuck triple elsewhere "
            "badcr3 reset\n");
}
