// SPDX-License-Identifier: MIT
#include <config/command_line.hpp>

#include <array>
#include <gtest/gtest.h>
#include <string>

namespace {

struct Parsed {
    config::Options options;
    std::string diagnostics;
};

Parsed parse(std::string_view text) {
    Parsed parsed;
    std::array<char, 1024> buffer{};
    lib::BufferSink sink(buffer);
    config::parse_command_line(text, parsed.options, sink);
    parsed.diagnostics = sink.view();
    return parsed;
}

TEST(CommandLine, HasDefaults) {
    auto const parsed = parse("  ");
    EXPECT_EQ(parsed.diagnostics, "");
    EXPECT_TRUE(parsed.options.com[0].is_wanted);
    EXPECT_FALSE(parsed.options.com[1].is_wanted);
    EXPECT_TRUE(parsed.options.screen);
    EXPECT_EQ(parsed.options.log_level, config::LogLevel::Info);
}

TEST(CommandLine, TakesEveryOption) {
    auto const parsed =
        parse("console=com2,9600 loglevel=debug\tonfailure=reboot clock=pit cpus=3 pci=off service-page-tables=on");
    EXPECT_EQ(parsed.diagnostics, "");
    EXPECT_FALSE(parsed.options.com[0].is_wanted);
    EXPECT_TRUE(parsed.options.com[1].is_wanted);
    EXPECT_EQ(parsed.options.com[1].baud, 9600U);
    EXPECT_FALSE(parsed.options.screen);
    EXPECT_EQ(parsed.options.log_level, config::LogLevel::Debug);
    EXPECT_EQ(parsed.options.on_failure, config::FailureAction::Reboot);
    EXPECT_EQ(parsed.options.clock, config::ClockSource::Pit);
    EXPECT_EQ(parsed.options.cpus, 3U);
    EXPECT_FALSE(parsed.options.pci);
    EXPECT_EQ(parsed.options.service_page_tables, true);
    EXPECT_EQ(parse("service-page-tables=off").options.service_page_tables, false);
    EXPECT_EQ(parse("service-page-tables=on service-page-tables=auto").options.service_page_tables, std::nullopt);
}

TEST(CommandLine, CombinesConsoles) {
    auto const parsed = parse("console=com1,57600,com2,screen");
    EXPECT_EQ(parsed.diagnostics, "");
    EXPECT_EQ(parsed.options.com[0].baud, 57600U);
    EXPECT_TRUE(parsed.options.com[1].is_wanted);
    EXPECT_EQ(parsed.options.com[1].baud, 115200U);
    EXPECT_TRUE(parsed.options.screen);
}

TEST(CommandLine, TurnsAllConsolesOff) {
    auto const parsed = parse("console=none");
    EXPECT_EQ(parsed.diagnostics, "");
    EXPECT_FALSE(parsed.options.com[0].is_wanted || parsed.options.com[1].is_wanted || parsed.options.screen);
}

TEST(CommandLine, LetsTheLastWordWin) { EXPECT_EQ(parse("cpus=1 cpus=2").options.cpus, 2U); }

TEST(CommandLine, ReportsUnknownOptionsAndGoesOn) {
    auto const parsed = parse("quiet cpus=2");
    EXPECT_EQ(parsed.diagnostics, "command line: \"quiet\": no such option\n");
    EXPECT_EQ(parsed.options.cpus, 2U);
}

TEST(CommandLine, ReportsWrongValuesAndKeepsTheDefault) {
    for (std::string_view const text :
         {"loglevel=loud", "loglevel=", "loglevel", "cpus=0", "cpus=513", "cpus=4x", "cpus=-1", "cpus=99999999999",
          "console=", "console=com3", "console=9600", "console=com1,0", "console=com1,9601", "console=com1,9600,9600",
          "clock=tsc", "onfailure=dance", "pci=maybe", "service-page-tables=1"}) {
        auto const parsed = parse(text);
        EXPECT_NE(parsed.diagnostics.find("expected"), std::string::npos) << text;
        EXPECT_EQ(parsed.options.log_level, config::LogLevel::Info) << text;
        EXPECT_EQ(parsed.options.cpus, 0U) << text;
        EXPECT_TRUE(parsed.options.screen) << text;
        EXPECT_TRUE(parsed.options.pci) << text;
        EXPECT_EQ(parsed.options.service_page_tables, std::nullopt) << text;
    }
}

TEST(CommandLine, TakesQuotesOff) {
    EXPECT_EQ(parse("\"cpus=2\" loglevel=\"debug\"").options.log_level, config::LogLevel::Debug);
    EXPECT_EQ(parse("\"cpus=2\"").options.cpus, 2U);
    EXPECT_EQ(parse("\"a b\"").diagnostics, "command line: \"a b\": no such option\n");
    EXPECT_EQ(parse("\"\" cpus=2").options.cpus, 2U);
}

TEST(CommandLine, SurvivesAnOpenQuote) { EXPECT_EQ(parse("cpus=2 \"loglevel=debug").options.cpus, 2U); }

TEST(CommandLine, HelpNamesEveryOption) {
    std::array<char, 2048> buffer{};
    lib::BufferSink sink(buffer);
    config::write_option_help(sink);
    for (std::string_view const key :
         {"console=", "loglevel=", "onfailure=", "clock=", "cpus=", "pci=", "service-page-tables="})
        EXPECT_NE(sink.view().find(key), std::string_view::npos) << key;
}

} // namespace
