// SPDX-License-Identifier: MIT
#pragma once
// What a service has of Mullion: its system calls and its manifest. It is single-threaded, and nothing but wait()
// waits:
//   for (;;) handle(wait(mask, deadline));
#include <lib/format.hpp>
#include <lib/service_abi.hpp>
#include <string_view>

namespace runtime {

using lib::u32;
using lib::u64;
using lib::u8;

// The service's own program; when it returns, the instance ends.
void service_main();

lib::service::Manifest const& manifest();

// Returns the events of `mask` that have come, and forgets them. 0: the TSC has reached `deadline`.
u64 wait(u64 mask, u64 deadline = lib::service::no_deadline);
// One line of the log, cut at longest_line bytes. Too many in a short time are dropped.
void log(std::string_view line);
template <typename... Args> void log(std::string_view format, Args const&... args) {
    char text[lib::service::longest_line];
    log(std::string_view(lib::format_to(text, format, args...)));
}
// Ends this instance: something is wrong that the next one may not find so.
[[noreturn]] void stop(std::string_view why);

// Any call, with any arguments: what the others are made of.
u64 system_call(u64 number, u64 first = 0, u64 second = 0);

u64 ticks(); // the TSC
inline u64 ticks_of_milliseconds(u64 count) { return manifest().tsc_hz / 1'000 * count; }

} // namespace runtime
