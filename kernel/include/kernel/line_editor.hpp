// SPDX-License-Identifier: MIT
#pragma once
// Edits one line on a VT100 terminal, byte by byte: takes what was typed, gives what the terminal has to print. Pure:
// no memory, no clock, no lock. Lines longer than the terminal scroll sideways. Not supported: characters beyond ASCII
// (they ring the bell), terminals of another width than 80 columns (wider ones waste room).
#include <array>
#include <lib/delegate.hpp>
#include <lib/format.hpp>

namespace kernel {

using lib::u32;
using lib::u8;

// What Tab may add: the callback offers every candidate for the word before the cursor.
class Completions {
public:
    explicit Completions(std::string_view word, lib::TextSink* list = nullptr) : word_(word), list_(list) {}
    // Counts only when it begins with the word; must live until the callback returns.
    void offer(std::string_view candidate);
    u32 count() const { return count_; }
    // What all that were offered have in common, the word included.
    std::string_view common() const { return {common_.data(), common_size_}; }

private:
    std::string_view word_;
    lib::TextSink* list_; // when not nullptr: the candidates are printed
    std::array<char, 64> common_{};
    std::size_t common_size_ = 0;
    u32 count_ = 0;
};

class LineEditor {
public:
    static constexpr u32 capacity = 200;
    static constexpr u32 history_size = 16;
    static constexpr u32 columns = 80;
    // `before`: the line up to the word at the cursor.
    using Completer = lib::Delegate<void(std::string_view before, Completions& completions)>;

    LineEditor(std::string_view prompt, lib::TextSink& terminal) : prompt_(prompt), terminal_(terminal) {}
    void set_completer(Completer completer) { completer_ = completer; }

    // Prompts for a new line.
    void begin();
    // True: a line is complete; line() holds it until begin().
    bool put(u8 byte);
    // Prints prompt and line again, in a row of its own, after something else was printed.
    void redraw();
    std::string_view line() const { return text_.view(); }
    u32 cursor() const { return cursor_; }

private:
    struct Text {
        std::array<char, capacity> bytes{};
        u32 size = 0;
        std::string_view view() const { return {bytes.data(), size}; }
    };
    enum class State : u8 { Ground, Escape, Sequence, Function };

    void control(u8 byte);
    void sequence_end(u8 byte);
    void insert(char c);
    void erase(u32 from, u32 to);
    void move(u32 to);
    void replace(Text const& text);
    void clear_line();
    bool finish();
    void remember();
    void older();
    void newer();
    void complete();
    void draw();
    void bell() { terminal_.write("\a"); }
    void move_left_on_screen(u32 count);
    u32 width() const;
    u32 word_start() const;

    std::string_view prompt_;
    lib::TextSink& terminal_;
    Completer completer_;
    Text text_;
    u32 cursor_ = 0;
    u32 window_ = 0; // the first byte on the screen
    State state_ = State::Ground;
    u32 parameter_ = 0;
    bool after_return_ = false; // a line feed right behind belongs to it

    std::array<Text, history_size> history_{};
    u32 history_count_ = 0; // ever
    u32 back_ = 0;          // how far back the line on the screen is; 0: a new one
    Text draft_;            // the new one meanwhile
};

} // namespace kernel
