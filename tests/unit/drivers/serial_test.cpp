// SPDX-License-Identifier: MIT
#include <drivers/serial.hpp>

#include <array>
#include <deque>
#include <fakes/cpu.hpp>
#include <functional>
#include <gtest/gtest.h>
#include <string>

namespace {

using lib::u16;
using lib::u32;
using lib::u8;

// A 16550A whose transmitter sends its FIFO in `polls_per_fifo` reads of LSR, or never.
class FakeUart {
public:
    explicit FakeUart(fakes::Cpu& cpu, bool is_16550 = true) : is_16550_(is_16550) {
        cpu.add_ports(0x3f8, 8,
                      {.in = [this](u16 offset, unsigned) { return u32{in(offset)}; },
                       .out = [this](u16 offset, unsigned, u32 value) { out(offset, static_cast<u8>(value)); }});
    }
    std::string sent;
    std::deque<u8> received;
    unsigned polls_per_fifo = 3;
    bool is_dead = false;
    u8 ier = 0xff, lcr = 0, mcr = 0, scratch = 0, dll = 0, dlm = 0;
    unsigned overruns = 0;
    std::function<void(u8)> on_ier;
    bool is_thre_pending = false;
    // The level of the interrupt line.
    bool has_request() const { return ((ier & 1) != 0 && !received.empty()) || ((ier & 2) != 0 && is_thre_pending); }

private:
    u8 in(u16 offset) {
        switch (offset) {
        case 0: {
            if ((lcr & 0x80) != 0) return dll;
            u8 const byte = received.empty() ? u8{0} : received.front();
            if (!received.empty()) received.pop_front();
            return byte;
        }
        case 1: return (lcr & 0x80) != 0 ? dlm : ier;
        case 2: {
            u8 const fifo = fifo_on_ && is_16550_ ? 0xc0 : 0;
            if ((ier & 1) != 0 && !received.empty()) return fifo | 4;
            if ((ier & 2) != 0 && is_thre_pending) {
                is_thre_pending = false;
                return fifo | 2;
            }
            return fifo | 1;
        }
        case 3: return lcr;
        case 4: return mcr;
        case 5:
            if (!is_dead && fill_ != 0 && ++polls_ >= polls_per_fifo) {
                fill_ = 0;
                is_thre_pending = true;
            }
            return static_cast<u8>((received.empty() ? 0 : 1) | (fill_ == 0 ? 0x60 : 0));
        case 6:
            return (mcr & 0x10) != 0
                       ? static_cast<u8>(((mcr & 2) << 3) | ((mcr & 1) << 5) | ((mcr & 4) << 4) | ((mcr & 8) << 4))
                       : u8{0};
        default: return scratch;
        }
    }
    void out(u16 offset, u8 value) {
        switch (offset) {
        case 0:
            if ((lcr & 0x80) != 0) {
                dll = value;
                return;
            }
            polls_ = 0;
            is_thre_pending = false;
            if (++fill_ > (is_16550_ ? 16U : 1U)) overruns++;
            sent.push_back(static_cast<char>(value));
            return;
        case 1:
            if (on_ier && (lcr & 0x80) == 0) on_ier(value);
            ((lcr & 0x80) != 0 ? dlm : ier) = value;
            return;
        case 2: fifo_on_ = (value & 1) != 0; return;
        case 3: lcr = value; return;
        case 4: mcr = value; return;
        case 7: scratch = value; return;
        default: return;
        }
    }
    bool is_16550_;
    bool fifo_on_ = false;
    unsigned fill_ = 0;
    unsigned polls_ = 0;
};

class Serial : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    FakeUart uart{cpu};
    drivers::SerialPort port{drivers::SerialPort::COM1};
};

TEST_F(Serial, StartsAt115200Baud8N1WithInterruptsOff) {
    ASSERT_TRUE(port.start());
    EXPECT_EQ(uart.dll, 1);
    EXPECT_EQ(uart.dlm, 0);
    EXPECT_EQ(uart.lcr, 3);
    EXPECT_EQ(uart.ier, 0);
    EXPECT_EQ(uart.mcr, 3); // DTR and RTS, not in loop-back
}

TEST_F(Serial, SetsTheDivisorOfASlowLine) {
    ASSERT_TRUE(port.start(50));
    EXPECT_EQ(uart.dll | uart.dlm << 8, 2304);
}

