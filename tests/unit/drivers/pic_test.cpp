// SPDX-License-Identifier: MIT
#include <drivers/pic.hpp>

#include <fakes/cpu.hpp>
#include <gtest/gtest.h>

namespace {

TEST(Pic, IsMovedAndMasked) {
    fakes::Cpu cpu;
    cpu.add_plain_ports(0x20, 2);
    cpu.add_plain_ports(0xa0, 2);
    drivers::retire_pics(0xf0);
    std::vector<fakes::PortWrite> const expected = {
        {0x21, 1, 0xff}, {0x20, 1, 0x11}, {0x21, 1, 0xf0}, {0x21, 1, 4}, {0x21, 1, 1}, {0x21, 1, 0xff},
        {0xa1, 1, 0xff}, {0xa0, 1, 0x11}, {0xa1, 1, 0xf8}, {0xa1, 1, 2}, {0xa1, 1, 1}, {0xa1, 1, 0xff},
    };
    EXPECT_EQ(cpu.port_writes, expected);
}

} // namespace
