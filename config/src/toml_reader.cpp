// SPDX-License-Identifier: MIT
#include "toml_reader.hpp"
#include <algorithm>

namespace config {
namespace {

constexpr unsigned max_depth = 4;

bool is_bare(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}
// -1: no digit.
int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}
bool is_control(char c) { return (static_cast<u8>(c) < 0x20 && c != '\t') || c == 0x7f; }

std::size_t encode_utf8(u32 code, char* out) {
    auto const put = [&](std::size_t at, u32 bits) { out[at] = static_cast<char>(static_cast<u8>(bits)); };
    if (code < 0x80) {
        put(0, code);
        return 1;
    }
    if (code < 0x800) {
        put(0, 0xc0 | code >> 6);
        put(1, 0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        put(0, 0xe0 | code >> 12);
        put(1, 0x80 | (code >> 6 & 0x3f));
        put(2, 0x80 | (code & 0x3f));
        return 3;
    }
    put(0, 0xf0 | code >> 18);
    put(1, 0x80 | (code >> 12 & 0x3f));
    put(2, 0x80 | (code >> 6 & 0x3f));
    put(3, 0x80 | (code & 0x3f));
    return 4;
}

char simple_escape(char c) {
    switch (c) {
    case 'b': return '\b';
    case 't': return '\t';
    case 'n': return '\n';
    case 'f': return '\f';
    case 'r': return '\r';
    case '"': return '"';
    case '\\': return '\\';
    default: return '\0';
    }
}

u32 hex_value(std::string_view digits) {
    u32 value = 0;
    for (char const c : digits)
        value = value << 4 | static_cast<u32>(std::max(digit_of(c), 0));
    return value;
}

} // namespace

void TomlReader::skip(std::size_t count) {
    for (std::size_t i = 0; i < count && at_ < text_.size(); ++i)
        if (text_[at_++] == '\n') {
            ++line_;
            line_start_ = at_;
        }
}

void TomlReader::skip_spaces() {
    while (!at_end() && (peek() == ' ' || peek() == '\t'))
        skip();
}

void TomlReader::skip_comment() {
    if (peek() != '#') return;
    while (!at_line_end())
        skip();
}

void TomlReader::skip_spaces_and_lines() {
    for (;;) {
        skip_spaces();
        skip_comment();
        if (at_end() || !at_line_end()) return;
        skip_line();
    }
}

void TomlReader::skip_line() {
    while (!at_end() && peek() != '\n')
        skip();
    skip();
}

std::string_view TomlReader::read_bare_word() {
    std::size_t const start = at_;
    while (!at_end() && is_bare(peek()))
        skip();
    return text_from(start);
}

std::string_view TomlReader::rest_of_line() const {
    std::string_view const rest = text_.substr(at_);
    return rest.substr(0, std::min<std::size_t>(rest.find_first_of("\r\n"), 40));
}

char const* TomlReader::read_value(Value& out, unsigned depth) {
    std::size_t const start = at_;
    out.line = line_;
    out.column = column();
    char const* problem = nullptr;
    if (depth > max_depth) return "expected at most four brackets inside of each other";
    if (accept('"')) {
        problem = read_basic_string(out);
    } else if (accept('\'')) {
        problem = read_literal_string(out);
    } else if (accept('[')) {
        out.type = ValueType::Array;
        out.inside = *this;
        problem = skip_array(depth);
    } else if (accept('{')) {
        out.type = ValueType::Table;
        out.inside = *this;
        problem = skip_inline_table(depth);
    } else {
        problem = read_number(out);
    }
    out.source = text_from(start);
    return problem;
}

char const* TomlReader::read_basic_string(Value& out) {
    if (peek() == '"' && peek(1) == '"') return "expected a string in one line, found the start of a multi-line string";
    std::size_t const start = at_;
    out.type = ValueType::String;
    out.has_escapes = false;
    while (!at_end() && peek() != '"') {
        if (is_control(peek())) return "expected a closing \" in the same line, found";
        if (peek() == '\\') {
            out.has_escapes = true;
            skip();
            if (char const* const problem = read_escape(); problem != nullptr) return problem;
        } else {
            skip();
        }
    }
    out.string = text_from(start);
    return accept('"') ? nullptr : "expected a closing \" in the same line, found";
}

char const* TomlReader::read_escape() {
    std::size_t const digits = peek() == 'u' ? 4 : peek() == 'U' ? 8 : 0;
    if (digits == 0) {
        if (simple_escape(peek()) == '\0') return "expected an escape of \\b \\t \\n \\f \\r \\\" \\\\ \\u0000, found";
        skip();
        return nullptr;
    }
    skip();
    for (std::size_t i = 0; i < digits; ++i)
        if (digit_of(peek(i)) < 0) return "expected hexadecimal digits, found";
    u32 const code = hex_value(text_.substr(at_, digits));
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return "expected a Unicode character, found";
    skip(digits);
    return nullptr;
}

char const* TomlReader::read_literal_string(Value& out) {
    if (peek() == '\'' && peek(1) == '\'')
        return "expected a string in one line, found the start of a multi-line string";
    std::size_t const start = at_;
    out.type = ValueType::String;
    out.has_escapes = false;
    while (!at_end() && peek() != '\'') {
        if (is_control(peek())) return "expected a closing ' in the same line, found";
        skip();
    }
    out.string = text_from(start);
    return accept('\'') ? nullptr : "expected a closing ' in the same line, found";
}

// Booleans too: all that is one word.
char const* TomlReader::read_number(Value& out) {
    constexpr char const* expected = "expected a string in quotes, a number, true, false or [ ], found";
    TomlReader const before = *this;
    bool const negative = peek() == '-';
    if (negative || peek() == '+') skip();
    std::string_view word = read_bare_word();
    out.type = ValueType::Boolean;
    out.boolean = word == "true";
    bool const is_number = !word.empty() && word[0] >= '0' && word[0] <= '9';
    if (before.peek() != '-' && before.peek() != '+' && (word == "true" || word == "false")) return nullptr;
    auto const refuse = [&](char const* problem) {
        *this = before;
        return problem;
    };
    if (!is_number || peek() == '.' || peek() == ':') return refuse(expected);
    out.type = ValueType::Integer;
    u64 base = 10;
    if (word.size() > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'o' || word[1] == 'b')) {
        base = word[1] == 'x' ? 16 : word[1] == 'o' ? 8 : 2;
        word.remove_prefix(2);
    } else if (word.size() > 1 && word[0] == '0') {
        return refuse("expected a number without leading zeros, found");
    }
    u64 value = 0;
    bool last_was_digit = false;
    for (char const c : word) {
        if (c == '_' && last_was_digit) {
            last_was_digit = false;
            continue;
        }
        int const digit = digit_of(c);
        if (digit < 0 || static_cast<u64>(digit) >= base) return refuse(expected);
        if (value > (u64{1} << 63) / base - 1) return refuse("expected a number below 2^63, found");
        value = value * base + static_cast<u64>(digit);
        last_was_digit = true;
    }
    if (!last_was_digit) return refuse(expected);
    out.integer = negative ? -static_cast<i64>(value) : static_cast<i64>(value);
    return nullptr;
}

