// SPDX-License-Identifier: MIT
#include <platform/serial_port.hpp>

#include <array>
#include <cstring>
#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <string>

namespace {

using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::SerialPort;

enum Register : u32 { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

struct SerialPortTest : testing::Test {
    fakes::FakeHost host;
    SerialPort port{host.plug()};
    SerialPortTest() {
        host.deliver_to([this](platform::Event const& event) { port.on(event); });
    }
    void out(u32 reg, u32 value) { port.io({reg, value, 0, 1, Op::Write, 0}); }
    u8 in(u32 reg) { return static_cast<u8>(port.io({reg, 0, 0, 1, Op::Read, 0}).data); }
    void enable(u8 interrupts) {
        out(FCR, 0xc1); // FIFOs, trigger at 14
        out(MCR, 0x0b);
        out(IER, interrupts);
    }
};

TEST_F(SerialPortTest, LooksLikeA16550A) {
    EXPECT_EQ(in(IIR), 0x01);
    out(FCR, 0x01);
    EXPECT_EQ(in(IIR), 0xc1);
    out(FCR, 0x00);
    EXPECT_EQ(in(IIR), 0x01);
    out(SCR, 0xa5);
    EXPECT_EQ(in(SCR), 0xa5);
    EXPECT_EQ(in(LSR), 0x60);
    EXPECT_EQ(in(MSR), 0xb0);
    out(IER, 0xff);
    EXPECT_EQ(in(IER), 0x0f);
}

TEST_F(SerialPortTest, DivisorLatchHidesDataAndIer) {
    out(LCR, 0x83);
    out(DATA, 0x0c);
    out(IER, 0x01);
    EXPECT_EQ(in(DATA), 0x0c);
    EXPECT_EQ(in(IER), 0x01);
    out(LCR, 0x03);
    EXPECT_EQ(in(IER), 0x00);
    EXPECT_TRUE(host.console.empty());
}

TEST_F(SerialPortTest, EnablingThreInterruptRaisesIt) {
    out(MCR, 0x08);
    out(IER, 0x02);
    EXPECT_TRUE(host.line(4));
    EXPECT_EQ(in(IIR), 0x02);
    EXPECT_FALSE(host.line(4));
    EXPECT_EQ(in(IIR), 0x01);
    out(IER, 0x00);
    out(IER, 0x02);
    EXPECT_TRUE(host.line(4)); // drivers test for this
}

TEST_F(SerialPortTest, EveryByteSentIsANewEdge) {
    out(MCR, 0x08);
    out(IER, 0x02);
    std::size_t const before = host.rises(4);
    out(DATA, 'a');
    out(DATA, 'b');
    EXPECT_EQ(host.rises(4), before + 2);
    EXPECT_EQ(host.console, "ab");
}

TEST_F(SerialPortTest, Out2GatesTheLine) {
    out(IER, 0x02);
    EXPECT_FALSE(host.line(4));
    out(MCR, 0x08);
    EXPECT_TRUE(host.line(4));
    out(MCR, 0x00);
    EXPECT_FALSE(host.line(4));
}

TEST_F(SerialPortTest, BackPressureHoldsTheTransmitterBusy) {
    enable(0x02);
    in(IIR);
    host.console_room = 3;
    for (char const c : std::string("abcdef"))
        out(DATA, static_cast<u8>(c));
    EXPECT_EQ(host.console, "abc");
    EXPECT_EQ(in(LSR), 0x00);
    in(IIR); // what "abc" raised
    EXPECT_EQ(in(IIR) & 0x0f, 0x01);
    host.make_room(2);
    EXPECT_EQ(host.console, "abcde");
    EXPECT_EQ(in(LSR), 0x00);
    EXPECT_FALSE(host.line(4));
    host.make_room(10);
    EXPECT_EQ(host.console, "abcdef");
    EXPECT_EQ(in(LSR), 0x60);
    EXPECT_TRUE(host.line(4));
    EXPECT_EQ(in(IIR) & 0x0f, 0x02);
}

TEST_F(SerialPortTest, TransmitterThatIsNotLookedAtLosesOnlyBeyond64) {
    host.console_room = 0;
    std::string const text(80, 'x');
    for (char const c : text)
        out(DATA, static_cast<u8>(c));
    host.make_room(1000);
    EXPECT_EQ(host.console.size(), 64U);
}

TEST_F(SerialPortTest, ReceivesWithTriggerAndTimeOut) {
    enable(0x01);
    host.type("ab");
    EXPECT_TRUE(host.line(4));
    EXPECT_EQ(in(IIR), 0xcc); // below the trigger level: character time-out
    EXPECT_EQ(in(DATA), 'a');
    EXPECT_TRUE(host.line(4));
    EXPECT_EQ(in(DATA), 'b');
    EXPECT_FALSE(host.line(4));
    EXPECT_EQ(in(IIR), 0xc1);
    host.type("0123456789abcd");
    EXPECT_EQ(in(IIR), 0xc4);
    EXPECT_EQ(in(LSR), 0x61);
}

TEST_F(SerialPortTest, LeavesWithTheHostWhatHasNoRoom) {
    enable(0x01);
    host.type("0123456789abcdefghij");
    EXPECT_EQ(host.input.size(), 4U);
    std::string got;
    while ((in(LSR) & 1) != 0)
        got += static_cast<char>(in(DATA));
    EXPECT_EQ(got, "0123456789abcdefghij");
    EXPECT_EQ(in(LSR) & 2, 0);
}

TEST_F(SerialPortTest, WithoutFifosHoldsOneByte) {
    host.type("xyz");
    EXPECT_EQ(host.input.size(), 2U);
    EXPECT_EQ(in(DATA), 'x');
    EXPECT_EQ(in(DATA), 'y');
    EXPECT_EQ(in(DATA), 'z');
    EXPECT_EQ(in(LSR), 0x60);
}

TEST_F(SerialPortTest, PrioritiesOfCauses) {
    enable(0x0f);
    out(MCR, 0x1f); // loopback: all modem inputs follow
    for (unsigned i = 0; i < 17; i++)
        out(DATA, i);
    EXPECT_FALSE(host.line(4)); // OUT2 is not on the pin in loopback
    EXPECT_EQ(in(IIR) & 0x0f, 0x06);
    EXPECT_EQ(in(LSR) & 0x03, 0x03); // overrun
    EXPECT_EQ(in(IIR) & 0x0f, 0x04);
    for (unsigned i = 0; i < 16; i++)
        EXPECT_EQ(in(DATA), i);
    EXPECT_EQ(in(IIR) & 0x0f, 0x02);
    out(MCR, 0x10); // CTS, DSR, DCD fall, RI's trailing edge
    EXPECT_EQ(in(IIR) & 0x0f, 0x00);
    EXPECT_EQ(in(MSR), 0x0f);
    EXPECT_EQ(in(IIR) & 0x0f, 0x01);
    EXPECT_EQ(in(MSR), 0x00);
}

TEST_F(SerialPortTest, LoopbackSendsNothingOutAndTakesNothingIn) {
    out(MCR, 0x10);
    out(DATA, 'q');
    host.type("hello");
    EXPECT_TRUE(host.console.empty());
    EXPECT_EQ(host.input.size(), 5U);
    EXPECT_EQ(in(DATA), 'q');
    EXPECT_EQ(in(LSR) & 1, 0);
    out(MCR, 0x00); // reconnected: what waited comes in
    EXPECT_EQ(in(DATA), 'h');
}

TEST_F(SerialPortTest, FifoResets) {
    enable(0x00);
    host.type("abc");
    out(FCR, 0xc3);
    EXPECT_EQ(in(LSR) & 1, 0);
    host.console_room = 0;
    out(DATA, 'x');
    EXPECT_EQ(in(LSR) & 0x60, 0);
    out(FCR, 0xc5);
    EXPECT_EQ(in(LSR) & 0x60, 0x60);
    out(FCR, 0x06); // ignored without bit 0, but leaving FIFO mode empties too
    EXPECT_EQ(in(IIR), 0x01);
}

TEST_F(SerialPortTest, ResetKeepsLastWords) {
    host.console_room = 0;
    for (char const c : std::string("bye"))
        out(DATA, static_cast<u8>(c));
    port.reset();
    host.make_room(100);
    EXPECT_EQ(host.console, "bye");
}

std::string pattern(std::size_t size) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; i++)
        text[i] = static_cast<char>(i * 131 + i / 251);
    return text;
}

