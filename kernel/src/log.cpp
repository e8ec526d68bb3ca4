// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <kernel/log.hpp>
#include <kernel/spinlock.hpp>
#include <kernel/time.hpp>

namespace kernel {
namespace {

constexpr std::size_t ring_size = 64 * lib::KiB;

constexpr std::size_t longest_line = 256; // that comes out in one piece

struct Ring {
    std::array<char, ring_size> text{};
    std::size_t written = 0; // ever; the newest byte is at (written - 1) % ring_size
    lib::TextSink* sink = nullptr;
};
constinit Guarded<Ring, LockRank::Log> ring;
constinit LogLevel threshold = LogLevel::Info;

// By lines: other CPUs print while this one logs.
class RingSink final : public lib::LineSink<longest_line> {
public:
    explicit RingSink(Ring& target) : ring_(target) {}

private:
    void pass_on(std::string_view line) override {
        for (char const c : line)
            ring_.text[ring_.written++ % ring_size] = c;
        if (ring_.sink != nullptr) ring_.sink->write(line);
    }

    Ring& ring_;
};

constexpr std::string_view tag(LogLevel level) {
    switch (level) {
    case LogLevel::Error: return "error: ";
    case LogLevel::Warning: return "warning: ";
    case LogLevel::Info: return "";
    case LogLevel::Debug: return "debug: ";
    }
    return "";
}

} // namespace

void set_log_level(LogLevel level) { threshold = level; }
bool is_logged(LogLevel level) { return level <= threshold; }
void set_log_sink(lib::TextSink* sink) {
    ring.with([&](Ring& r) { r.sink = sink; });
}

void log_args(LogLevel level, std::string_view format, std::span<lib::FormatArg const> args) {
    u64 const micros = now().value / 1000;
    ring.with([&](Ring& r) {
        RingSink sink(r);
        lib::format(sink, "[{:4}.{:06}] {}", micros / 1'000'000, micros % 1'000'000, tag(level));
        lib::format_args(sink, format, args);
        sink.write("\n");
    });
}

LogRange log_range() {
    return ring.with(
        [](Ring const& r) { return LogRange{r.written > ring_size ? r.written - ring_size : 0, r.written}; });
}

std::string_view read_log(std::size_t& position, std::span<char> buffer) {
    std::size_t const count = ring.with([&](Ring const& r) {
        if (r.written > ring_size) position = std::max(position, r.written - ring_size);
        std::size_t const wanted = std::min(buffer.size(), r.written - std::min(position, r.written));
        for (std::size_t i = 0; i < wanted; i++)
            buffer[i] = r.text[(position + i) % ring_size];
        position += wanted;
        return wanted;
    });
    return {buffer.data(), count};
}

void dump_log(lib::TextSink& sink) {
    Ring& r =
        ring.without_lock(); // for the monitor and for panics: a line written meanwhile may be torn, nothing worse
    std::size_t const begin = r.written > ring_size ? r.written - ring_size : 0;
    for (std::size_t at = begin; at < r.written;) {
        std::size_t const offset = at % ring_size;
        std::size_t const count = std::min(r.written - at, ring_size - offset);
        sink.write({r.text.data() + offset, count});
        at += count;
    }
}

} // namespace kernel
