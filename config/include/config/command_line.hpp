// SPDX-License-Identifier: MIT
#pragma once
// Mullion's own options, words `key=value` on the loader's command line. Text in quotes keeps its spaces. A word that
// is not understood is reported and leaves the option as it was: a typing error must not keep a machine from starting.
#include <lib/format.hpp>
#include <lib/log_level.hpp>
#include <lib/types.hpp>
#include <optional>
#include <string_view>

namespace config {

using lib::LogLevel;
using lib::u16;
using lib::u32;
using lib::u8;

// After a panic, when Mullion cannot start, and when no VM can.
enum class FailureAction : u8 { Halt, Reboot, PowerOff };
enum class ClockSource : u8 { Automatic, Hpet, PmTimer, Pit };

struct SerialConsole {
    bool is_wanted = false;
    u32 baud = 115200;
};

struct Options {
    SerialConsole com[2] = {{.is_wanted = true}, {}}; // COM1, COM2
    bool is_console_chosen = false;                   // by the user
    bool screen = true;                               // text mode or framebuffer, whichever the loader left
    LogLevel log_level = LogLevel::Info;
    FailureAction on_failure = FailureAction::Halt;
    ClockSource clock = ClockSource::Automatic;
    bool pci = true;                         // find the machine's PCI functions, and stop those that nobody owns
    u32 cpus = 0;                            // use at most so many; 0: all
    std::optional<bool> service_page_tables; // without Mullion's memory; nothing: where the CPU is open to Meltdown
    std::string_view vmx_disable;            // features of VT-x to do without, as if the CPU lacked them
    std::string_view svm_disable;            // the same for AMD-V
};

// Later words win. Messages, one per line, go to `diagnostics`.
void parse_command_line(std::string_view text, Options& options, lib::TextSink& diagnostics);

// The table of options in words, for the manual.
void write_option_help(lib::TextSink& sink);

} // namespace config
