// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <charconv>
#include <lib/format.hpp>

namespace lib {
namespace {

struct Spec {
    bool hexadecimal = false;
    bool prefix = false;
    bool zero_fill = false;
    char align = 0; // '<', '>' or 0 for the type's own
    unsigned width = 0;
};

// Parses what stands between ':' and '}'; returns the index of '}' or npos.
std::size_t parse_spec(std::string_view format, std::size_t at, Spec& spec) {
    if (at < format.size() && format[at] == ':') {
        at++;
        for (; at < format.size() && format[at] != '}'; at++) {
            char const c = format[at];
            if (c == '<' || c == '>')
                spec.align = c;
            else if (c == '#')
                spec.prefix = true;
            else if (c == 'x')
                spec.hexadecimal = true;
            else if (c == '0' && spec.width == 0)
                spec.zero_fill = true;
            else if (c >= '0' && c <= '9')
                spec.width = std::min(spec.width * 10 + static_cast<unsigned>(c - '0'), 200U);
        }
    }
    return at < format.size() ? at : std::string_view::npos;
}

void pad(TextSink& sink, unsigned count, char c) {
    for (unsigned i = 0; i < count; i++)
        sink.write({&c, 1});
}

void write_padded(TextSink& sink, std::string_view text, Spec const& spec, char default_align) {
    auto const missing = spec.width > text.size() ? spec.width - static_cast<unsigned>(text.size()) : 0U;
    char const align = spec.align != 0 ? spec.align : default_align;
    if (align == '>') pad(sink, missing, ' ');
    sink.write(text);
    if (align == '<') pad(sink, missing, ' ');
}

void write_arg(TextSink& sink, FormatArg const& arg, Spec const& spec) {
    if (arg.kind() == FormatArg::Kind::Text) {
        write_padded(sink, arg.text(), spec, '<');
        return;
    }
    if (arg.kind() == FormatArg::Kind::Char) {
        char const c = static_cast<char>(arg.number());
        write_padded(sink, {&c, 1}, spec, '<');
        return;
    }
    std::array<char, 80> buffer{};
    char* out = buffer.data();
    u64 value = arg.number();
    if (arg.kind() == FormatArg::Kind::Signed && static_cast<i64>(value) < 0) {
        if (spec.hexadecimal) {
            if (arg.bits() < 64) value &= (u64{1} << arg.bits()) - 1;
        } else {
            *out++ = '-';
            value = ~value + 1;
        }
    }
    if (spec.prefix && spec.hexadecimal) {
        *out++ = '0';
        *out++ = 'x';
    }
    std::array<char, 24> digits{};
    auto const end = std::to_chars(digits.data(), digits.data() + digits.size(), value, spec.hexadecimal ? 16 : 10).ptr;
    auto const count = static_cast<unsigned>(end - digits.data());
    if (spec.zero_fill) {
        auto const width = std::min(spec.width, 40U);
        for (auto used = static_cast<unsigned>(out - buffer.data()) + count; used < width; used++)
            *out++ = '0';
    }
    out = std::copy(digits.data(), end, out);
    write_padded(sink, {buffer.data(), static_cast<std::size_t>(out - buffer.data())}, spec, '>');
}

} // namespace

void format_args(TextSink& sink, std::string_view format, std::span<FormatArg const> args) {
    std::size_t next = 0;
    std::size_t at = 0;
    while (at < format.size()) {
        auto const brace = format.find_first_of("{}", at);
        if (brace == std::string_view::npos) {
            sink.write(format.substr(at));
            return;
        }
        sink.write(format.substr(at, brace - at));
        if (brace + 1 < format.size() && format[brace + 1] == format[brace]) { // "{{" and "}}"
            sink.write(format.substr(brace, 1));
            at = brace + 2;
            continue;
        }
        Spec spec;
        auto const close = parse_spec(format, brace + 1, spec);
        if (close == std::string_view::npos) return;
        if (next < args.size()) write_arg(sink, args[next++], spec);
        at = close + 1;
    }
}

} // namespace lib
