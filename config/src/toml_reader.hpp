// SPDX-License-Identifier: MIT
#pragma once
// Tokens of the TOML subset: keys, values, positions. Never allocates, never goes back more than a copy of itself.
#include <lib/types.hpp>
#include <string_view>

namespace config {

using lib::i64;
using lib::u32;
using lib::u64;
using lib::u8;

struct Value;

class TomlReader {
public:
    explicit TomlReader(std::string_view text) : text_(text) {}

    bool at_end() const { return at_ == text_.size(); }
    bool at_line_end() const { return at_end() || peek() == '\n' || (peek() == '\r' && peek(1) == '\n'); }
    char peek(std::size_t ahead = 0) const { return ahead < text_.size() - at_ ? text_[at_ + ahead] : '\0'; }
    void skip(std::size_t count = 1);
    bool accept(char c) {
        if (at_end() || peek() != c) return false;
        skip();
        return true;
    }
    void skip_spaces();                // spaces and tabs
    void skip_comment();               // up to the end of the line
    void skip_spaces_and_lines();      // also line ends and comments: inside of arrays
    void skip_line();                  // to the start of the next line
    std::string_view read_bare_word(); // letters, digits, _ and -; may be empty
    // Null, or what is wrong at the reader's position.
    char const* read_value(Value& out, unsigned depth = 0);

    u32 line() const { return line_; }
    u32 column() const { return static_cast<u32>(at_ - line_start_) + 1; }
    std::size_t offset() const { return at_; }
    std::string_view text_from(std::size_t offset) const { return text_.substr(offset, at_ - offset); }
    // What a message shows of the place where something is wrong.
    std::string_view rest_of_line() const;

private:
    char const* read_basic_string(Value& out);
    char const* read_literal_string(Value& out);
    char const* read_number(Value& out);
    char const* read_escape();
    char const* skip_array(unsigned depth);
    char const* skip_inline_table(unsigned depth);

    std::string_view text_;
    std::size_t at_ = 0;
    std::size_t line_start_ = 0;
    u32 line_ = 1;
};

enum class ValueType : u8 { String, Integer, Boolean, Array, Table };

struct Value {
    ValueType type = ValueType::String;
    bool boolean = false;
    bool has_escapes = false;
    i64 integer = 0;
    std::string_view string;               // without quotes, escapes as written
    std::string_view source;               // the whole value as written
    TomlReader inside{std::string_view{}}; // of an array or inline table: behind its bracket
    u32 line = 0;
    u32 column = 0;
};

// The string of a basic string whose escapes were checked; `out` is at least as long as `raw`. Answers the length.
std::size_t resolve_escapes(std::string_view raw, char* out);

} // namespace config
