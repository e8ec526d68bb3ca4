// SPDX-License-Identifier: MIT
#pragma once
// Type-safe formatting without allocation. "{}" decimal or text, "{:x}" hexadecimal, "{:#x}" with 0x, a width after an
// optional fill 0: "{:08x}", "{:>12}" right-aligned text, "{:<12}" left-aligned. "{{" is a brace.
#include <array>
#include <concepts>
#include <lib/types.hpp>
#include <span>
#include <string_view>
#include <utility>

namespace lib {

// Where formatted text goes.
class TextSink {
public:
    virtual void write(std::string_view text) = 0;

protected:
    ~TextSink() = default;
};

// Collects text in a fixed buffer and drops what does not fit.
class BufferSink final : public TextSink {
public:
    explicit BufferSink(std::span<char> buffer) : buffer_(buffer) {}
    void write(std::string_view text) override {
        for (char c : text)
            if (used_ < buffer_.size()) buffer_[used_++] = c;
    }
    std::string_view view() const { return {buffer_.data(), used_}; }

private:
    std::span<char> buffer_;
    std::size_t used_ = 0;
};

// Collects text and passes it on in whole lines, so that what others write comes between lines. A line that is longer
// than the buffer is cut.
template <std::size_t Size> class LineSink : public TextSink {
public:
    void write(std::string_view text) final {
        for (char const c : text) {
            line_[used_++] = c;
            if (c == '\n' || used_ == Size) flush();
        }
    }
    void flush() {
        if (used_ != 0) pass_on({line_.data(), std::exchange(used_, 0)});
    }

protected:
    ~LineSink() = default;

private:
    virtual void pass_on(std::string_view line) = 0; // writes nothing here

    std::array<char, Size> line_{};
    std::size_t used_ = 0;
};

// One argument, erased to a plain value.
class FormatArg {
public:
    enum class Kind : u8 { Unsigned, Signed, Text, Char };

    template <std::integral T> FormatArg(T value) {
        if constexpr (std::same_as<T, bool>) {
            kind_ = Kind::Text;
            text_ = value ? "true" : "false";
        } else if constexpr (std::same_as<T, char>) {
            kind_ = Kind::Char;
            number_ = static_cast<u8>(value);
        } else if constexpr (std::signed_integral<T>) {
            kind_ = Kind::Signed;
            number_ = static_cast<u64>(static_cast<i64>(value));
            bits_ = sizeof(T) * 8;
        } else {
            kind_ = Kind::Unsigned;
            number_ = value;
        }
    }
    FormatArg(std::string_view text) : kind_(Kind::Text), text_(text) {}
    FormatArg(char const* text) : kind_(Kind::Text), text_(text) {}
    template <typename Tag> FormatArg(Address<Tag> address) : kind_(Kind::Unsigned), number_(address.value) {}

    Kind kind() const { return kind_; }
    u64 number() const { return number_; }
    unsigned bits() const { return bits_; }
    std::string_view text() const { return text_; }

private:
    Kind kind_ = Kind::Unsigned;
    unsigned bits_ = 64;
    u64 number_ = 0;
    std::string_view text_;
};

void format_args(TextSink& sink, std::string_view format, std::span<FormatArg const> args);

template <typename... Args> void format(TextSink& sink, std::string_view format, Args const&... args) {
    if constexpr (sizeof...(args) == 0) {
        format_args(sink, format, {});
    } else {
        FormatArg const erased[] = {FormatArg(args)...};
        format_args(sink, format, erased);
    }
}

// Formats into `buffer` and returns what was written; too much is cut.
template <typename... Args>
std::string_view format_to(std::span<char> buffer, std::string_view text, Args const&... args) {
    BufferSink sink(buffer);
    format(sink, text, args...);
    return sink.view();
}

} // namespace lib
