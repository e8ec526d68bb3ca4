// SPDX-License-Identifier: MIT
#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <platform/i8042.hpp>

namespace {

using platform::I8042;
using platform::u16;
using platform::u8;

struct I8042Test : ::testing::Test {
    fakes::FakeHost host;
    I8042 device{host.plug()};
    u8 read(u16 region) { return static_cast<u8>(device.io({0, 0, region, 1, platform::Op::Read, 0}).data); }
    void write(u16 region, u8 value) { (void)device.io({0, value, region, 1, platform::Op::Write, 0}); }
};

// Set 1 of the scan codes ends at 58h, and a few keys lie up to 5Dh.
TEST_F(I8042Test, TheControlByteAfterResetIsTheCodeOfNoKey) {
    write(I8042::Command, 0x20);
    EXPECT_EQ(read(I8042::Command) & 1, 1) << "it waits in the output buffer";
    u8 const control = read(I8042::Data);
    EXPECT_EQ(control, 0x74) << "self-test passed, keyboard and mouse off, translation on";
    EXPECT_GT(control, 0x5d);
    EXPECT_EQ(read(I8042::Command) & 1, 0);
    write(I8042::Command, 0x60);
    write(I8042::Data, 0x45);
    write(I8042::Command, 0x20);
    EXPECT_EQ(read(I8042::Data), 0x45);
}

TEST_F(I8042Test, ADisabledKeyboardIsSeenInTheControlByte) {
    write(I8042::Command, 0xae);
    write(I8042::Command, 0x20);
    EXPECT_EQ(read(I8042::Data), 0x64);
    write(I8042::Command, 0xad);
    write(I8042::Command, 0x20);
    EXPECT_EQ(read(I8042::Data), 0x74);
}

} // namespace
