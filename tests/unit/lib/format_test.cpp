// SPDX-License-Identifier: MIT
#include <lib/format.hpp>

#include <array>
#include <gtest/gtest.h>

namespace {

template <typename... Args> std::string formatted(std::string_view text, Args const&... args) {
    std::array<char, 128> buffer{};
    return std::string(lib::format_to(buffer, text, args...));
}

TEST(Format, Numbers) {
    EXPECT_EQ(formatted("{} {} {:x} {:#x}", 42, -7, 255U, 0xdeadbeefULL), "42 -7 ff 0xdeadbeef");
    EXPECT_EQ(formatted("{:04x}|{:5}|{:<5}|{:>3}", 0xab, 42, 42, "a"), "00ab|   42|42   |  a");
    EXPECT_EQ(formatted("{:#010x}", 0x12U), "0x00000012");
    EXPECT_EQ(formatted("{:x}", static_cast<lib::u8>(0xff)), "ff");
    EXPECT_EQ(formatted("{:x}", static_cast<signed char>(-1)), "ff");
    EXPECT_EQ(formatted("{}", std::numeric_limits<long>::min()), "-9223372036854775808");
}

TEST(Format, TextAndBraces) {
    EXPECT_EQ(formatted("{{{}}} {}{}", "a", 'b', true), "{a} btrue");
    EXPECT_EQ(formatted("{:<4}|", "ab"), "ab  |");
}

TEST(Format, TooFewArgumentsAndBadSpecsAreHarmless) {
    EXPECT_EQ(formatted("{} {}", 1), "1 ");
    EXPECT_EQ(formatted("{:", 1), "");
    EXPECT_EQ(formatted("}", 1), "");
}

TEST(Format, CutsWhatDoesNotFit) {
    std::array<char, 4> buffer{};
    EXPECT_EQ(lib::format_to(buffer, "{}", 123456), "1234");
}

TEST(LineSink, PassesWholeLinesOnAndCutsLongOnes) {
    class Lines final : public lib::LineSink<4> {
    public:
        std::vector<std::string> lines;

    private:
        void pass_on(std::string_view line) override { lines.emplace_back(line); }
    } sink;
    sink.write("a");
    sink.write("b\nc");
    EXPECT_EQ(sink.lines, std::vector<std::string>{"ab\n"});
    sink.flush();
    sink.flush();
    sink.write("12345\n");
    EXPECT_EQ(sink.lines, (std::vector<std::string>{"ab\n", "c", "1234", "5\n"}));
}

} // namespace
