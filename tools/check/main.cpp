// SPDX-License-Identifier: MIT
// mullion-check: is this machine fit for Mullion; is this description right.
#include <check/description_check.hpp>
#include <check/machine_check.hpp>
#include <config/command_line.hpp>
#include <config/description.hpp>

#include <array>
#include <cstdlib>
#include <lib/assert.hpp>
#include <stdio.h>

namespace lib {
void assertion_failed(char const* what, char const* file, int line) {
    fprintf(stderr, "mullion-check: %s:%d: assertion failed: %s\n", file, line, what);
    std::abort();
}
} // namespace lib

namespace {

constexpr char usage[] =
    "mullion-check                        tells whether this machine has what Mullion needs\n"
    "mullion-check [OPTIONS] FILE.toml    checks a description of virtual machines and the files that it names\n"
    "\n"
    "  --folder DIR         look there too for the files (after the description's own folder)\n"
    "  --module NAME=FILE   NAME in the description is this file\n"
    "  --name TEXT          call the description so in messages\n"
    "  --cpus N             the machine has so many CPUs\n"
    "  --memory MIB         the machine has so much memory\n"
    "  --list               print NAME, a tab and the path of each file\n"
    "mullion-check --options              lists the options that Mullion itself takes from GRUB\n"
    "\n"
    "Status: 0 when nothing is wrong, 1 when something is, 2 for wrong arguments.\n";

class StreamSink final : public lib::TextSink {
public:
    explicit StreamSink(FILE* stream) : stream_(stream) {}
    void write(std::string_view text) override { fwrite(text.data(), 1, text.size(), stream_); }

private:
    FILE* stream_;
};

int fail_usage(char const* what, char const* word) {
    fprintf(stderr, "mullion-check: %s: %s\n%s", what, word, usage);
    return 2;
}

bool parse_number(char const* text, lib::u64 most, lib::u64& value) {
    value = 0;
    for (char const* c = text; *c != 0; c++) {
        if (*c < '0' || *c > '9') return false;
        value = value * 10 + static_cast<lib::u64>(*c - '0');
        if (value > most) return false;
    }
    return value != 0;
}

int check_machine() {
    StreamSink out(stdout);
    lib::u32 const missing = check::judge_machine(check::gather_machine_facts(), out);
    if (missing == 0)
        fputs("Mullion can start here.\n", stdout);
    else
        fprintf(stdout, "Mullion cannot start here, or not be used: %u of these are missing.\n", missing);
    return missing == 0 ? 0 : 1;
}

} // namespace

int main(int count, char** words) {
    constexpr std::size_t most = 64;
    std::array<check::NamedFile, most> files{};
    std::array<std::string_view, most> folders{};
    std::size_t file_count = 0, folder_count = 0;
    check::Request request;
    for (int i = 1; i < count; i++) {
        std::string_view const word = words[i];
        if (word == "-h" || word == "--help") return fputs(usage, stdout) < 0 ? 1 : 0;
        if (word == "--options") {
            StreamSink out(stdout);
            config::write_option_help(out);
            return 0;
        }
        if (word == "--list") {
            request.wants_files = true;
            continue;
        }
        if (!word.starts_with("-")) {
            if (request.description != nullptr) return fail_usage("one description only", words[i]);
            request.description = words[i];
            continue;
        }
        if (i + 1 == count) return fail_usage("unknown option, or its value is missing", words[i]);
        std::string_view const value = words[++i];
        lib::u64 number = 0;
        if (word == "--folder" && folder_count < most) {
            folders[folder_count++] = value;
        } else if (word == "--name") {
            request.shown_as = value;
        } else if (word == "--module" && file_count < most && value.find('=') != std::string_view::npos) {
            auto const split = value.find('=');
            files[file_count++] = {value.substr(0, split), value.substr(split + 1)};
        } else if (word == "--cpus" && parse_number(words[i], config::max_cpus, number)) {
            request.cpus = static_cast<lib::u32>(number);
        } else if (word == "--memory" && parse_number(words[i], lib::u64{1} << 40, number)) {
            request.memory = number * lib::MiB;
        } else {
            return fail_usage("unknown option or wrong value", words[i]);
        }
    }
    if (request.description == nullptr)
        return count == 1 ? check_machine() : fail_usage("no description", words[count - 1]);
    request.files = std::span(files).first(file_count);
    request.folders = std::span(folders).first(folder_count);
    StreamSink messages(stderr), list(stdout);
    auto const outcome = check::check_description(request, messages, list);
    if (outcome.complaints == 0 && !request.wants_files)
        fprintf(stdout, "%s: %u VM%s, nothing is wrong\n", request.description, outcome.vms,
                outcome.vms == 1 ? "" : "s");
    return outcome.complaints == 0 ? 0 : 1;
}