char const* TomlReader::skip_array(unsigned depth) {
    for (;;) {
        skip_spaces_and_lines();
        if (accept(']')) return nullptr;
        Value item;
        if (char const* const problem = read_value(item, depth + 1); problem != nullptr) return problem;
        skip_spaces_and_lines();
        if (accept(',')) continue;
        return accept(']') ? nullptr : "expected , or ] in an array, found";
    }
}

char const* TomlReader::skip_inline_table(unsigned depth) {
    skip_spaces();
    if (accept('}')) return nullptr;
    for (;;) {
        skip_spaces();
        if (read_bare_word().empty()) return "expected a key, found";
        skip_spaces();
        if (!accept('=')) return "expected = behind the key, found";
        skip_spaces();
        Value item;
        if (char const* const problem = read_value(item, depth + 1); problem != nullptr) return problem;
        skip_spaces();
        if (accept(',')) continue;
        return accept('}') ? nullptr : "expected , or } in a table in one line, found";
    }
}

std::size_t resolve_escapes(std::string_view raw, char* out) {
    std::size_t used = 0;
    for (std::size_t i = 0; i < raw.size(); ++i) {
        if (raw[i] != '\\' || i + 1 == raw.size()) {
            out[used++] = raw[i];
            continue;
        }
        char const kind = raw[++i];
        std::size_t const digits = kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
        if (digits == 0) {
            out[used++] = simple_escape(kind);
        } else {
            used += encode_utf8(hex_value(raw.substr(i + 1, digits)), out + used);
            i += digits;
        }
    }
    return used;
}

} // namespace config
