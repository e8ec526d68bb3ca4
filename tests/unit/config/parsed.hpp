// SPDX-License-Identifier: MIT
#pragma once
// A description and what is said about it.
#include <config/description.hpp>

#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace config {

inline std::vector<std::string> messages_of(Diagnostics const& diagnostics) {
    std::vector<std::string> result;
    for (u32 i = 0; i < diagnostics.count; ++i) {
        std::array<char, 300> buffer{};
        lib::BufferSink sink(buffer);
        format_diagnostic(sink, "f", diagnostics.entries[i]);
        result.emplace_back(sink.view());
    }
    return result;
}

struct Parsed {
    explicit Parsed(std::string source) : text(std::move(source)) {
        good = parse_description(text, description, diagnostics);
    }

    std::vector<std::string> messages() const { return messages_of(diagnostics); }
    // The only message there is.
    std::string message() const {
        std::vector<std::string> const all = messages();
        return all.size() == 1 ? all[0] : std::to_string(all.size()) + " messages" + (all.empty() ? "" : ": " + all[0]);
    }
    VmDescription const& vm(u32 i = 0) const { return description.vms[i]; }

    std::string text;
    Description description;
    Diagnostics diagnostics;
    bool good = false;
};

// One sound VM with one more line.
inline Parsed with(std::string const& line) {
    return Parsed("[vm.a]\nmemory = \"64M\"\nkernel = \"k\"\n" + line + "\n");
}

} // namespace config
