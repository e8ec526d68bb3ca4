// SPDX-License-Identifier: MIT
#include "kernel/kernel_cpu.hpp"
#include <algorithm>
#include <deque>
#include <kernel/console.hpp>
#include <memory>
#include <string>

namespace {

using kernel::Console;
using lib::u32;
using lib::u8;

std::string pattern(std::size_t size, unsigned seed) {
    std::string text;
    for (std::size_t i = 0; i < size; i++)
        text += static_cast<char>('a' + (i * 7 + i / 26 + seed) % 26);
    return text;
}
std::span<u8 const> bytes_of(std::string_view text) { return {reinterpret_cast<u8 const*>(text.data()), text.size()}; }

// A line that takes `out_per_tick` bytes a tick, and whose sender stops when told.
class Port final : public kernel::ConsolePort {
public:
    std::string out;
    std::deque<u8> fifo; // received, not yet read
    std::string to_send; // by the other side
    u32 budget = 0;
    bool is_input_wanted = true;
    unsigned waits = 0;
    unsigned throttles = 0;

    u32 write_some(std::span<u8 const> bytes) override {
        auto const count = std::min<u32>(budget, static_cast<u32>(bytes.size()));
        out.append(bytes.begin(), bytes.begin() + count);
        budget -= count;
        return count;
    }
    u32 read_some(std::span<u8> bytes) override {
        u32 count = 0;
        for (; count < bytes.size() && !fifo.empty(); count++) {
            bytes[count] = fifo.front();
            fifo.pop_front();
        }
        return count;
    }
    void write_all(std::span<u8 const> bytes) override {
        out.append(bytes.begin(), bytes.end());
        waits++;
    }
    void set_input_wanted(bool wanted) override {
        is_input_wanted = wanted;
        if (!wanted) throttles++;
    }
    void type(std::string_view text) { fifo.insert(fifo.end(), text.begin(), text.end()); }
    // One tick of the line: true when it interrupts.
    bool tick(u32 out_per_tick) {
        budget = out_per_tick;
        for (int i = 0; i < 16 && is_input_wanted && !to_send.empty(); i++) {
            fifo.push_back(static_cast<u8>(to_send[0]));
            to_send.erase(0, 1);
        }
        return true;
    }
};

class User final : public kernel::ConsoleUser {
public:
    User(Console& console, char const* name) : console_(console), name_(name) {}
    std::string got, to_write;
    bool reads_at_once = true, is_inside_read = false;
    unsigned spaces = 0;

