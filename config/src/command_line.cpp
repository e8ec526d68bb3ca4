// SPDX-License-Identifier: MIT
#include <config/command_line.hpp>

#include <charconv>
#include <optional>

namespace config {
namespace {

std::optional<u32> number(std::string_view text, u32 lowest, u32 highest) {
    u32 value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < lowest || value > highest)
        return std::nullopt;
    return value;
}

// Cuts the text up to the first `separator` off the front of `rest`.
std::string_view cut(std::string_view& rest, char separator) {
    auto const at = rest.find(separator);
    std::string_view const piece = rest.substr(0, at);
    rest = at == std::string_view::npos ? std::string_view() : rest.substr(at + 1);
    return piece;
}

template <typename Value> struct Choice {
    std::string_view name;
    Value value;
};

template <typename Value, std::size_t Count>
bool choose(std::string_view text, Choice<Value> const (&choices)[Count], Value& out) {
    for (auto const& choice : choices) {
        if (choice.name != text) continue;
        out = choice.value;
        return true;
    }
    return false;
}

// A UART divides 115200 baud by a whole number.
bool is_possible_baud(u32 baud) { return 115200 % baud == 0; }

bool set_console(std::string_view value, Options& options) {
    if (value.empty()) return false;
    SerialConsole com[2];
    bool screen = false;
    SerialConsole* last = nullptr; // the port that a following number belongs to
    while (!value.empty()) {
        std::string_view const piece = cut(value, ',');
        if (piece == "com1" || piece == "com2") {
            last = &com[piece == "com2" ? 1 : 0];
            last->is_wanted = true;
        } else if (piece == "screen") {
            screen = true;
            last = nullptr;
        } else if (piece == "none") {
            last = nullptr;
        } else {
            auto const baud = number(piece, 50, 115200);
            if (last == nullptr || !baud || !is_possible_baud(*baud)) return false;
            last->baud = *baud;
            last = nullptr;
        }
    }
    options.com[0] = com[0];
    options.com[1] = com[1];
    options.screen = screen;
    options.is_console_chosen = true;
    return true;
}

bool set_log_level(std::string_view value, Options& options) {
    static constexpr Choice<LogLevel> choices[] = {{"error", LogLevel::Error},
                                                   {"warning", LogLevel::Warning},
                                                   {"info", LogLevel::Info},
                                                   {"debug", LogLevel::Debug}};
    return choose(value, choices, options.log_level);
}

bool set_failure(std::string_view value, Options& options) {
    static constexpr Choice<FailureAction> choices[] = {
        {"halt", FailureAction::Halt}, {"reboot", FailureAction::Reboot}, {"poweroff", FailureAction::PowerOff}};
    return choose(value, choices, options.on_failure);
}

bool set_clock(std::string_view value, Options& options) {
    static constexpr Choice<ClockSource> choices[] = {{"auto", ClockSource::Automatic},
                                                      {"hpet", ClockSource::Hpet},
                                                      {"pmtimer", ClockSource::PmTimer},
                                                      {"pit", ClockSource::Pit}};
    return choose(value, choices, options.clock);
}

bool set_pci(std::string_view value, Options& options) {
    static constexpr Choice<bool> choices[] = {{"on", true}, {"off", false}};
    return choose(value, choices, options.pci);
}

bool set_service_page_tables(std::string_view value, Options& options) {
    static constexpr Choice<std::optional<bool>> choices[] = {{"auto", std::nullopt}, {"on", true}, {"off", false}};
    return choose(value, choices, options.service_page_tables);
}

bool set_vmx_disable(std::string_view value, Options& options) {
    options.vmx_disable = value;
    return true;
}
bool set_svm_disable(std::string_view value, Options& options) {
    options.svm_disable = value;
    return true;
}

bool set_cpus(std::string_view value, Options& options) {
    auto const count = number(value, 1, 512);
    if (count) options.cpus = *count;
    return count.has_value();
}

struct Option {
    std::string_view key;
    std::string_view values; // what may stand behind '='
    std::string_view help;
    bool (*set)(std::string_view value, Options& options); // false: not understood, nothing changed
};

constexpr Option option_table[] = {
    {"console", "{com1[,BAUD]|com2[,BAUD]|screen|none},...", "where messages go (default com1,screen)", set_console},
    {"loglevel", "error|warning|info|debug", "least important messages shown (default info)", set_log_level},
    {"onfailure", "halt|reboot|poweroff", "after a panic, or when Mullion or every VM fails to start (default halt)",
     set_failure},
    {"clock", "auto|hpet|pmtimer|pit", "reference for the TSC frequency (default auto)", set_clock},
    {"vmx-disable", "WORDS", "features of VT-x to do without, comma-separated (for tests)", set_vmx_disable},
    {"svm-disable", "WORDS", "features of AMD-V to do without, comma-separated (for tests)", set_svm_disable},
    {"pci", "on|off", "off: leave the machine's PCI functions as firmware left them (default on)", set_pci},
    {"service-page-tables", "auto|on|off",
     "leave Mullion's memory out of the page tables of services (default auto: where the CPU is open to Meltdown)",
     set_service_page_tables},
    {"cpus", "1..512", "use at most so many CPUs (default all)", set_cpus},
};

constexpr bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// The next word; quotes are taken off when they enclose the word or the value.
std::string_view next_word(std::string_view& rest) {
    while (!rest.empty() && is_space(rest.front()))
        rest.remove_prefix(1);
    bool is_quoted = false;
    std::size_t length = 0;
    for (; length < rest.size() && (is_quoted || !is_space(rest[length])); length++)
        if (rest[length] == '"') is_quoted = !is_quoted;
    std::string_view const word = rest.substr(0, length);
    rest.remove_prefix(length);
    return word;
}

std::string_view unquoted(std::string_view text) {
    bool const is_enclosed = text.size() >= 2 && text.front() == '"' && text.back() == '"';
    return is_enclosed ? text.substr(1, text.size() - 2) : text;
}

void apply(std::string_view word, Options& options, lib::TextSink& diagnostics) {
    auto const equals = word.find('=');
    std::string_view const key = word.substr(0, equals);
    for (auto const& option : option_table) {
        if (option.key != key) continue;
        bool const is_understood =
            equals != std::string_view::npos && option.set(unquoted(word.substr(equals + 1)), options);
        if (!is_understood)
            lib::format(diagnostics, "command line: \"{}\": expected {}={}\n", word, key, option.values);
        return;
    }
    lib::format(diagnostics, "command line: \"{}\": no such option\n", word);
}

} // namespace

void parse_command_line(std::string_view text, Options& options, lib::TextSink& diagnostics) {
    while (true) {
        std::string_view const word = unquoted(next_word(text));
        if (word.empty() && text.empty()) return;
        if (!word.empty()) apply(word, options, diagnostics);
    }
}

void write_option_help(lib::TextSink& sink) {
    for (auto const& option : option_table)
        lib::format(sink, "{}={}\n    {}\n", option.key, option.values, option.help);
}

} // namespace config
