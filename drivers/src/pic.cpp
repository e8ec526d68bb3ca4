// SPDX-License-Identifier: MIT
#include <drivers/pic.hpp>

#include <initializer_list>
#include <lib/assert.hpp>
#include <lib/x86/instructions.hpp>

namespace drivers {

using lib::u16;
using lib::u8;

void retire_pics(u8 first_vector) {
    ASSERT(first_vector >= 32 && first_vector % 8 == 0 && first_vector <= 240);
    constexpr u16 master = 0x20;
    constexpr u16 slave = 0xa0;
    constexpr u8 ICW1_edge_cascade_icw4 = 0x11;
    constexpr u8 ICW4_8086 = 0x01;
    struct Chip {
        u16 base;
        u8 vector;
        u8 cascade; // ICW3: a mask of slaves for the master, an identity for the slave
    };
    for (Chip const& chip : {Chip{master, first_vector, 1 << 2}, Chip{slave, static_cast<u8>(first_vector + 8), 2}}) {
        lib::x86::out8(chip.base + 1, 0xff); // no interrupt while it is between states
        lib::x86::out8(chip.base, ICW1_edge_cascade_icw4);
        lib::x86::out8(chip.base + 1, chip.vector);
        lib::x86::out8(chip.base + 1, chip.cascade);
        lib::x86::out8(chip.base + 1, ICW4_8086);
        lib::x86::out8(chip.base + 1, 0xff); // initialisation cleared the mask
    }
}

} // namespace drivers