    void on_console_input() override {
        EXPECT_FALSE(is_inside_read) << "a platform that reads holds its lock";
        if (reads_at_once) read(~0U);
    }
    void on_console_space() override {
        EXPECT_FALSE(is_inside_read) << "a platform that reads holds its lock";
        spaces++;
        write_on();
    }
    std::string_view console_name() const override { return name_; }
    void write_on() {
        u32 const count = console_.write(*this, bytes_of(to_write));
        to_write.erase(0, count);
    }
    // Handles what it reads only after the call, as a device does.
    void read(u32 limit) {
        while (limit > 0) {
            std::array<u8, 8> bytes{};
            is_inside_read = true;
            u32 const count = console_.read(*this, std::span(bytes).first(std::min<u32>(limit, bytes.size())));
            is_inside_read = false;
            got.append(bytes.begin(), bytes.begin() + count);
            if (count == 0) break;
            limit -= count;
        }
    }

private:
    Console& console_;
    char const* name_;
};

class ConsoleTest : public KernelCpu {
protected:
    Port port;
    std::unique_ptr<Console> console = std::make_unique<Console>();
    User guest{*console, "guest"}, monitor{*console, "monitor"};
    void SetUp() override {
        console->set_port(&port);
        console->set_interrupt_driven();
        console->set_monitor(monitor);
        console->attach(guest);
    }
    void type(std::string_view text) {
        port.type(text);
        console->pump();
    }
    void drain() {
        for (int i = 0; i < 10'000; i++) {
            port.budget = 16;
            console->pump();
        }
    }
};

TEST_F(ConsoleTest, NothingIsLostEitherWayOnASlowLine) {
    std::string const out = pattern(100'000, 1), in = pattern(100'000, 2);
    guest.to_write = out;
    guest.reads_at_once = false;
    port.to_send = in;
    guest.write_on();
    EXPECT_FALSE(guest.to_write.empty()); // pushed back
    for (int i = 0; i < 100'000 && (port.out.size() < out.size() || guest.got.size() < in.size()); i++) {
        if (port.tick(5)) console->pump();
        guest.read(i % 4000 < 2000 ? 0 : 40); // the guest is slow half of the time
    }
    EXPECT_TRUE(port.out == out);
    EXPECT_TRUE(guest.got == in);
    EXPECT_GT(port.throttles, 0U);
    EXPECT_EQ(port.waits, 0U);
}

TEST_F(ConsoleTest, AReaderThatComesLateGetsEverythingInOrder) {
    std::string const in = pattern(60'000, 3);
    guest.reads_at_once = false;
    port.type(in); // a FIFO of any depth
    console->pump();
    EXPECT_FALSE(port.is_input_wanted);
    guest.reads_at_once = true;
    for (int i = 0; i < 20; i++) {
        guest.read(~0U);
        console->pump();
    }
    EXPECT_EQ(guest.got.size(), in.size());
    EXPECT_TRUE(guest.got == in);
    EXPECT_TRUE(port.is_input_wanted);
}

TEST_F(ConsoleTest, LogLinesBeginOnLinesOfTheirOwn) {
    guest.to_write = "login: ";
    guest.write_on();
    console->write_log("[   1.000000] hello\n");
    guest.to_write = "root\n";
    guest.write_on();
    console->write_log("[   2.000000] again\n");
    drain();
    EXPECT_EQ(port.out, "login: \r\n[   1.000000] hello\r\nroot\n[   2.000000] again\r\n");
}

TEST_F(ConsoleTest, LogsAreNeverRefusedAndStayInOrder) {
    guest.to_write = std::string(100'000, '.');
    guest.write_on();
    std::string expected = port.out;
    std::string log;
    for (int i = 0; i < 2000; i++)
        log += "line " + std::to_string(i) + " of the log\n";
    port.budget = 5; // leaves a part of what was taken from the queue
    console->write_log("[x]\n");
    console->write_log(log);
    EXPECT_GT(port.waits, 0U); // longer than the reserve: it waits
    drain();
    std::string unfolded;
    for (char const c : port.out)
        if (c != '\r') unfolded += c;
    auto const dots = static_cast<std::size_t>(std::count(unfolded.begin(), unfolded.end(), '.'));
    EXPECT_TRUE(unfolded.find(log) != std::string::npos);
    EXPECT_LT(unfolded.find("[x]"), unfolded.find("line 0"));
    EXPECT_EQ(dots + guest.to_write.size(), 100'000U);
}

TEST_F(ConsoleTest, OrderSurvivesAFullQueueBehindAPartlySentPiece) {
    port.budget = 3;
    console->write_log("0123456789abcdefghij");
    console->write_log(std::string(40'000, 'x'));
    EXPECT_EQ(port.out.substr(0, 20), "0123456789abcdefghij");
    drain();
    EXPECT_EQ(port.out.size(), 40'020U);
}

TEST_F(ConsoleTest, ControlACTogglesTheMonitor) {
    type("a\x01");
    type("cb");
    EXPECT_TRUE(console->is_in_monitor());
    EXPECT_EQ(monitor.got, "b");
    type("\x01"
         "cd");
    EXPECT_FALSE(console->is_in_monitor());
    EXPECT_EQ(guest.got, "ad");
    type("\x01\x01");
    EXPECT_EQ(guest.got, "ad\x01");
    type("\x01h");
    drain();
    EXPECT_NE(port.out.find("this help"), std::string::npos);
    EXPECT_EQ(guest.got, "ad\x01");
}

TEST_F(ConsoleTest, OnlyWhoHasTheLineReads) {
    guest.reads_at_once = false;
    type("abc");
    std::array<u8, 4> bytes{};
    EXPECT_EQ(console->read(monitor, bytes), 0U);
    EXPECT_EQ(console->read(guest, bytes), 3U);
    User other(*console, "other");
    EXPECT_EQ(console->write(other, bytes_of("nobody looks")), 12U); // it may run on
    drain();
    EXPECT_EQ(port.out, "");
    console->attach(other);
    drain();
    EXPECT_EQ(port.out, "nobody looks") << "it does now";
}

TEST_F(ConsoleTest, AGuestDoesNotWriteIntoTheMonitor) {
    console->enter_monitor();
    EXPECT_EQ(console->write(guest, bytes_of("one ")), 4U);
    console->print("> help");
    EXPECT_EQ(console->write(guest, bytes_of("two ")), 4U);
    drain();
    EXPECT_EQ(port.out, "> help");
    console->leave_monitor();
    console->write(guest, bytes_of("three"));
    drain();
    EXPECT_EQ(port.out, "> help\r\nconsole of guest\r\none two three");
}

TEST_F(ConsoleTest, TheLastOfMuchIsKeptAndComesOutAsTheLineTakesIt) {
    std::string const unseen = pattern(50'000, 6), last = unseen.substr(unseen.size() - 8 * 1024),
                      later = pattern(60'000, 7);
    console->print(std::string(23 * 1024, '-')); // hardly any room
    console->enter_monitor();
    EXPECT_EQ(console->write(guest, bytes_of(unseen)), unseen.size());
    console->leave_monitor();
    guest.to_write = later; // which must not overtake
    guest.write_on();
    EXPECT_EQ(guest.to_write, later);
    drain();
    EXPECT_TRUE(port.out.substr(23 * 1024) == "\r\nconsole of guest\r\n" + last + later);
}

TEST_F(ConsoleTest, TheLastWordsOfAGuestAreShown) {
    console->enter_monitor();
    console->write(guest, bytes_of("Kernel panic"));
    drain();
    EXPECT_EQ(port.out, "");
    console->detach(guest);
    drain();
    EXPECT_EQ(port.out, "Kernel panic");
}

TEST_F(ConsoleTest, TheMonitorGetsALineThatAGuestHadFilled) {
    guest.reads_at_once = false;
    port.type(pattern(20'000, 4));
    console->pump();
    ASSERT_FALSE(port.is_input_wanted);
    console->enter_monitor(); // a command, or the end of a VM
    EXPECT_TRUE(port.is_input_wanted);
    port.fifo.clear();
    type("help\n");
    EXPECT_EQ(monitor.got, "help\n");
}

TEST_F(ConsoleTest, TheMonitorHearsOfWhatCameWithItsEscape) {
    guest.reads_at_once = false;
    port.type(pattern(20'000, 4) + "\x01" + "chelp\n");
    console->pump();
    guest.read(~0U); // makes room, and with it the escape comes in
    EXPECT_TRUE(console->is_in_monitor());
    kernel::run_deferred_work();
    EXPECT_EQ(monitor.got, "help\n");
}

TEST_F(ConsoleTest, AReaderIsNotCalledBackWhenItsOwnReadSwitchesToTheMonitorAndBack) {
    guest.reads_at_once = false;
    port.type(pattern(20'000, 4) + "\x01" + "c\x01" + "cafter");
    console->pump();
    guest.read(~0U); // makes room, and with it both escapes come in
    EXPECT_FALSE(console->is_in_monitor());
    EXPECT_EQ(guest.spaces, 0U);
    EXPECT_TRUE(guest.got.ends_with("after"));
    kernel::run_deferred_work();
    EXPECT_EQ(guest.spaces, 1U) << "it has the line again and may write on";
}

TEST_F(ConsoleTest, NobodyIsToldAfterItHasGone) {
    guest.reads_at_once = false;
    port.type(pattern(20'000, 4) + "\x01" + "c\x01" + "c");
    console->pump();
    guest.read(~0U);
    console->detach(guest);
    kernel::run_deferred_work();
    EXPECT_EQ(guest.spaces, 0U);
}

TEST_F(ConsoleTest, AGuestThatGoesLeavesTheLineUsable) {
    guest.reads_at_once = false;
    port.type(pattern(20'000, 4));
    console->pump();
    console->detach(guest);
    EXPECT_TRUE(port.is_input_wanted);
    port.fifo.clear();
    type(pattern(40'000, 5)); // to nobody
    type("\x01"
         "chelp\n");
    EXPECT_TRUE(console->is_in_monitor());
    EXPECT_EQ(monitor.got, "help\n");
}

TEST_F(ConsoleTest, ALineThatIsFastEnoughNeverLeavesAWriterWaiting) {
    port.budget = ~0U;
    guest.to_write = pattern(100'000, 6);
    guest.write_on();
    for (int i = 0; i < 10 && !guest.to_write.empty(); i++)
        console->pump();
    EXPECT_EQ(port.out.size(), 100'000U);
}

TEST_F(ConsoleTest, FlushSendsAllInOrder) {
    port.budget = 3;
    console->write_log("0123456789abcdefghij\n");
    console->flush();
    EXPECT_EQ(port.out, "0123456789abcdefghij\r\n");
}

TEST_F(ConsoleTest, WithoutAPortOldLogLinesGiveWay) {
    Console early;
    early.write_log(std::string(100'000, 'x'));
    early.write_log("last\n");
    early.pump();
    early.set_port(&port);
    early.flush();
    EXPECT_TRUE(port.out.ends_with("last\r\n"));
}

} // namespace
