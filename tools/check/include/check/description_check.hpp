// SPDX-License-Identifier: MIT
#pragma once
// Whether the hypervisor would accept a description and could load the kernels that it names: by its own parser and its
// own loaders, on this computer.
#include <check/file.hpp>
#include <lib/format.hpp>

namespace check {

using lib::u32;
using lib::u64;

struct NamedFile {
    std::string_view name; // of the boot module
    std::string_view path;
};

struct Request {
    char const* description = nullptr;           // path
    std::string_view shown_as{};                 // in messages; empty: the path
    std::span<NamedFile const> files{};          // before all others
    std::span<std::string_view const> folders{}; // after the description's own
    u32 cpus = 0;                                // the machine's; 0: not known, so not checked
    u64 memory = 0;                              // the machine's in bytes; 0: not known
    bool wants_files = false;                    // writes NAME, a tab, PATH for each file to `list`
};

struct Outcome {
    u32 complaints = 0;
    u32 vms = 0;
};

// Messages, one per line: FILE:LINE: what was expected, what was found, what to do.
Outcome check_description(Request const& request, lib::TextSink& messages, lib::TextSink& list);

} // namespace check
