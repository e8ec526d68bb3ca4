// SPDX-License-Identifier: MIT
#pragma once
// The log: time-stamped lines with a level, kept in a ring of the last 64 KiB and handed to a sink (the console).
#include <lib/format.hpp>
#include <lib/log_level.hpp>

namespace kernel {

using lib::LogLevel;

void set_log_level(LogLevel level);
bool is_logged(LogLevel level);
// Where each complete line goes besides the ring; nullptr: nowhere.
void set_log_sink(lib::TextSink* sink);
// The lines still in the ring, piece by piece: positions count the bytes ever written. read_log() gives what is at
// `position`, or the oldest that is left, and moves it behind.
struct LogRange {
    std::size_t begin, end;
};
LogRange log_range();
std::string_view read_log(std::size_t& position, std::span<char> buffer);
// The lines still in the ring, oldest first.
void dump_log(lib::TextSink& sink);

void log_args(LogLevel level, std::string_view format, std::span<lib::FormatArg const> args);

template <typename... Args> void log(LogLevel level, std::string_view format, Args const&... args) {
    if (!is_logged(level)) return;
    if constexpr (sizeof...(args) == 0) {
        log_args(level, format, {});
    } else {
        lib::FormatArg const erased[] = {lib::FormatArg(args)...};
        log_args(level, format, erased);
    }
}
template <typename... Args> void log_error(std::string_view format, Args const&... args) {
    log(LogLevel::Error, format, args...);
}
template <typename... Args> void log_warning(std::string_view format, Args const&... args) {
    log(LogLevel::Warning, format, args...);
}
template <typename... Args> void log_info(std::string_view format, Args const&... args) {
    log(LogLevel::Info, format, args...);
}
template <typename... Args> void log_debug(std::string_view format, Args const&... args) {
    log(LogLevel::Debug, format, args...);
}

} // namespace kernel
