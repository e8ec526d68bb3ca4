// SPDX-License-Identifier: MIT
#include "behave/behave.hpp"

#include <array>

extern "C" lib::u32 behave_descend();

namespace behave {

namespace {

// The vectors from which the two 8259s count on. [intel/8259a] ICW1 to ICW4; all is masked but IRQ 0 on demand
void set_pic(u8 first, u8 second, u8 mask) {
    for (u16 const chip : {u16{0x20}, u16{0xa0}}) {
        x86::out8(chip, 0x11);
        x86::out8(chip + 1, chip == 0x20 ? first : second);
        x86::out8(chip + 1, chip == 0x20 ? 4 : 2);
        x86::out8(chip + 1, 1);
        x86::out8(chip + 1, chip == 0x20 ? mask : u8{0xff});
    }
}

} // namespace

// The stages of real_mode.S, a bit each.
void real_mode() {
    constexpr std::array<std::string_view, 12> stages = {"compatibility mode",
                                                         "LMA clears with CR0.PG",
                                                         "real mode",
                                                         "INT in real mode",
                                                         "real-mode segments",
                                                         "unreal mode",
                                                         "protected, no paging",
                                                         "PAE paging",
                                                         "PG toggles",
                                                         "32-bit paging",
                                                         "BIOS services",
                                                         "timer ticks"};
    // As the BIOS has it: IRQ 0 by ExtINT to interrupt 8.
    set_pic(0x08, 0x70, 0xfe);
    apic::write(apic::LvtLint0, apic::lvt_extint);
    clock::pit_start(2, 11932); // 100 Hz
    u32 const worked = behave_descend();
    clock::pit_start(0, 1);
    apic::write(apic::LvtLint0, apic::lvt_masked);
    set_pic(0x20, 0x28, 0xff);
    for (unsigned i = 0; i < stages.size(); i++)
        expect_true(stages[i], (worked >> i & 1) != 0);
}

} // namespace behave