TEST_F(Serial, RefusesABaudRateWithoutDivisor) {
    EXPECT_EQ(port.start(0).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(port.start(100'000).error(), lib::Errc::OutOfRange);
}

TEST_F(Serial, WritesMoreThanOneFifoWithoutOverrun) {
    ASSERT_TRUE(port.start());
    std::string const text(100, 'x');
    port.write(text);
    EXPECT_EQ(uart.sent, text);
    EXPECT_EQ(uart.overruns, 0U);
    EXPECT_TRUE(port.drain());
}

TEST_F(Serial, GivesUpOnADeadUartOnceAndThenDoesNotWait) {
    ASSERT_TRUE(port.start());
    uart.is_dead = true;
    port.write(std::string(40, 'x'));
    EXPECT_EQ(uart.sent.size(), 16U);
    unsigned reads = 0;
    cpu.add_ports(0x3fd, 1, {.in = [&](u16, unsigned) { return reads++, 0U; }, .out = {}});
    port.write("more");
    EXPECT_EQ(reads, 1U);
    EXPECT_FALSE(port.drain());
    EXPECT_EQ(reads, 2U);
}

TEST_F(Serial, WritesAgainAfterAStall) {
    ASSERT_TRUE(port.start());
    uart.is_dead = true;
    port.write(std::string(20, 'x'));
    uart.is_dead = false;
    uart.polls_per_fifo = 1;
    port.write("y");
    EXPECT_EQ(uart.sent.back(), 'y');
}

TEST_F(Serial, WriteSomeFillsTheFifoAndNeverWaits) {
    ASSERT_TRUE(port.start());
    std::array<u8, 20> const bytes{};
    EXPECT_EQ(port.write_some(bytes), 16U);
    EXPECT_EQ(port.write_some(bytes), 0U);
    EXPECT_EQ(port.write_some({}), 0U);
}

TEST_F(Serial, ReadsWhatIsThere) {
    ASSERT_TRUE(port.start());
    uart.received = {'a', 'b', 'c'};
    std::array<u8, 2> two{};
    EXPECT_EQ(port.read_some(two), 2U);
    EXPECT_EQ(two[1], 'b');
    EXPECT_EQ(port.read_some(two), 1U);
    EXPECT_EQ(port.read_some(two), 0U);
}

TEST_F(Serial, ReportsInterruptCauses) {
    ASSERT_TRUE(port.start());
    port.enable_interrupts(true, true);
    EXPECT_EQ(uart.ier, 3);
    EXPECT_EQ(uart.mcr & 8, 8); // OUT2 connects the line
    auto events = port.handle_interrupt();
    EXPECT_FALSE(events.can_send || events.has_received);
    uart.is_thre_pending = true;
    events = port.handle_interrupt();
    EXPECT_TRUE(events.can_send);
    uart.received = {'a'};
    events = port.handle_interrupt();
    EXPECT_TRUE(events.has_received);
    port.enable_interrupts(false, false);
    EXPECT_EQ(uart.mcr & 8, 0);
}

// The transmitter runs empty between the looks at it and at the receiver: the line never fell, so nobody came again.
TEST_F(Serial, NoRequestHidesBehindAnother) {
    ASSERT_TRUE(port.start());
    port.enable_interrupts(true, true);
    std::array<u8, 40> text{};
    u32 at = 0;
    std::string got;
    auto const send = [&] { at += port.write_some(std::span(text).subspan(at)); };
    auto const serve = [&] {
        send();
        std::array<u8, 16> bytes{};
        u32 const count = port.read_some(bytes);
        got.append(bytes.begin(), bytes.begin() + count);
    };
    uart.polls_per_fifo = 2;
    send();
    uart.received = {'x'};
    port.serve_interrupt(serve);
    EXPECT_EQ(got, "x");
    EXPECT_FALSE(uart.has_request()) << "or no edge will ever come";
    EXPECT_EQ(at, 32U) << "what hid has been served";
}

TEST_F(Serial, ALineThatNeverFallsMakesAnEdgeAgain) {
    ASSERT_TRUE(port.start());
    port.enable_interrupts(true, true);
    unsigned calls = 0, falls = 0;
    uart.on_ier = [&](u8 value) { falls += value == 0 ? 1 : 0; };
    uart.received = {'x'};
    port.serve_interrupt([&] { calls++; }); // reads nothing
    EXPECT_LE(calls, 16U);
    EXPECT_EQ(falls, 1U);
    EXPECT_TRUE(uart.has_request());
}

TEST_F(Serial, WhatComesDuringAPauseMakesNoInterrupt) {
    ASSERT_TRUE(port.start());
    port.enable_interrupts(true, true);
    port.set_rts(false);
    uart.received = {'x'};
    EXPECT_FALSE(uart.has_request());
    uart.is_thre_pending = true;
    EXPECT_TRUE(uart.has_request()) << "sending goes on";
    EXPECT_TRUE(port.handle_interrupt().can_send);
    port.set_rts(true);
    EXPECT_TRUE(uart.has_request());
    EXPECT_TRUE(port.handle_interrupt().has_received);
}

TEST_F(Serial, DrivesRts) {
    ASSERT_TRUE(port.start());
    port.set_rts(false);
    EXPECT_EQ(uart.mcr & 2, 0);
    port.set_rts(true);
    EXPECT_EQ(uart.mcr & 2, 2);
}

TEST_F(Serial, SinkSendsCarriageReturns) {
    ASSERT_TRUE(port.start());
    drivers::SerialSink sink(port);
    sink.write("a\n\nb");
    EXPECT_EQ(uart.sent, "a\r\n\r\nb");
}

TEST(SerialProbe, FindsNothingOnAFloatingBus) {
    fakes::Cpu cpu;
    cpu.add_ports(0x3f8, 8, {.in = [](u16, unsigned) { return 0xffU; }, .out = [](u16, unsigned, u32) {}});
    drivers::SerialPort port(drivers::SerialPort::COM1);
    EXPECT_EQ(port.start().error(), lib::Errc::NotFound);
    EXPECT_FALSE(port.is_started());
    auto const written = cpu.port_writes.size();
    port.write("x");
    EXPECT_EQ(cpu.port_writes.size(), written);
}

TEST(SerialProbe, FindsNothingWherePlainMemoryAnswers) {
    fakes::Cpu cpu;
    cpu.add_plain_ports(0x3f8, 8, 0x60);
    EXPECT_EQ(drivers::SerialPort(0x3f8).start().error(), lib::Errc::NotFound);
}

TEST(SerialProbe, SendsSingleBytesToA16450) {
    fakes::Cpu cpu;
    FakeUart uart(cpu, false);
    drivers::SerialPort port(0x3f8);
    ASSERT_TRUE(port.start());
    port.write("abc");
    EXPECT_EQ(uart.sent, "abc");
    EXPECT_EQ(uart.overruns, 0U);
}

TEST(SerialInMemory, RegistersAreAStrideApartAndAccessedWithItsWidth) {
    constexpr lib::u64 base = 0xfe03'4000;
    for (u8 const stride : {u8{1}, u8{2}, u8{4}}) {
        fakes::Cpu cpu;
        std::string sent;
        u8 scratch = 0, lcr = 0, mcr = 0;
        unsigned divisor_writes = 0;
        cpu.add_mmio(base, u32{8} * stride,
                     {.load = [&](lib::u64 offset, unsigned) -> lib::u64 {
                          EXPECT_EQ(offset % stride, 0U);
                          switch (offset / stride) {
                          case 2: return 0xc1;
                          case 3: return lcr;
                          case 5: return 0x60;
                          case 6: return (mcr & 0x10) != 0 ? 0x90 : 0;
                          case 7: return scratch;
                          default: return 0;
                          }
                      },
                      .store =
                          [&](lib::u64 offset, unsigned, lib::u64 value) {
                              EXPECT_EQ(offset % stride, 0U);
                              switch (offset / stride) {
                              case 0:
                                  if ((lcr & 0x80) != 0)
                                      divisor_writes++;
                                  else
                                      sent += static_cast<char>(value);
                                  break;
                              case 3: lcr = static_cast<u8>(value); break;
                              case 4: mcr = static_cast<u8>(value); break;
                              case 7: scratch = static_cast<u8>(value); break;
                              default: break;
                              }
                          },
                      .widths = stride == 4 ? 4U : 1U});
        auto port = drivers::SerialPort::at_memory(base, stride);
        ASSERT_TRUE(port.start(drivers::SerialPort::keep_baud));
        EXPECT_EQ(divisor_writes, 0U) << "firmware's speed stays";
        port.write("hello");
        EXPECT_EQ(sent, "hello");
        ASSERT_TRUE(port.start(9600));
        EXPECT_EQ(divisor_writes, 1U);
    }
}

} // namespace