// A driver by interrupt: 16 bytes per THRE, while the console takes a few bytes now and then.
TEST_F(SerialPortTest, HundredKilobytesOutUnderBackPressure) {
    std::string const text = pattern(100'000);
    enable(0x02);
    host.console_room = 0;
    std::size_t sent = 0;
    u64 turn = 0;
    while (host.console.size() < text.size() && turn < 1'000'000) {
        if (host.line(4) && (in(IIR) & 0x0f) == 0x02)
            for (unsigned i = 0; i < 16 && sent < text.size(); i++)
                out(DATA, static_cast<u8>(text[sent++]));
        host.make_room(turn++ % 5);
    }
    EXPECT_TRUE(host.console == text);
}

TEST_F(SerialPortTest, HundredKilobytesOutByPolling) {
    std::string const text = pattern(100'000);
    host.console_room = 0;
    u64 turn = 0;
    for (char const c : text) {
        while ((in(LSR) & 0x20) == 0)
            host.make_room(turn++ % 3);
        out(DATA, static_cast<u8>(c));
    }
    host.make_room(1'000);
    EXPECT_TRUE(host.console == text);
}

// A driver by interrupt against a typist in bursts of every length.
TEST_F(SerialPortTest, HundredKilobytesIn) {
    std::string const text = pattern(100'000);
    enable(0x05);
    std::string got;
    std::size_t typed = 0, burst = 1;
    while (got.size() < text.size()) {
        std::size_t const count = std::min(burst++ % 300, text.size() - typed);
        host.type(text.substr(typed, count));
        typed += count;
        ASSERT_EQ(host.line(4), (in(LSR) & 1) != 0);
        while (host.line(4)) {
            u8 const cause = in(IIR) & 0x0f;
            ASSERT_TRUE(cause == 0x04 || cause == 0x0c);
            got += static_cast<char>(in(DATA));
        }
    }
    EXPECT_TRUE(got == text);
    EXPECT_TRUE(host.input.empty());
}

// The state that a string leaves, and what came out, is that of as many single accesses.
void expect_like_singles(std::size_t room, u8 mcr, u8 lcr, u8 ier, u32 reg, Op op) {
    fakes::FakeHost hosts[2];
    SerialPort at_once{hosts[0].plug()}, singly{hosts[1].plug()};
    std::array<u8, 40> bytes[2];
    for (std::size_t i = 0; i < bytes[0].size(); i++)
        bytes[0][i] = bytes[1][i] = static_cast<u8>('a' + i);
    SerialPort* const ports[2] = {&at_once, &singly};
    for (unsigned i = 0; i < 2; i++) {
        for (u32 const pair : {0xc102U, 0x0000U | u32{mcr} << 8 | 4U, 0x0001U | u32{ier} << 8, 0x0003U | u32{lcr} << 8})
            ports[i]->io({pair & 0xff, pair >> 8, 0, 1, Op::Write, 0});
        hosts[i].console_room = room;
    }
    at_once.io_string({reg, 0, 0, 1, op, 0}, bytes[0]);
    for (u8& byte : bytes[1]) {
        u64 const reply = singly.io({reg, op == Op::Write ? byte : u64{0}, 0, 1, op, 0}).data;
        if (op == Op::Read) byte = static_cast<u8>(reply);
    }
    SerialPort::State const states[2] = {at_once.save(), singly.save()};
    EXPECT_EQ(hosts[0].console, hosts[1].console);
    EXPECT_EQ(std::memcmp(&states[0], &states[1], sizeof(states[0])), 0);
    EXPECT_EQ(hosts[0].line(4), hosts[1].line(4));
    EXPECT_EQ(hosts[0].rises(4) != 0, hosts[1].rises(4) != 0);
    EXPECT_EQ(bytes[0], bytes[1]);
}

TEST(SerialPortString, IsLikeSingleAccesses) {
    for (std::size_t const room : {0UL, 1UL, 39UL, 40UL, 100UL})
        for (u8 const mcr : {u8{0x08}, u8{0x18}})
            for (u8 const lcr : {u8{0x03}, u8{0x83}})
                for (u8 const ier : {u8{0x00}, u8{0x02}, u8{0x07}})
                    for (u32 const reg : {DATA, LSR, SCR})
                        for (Op const op : {Op::Read, Op::Write})
                            expect_like_singles(room, mcr, lcr, ier, reg, op);
}

TEST_F(SerialPortTest, AStringIsANewEdge) {
    out(MCR, 0x08);
    out(IER, 0x02);
    std::size_t const before = host.rises(4);
    std::array<u8, 3> text{'a', 'b', 'c'};
    port.io_string({DATA, 0, 0, 1, Op::Write, 0}, text);
    EXPECT_EQ(host.rises(4), before + 1);
    EXPECT_EQ(host.console, "abc");
}

} // namespace
