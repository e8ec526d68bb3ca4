// SPDX-License-Identifier: MIT
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <kernel/log.hpp>
#include <kernel/time.hpp>
#include <string>

namespace {

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view part) override {
        text += part;
        parts++;
    }
    std::string text;
    unsigned parts = 0;
};

class LogTest : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    StringSink sink;
    void SetUp() override {
        cpu.tsc_step = 0;
        kernel::start_clock(1'000'000'000, 0);
        kernel::set_log_sink(&sink);
        kernel::set_log_level(kernel::LogLevel::Info);
    }
    void TearDown() override { kernel::set_log_sink(nullptr); }
};

TEST_F(LogTest, LinesCarryTimeAndLevel) {
    cpu.tsc = 12'345'678'901;
    kernel::log_info("hello {}", 5);
    kernel::log_warning("{:#x}", 255U);
    kernel::log_error("plain {{");
    EXPECT_EQ(sink.text, "[  12.345678] hello 5\n[  12.345678] warning: 0xff\n[  12.345678] error: plain {\n");
}

TEST_F(LogTest, LinesComeOutInOnePiece) {
    kernel::log_info("{} of {}: {:#x}", 1, 2, 3U);
    EXPECT_EQ(sink.parts, 1U) << sink.text;
}

TEST_F(LogTest, TheLevelDecides) {
    kernel::log_debug("not this");
    kernel::set_log_level(kernel::LogLevel::Error);
    kernel::log_warning("nor this");
    EXPECT_EQ(sink.text, "");
    EXPECT_FALSE(kernel::is_logged(kernel::LogLevel::Debug));
    kernel::set_log_level(kernel::LogLevel::Debug);
    kernel::log_debug("but this");
    EXPECT_NE(sink.text.find("debug: but this"), std::string::npos);
}

TEST_F(LogTest, TheRingKeepsTheLastLines) {
    kernel::set_log_sink(nullptr);
    for (int i = 0; i < 5000; i++)
        kernel::log_info("line {}", i);
    StringSink dump;
    kernel::dump_log(dump);
    EXPECT_EQ(dump.text.size(), 64 * lib::KiB);
    EXPECT_TRUE(dump.text.ends_with("line 4998\n[   0.000000] line 4999\n"));
    EXPECT_EQ(dump.text.find("line 10\n"), std::string::npos);
    std::size_t lines = 0;
    for (int i = 4999; i > 3000; i--)
        lines += dump.text.find("line " + std::to_string(i) + "\n") != std::string::npos;
    EXPECT_EQ(lines, 1999U);
}

TEST_F(LogTest, OneLongerThanTheRingLeavesItsEnd) {
    kernel::set_log_sink(nullptr);
    std::string const text = std::string(200'000, 'x') + "end";
    kernel::log_info("{}", std::string_view(text));
    StringSink dump;
    kernel::dump_log(dump);
    EXPECT_EQ(dump.text.size(), 64 * lib::KiB);
    EXPECT_TRUE(dump.text.ends_with("xend\n"));
}

} // namespace
