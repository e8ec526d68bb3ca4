// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/line_editor.hpp>

namespace kernel {
namespace {

constexpr u8 control_key(char letter) { return static_cast<u8>(letter & 0x1f); }
constexpr u8 backspace = 0x08, tab = 0x09, line_feed = 0x0a, carriage_return = 0x0d, escape = 0x1b, del = 0x7f;
constexpr bool is_printable(u8 byte) { return byte >= 0x20 && byte < del; }

} // namespace

void Completions::offer(std::string_view candidate) {
    if (!candidate.starts_with(word_)) return;
    if (list_ != nullptr) lib::format(*list_, "{}{}", count_ == 0 ? "" : "  ", candidate);
    std::size_t const limit = count_++ == 0 ? common_.size() : common_size_;
    std::size_t size = 0;
    if (count_ == 1) {
        size = std::min(limit, candidate.size());
        std::copy_n(candidate.begin(), size, common_.begin());
    } else {
        while (size < std::min(limit, candidate.size()) && common_[size] == candidate[size])
            size++;
    }
    common_size_ = size;
}

// The last column stays free: writing there leaves terminals in doubt about where the cursor is.
u32 LineEditor::width() const {
    u32 const taken = static_cast<u32>(prompt_.size()) + 1;
    return taken + 8 < columns ? columns - taken : 8;
}

void LineEditor::begin() {
    text_.size = 0;
    cursor_ = 0;
    back_ = 0;
    state_ = State::Ground;
    draw();
}

void LineEditor::redraw() { draw(); }

void LineEditor::move_left_on_screen(u32 count) {
    if (count > 0) lib::format(terminal_, "\x1b[{}D", count);
}

void LineEditor::draw() {
    if (cursor_ < window_) window_ = cursor_;
    if (cursor_ > window_ + width()) window_ = cursor_ - width();
    u32 const shown = std::min(text_.size - window_, width());
    lib::format(terminal_, "\r{}{}\x1b[K", prompt_, text_.view().substr(window_, shown));
    move_left_on_screen(window_ + shown - cursor_);
}

bool LineEditor::put(u8 byte) {
    bool const is_second_half = byte == line_feed && after_return_;
    after_return_ = byte == carriage_return;
    switch (state_) {
    case State::Ground:
        if (is_second_half) return false;
        if (byte == carriage_return || byte == line_feed) return finish();
        if (is_printable(byte))
            insert(static_cast<char>(byte));
        else
            control(byte);
        return false;
    case State::Escape:
        parameter_ = 0;
        state_ = byte == '[' ? State::Sequence : byte == 'O' ? State::Function : State::Ground;
        return false;
    case State::Sequence:
        if (byte >= '0' && byte <= '9') {
            parameter_ = std::min<u32>(parameter_ * 10 + (byte - u32{'0'}), 1000);
            return false;
        }
        if (byte >= 0x20 && byte < 0x40) { // ';' and the like: modifiers, which change nothing here
            return false;
        }
        state_ = State::Ground;
        sequence_end(byte);
        return false;
    case State::Function:
        state_ = State::Ground;
        sequence_end(byte);
        return false;
    }
    return false;
}

bool LineEditor::finish() {
    move(text_.size);
    terminal_.write("\n");
    remember();
    window_ = 0;
    return true;
}

void LineEditor::remember() {
    if (text_.size == 0) return;
    if (history_count_ > 0 && history_[(history_count_ - 1) % history_size].view() == text_.view()) return;
    history_[history_count_++ % history_size] = text_;
}

void LineEditor::control(u8 byte) {
    switch (byte) {
    case control_key('A'): return move(0);
    case control_key('B'): return cursor_ > 0 ? move(cursor_ - 1) : bell();
    case control_key('C'): terminal_.write("^C\n"); return clear_line();
    case control_key('D'): return cursor_ < text_.size ? erase(cursor_, cursor_ + 1) : bell();
    case control_key('E'): return move(text_.size);
    case control_key('F'): return cursor_ < text_.size ? move(cursor_ + 1) : bell();
    case backspace:
    case del: return cursor_ > 0 ? erase(cursor_ - 1, cursor_) : bell();
    case tab: return complete();
    case control_key('K'): return erase(cursor_, text_.size);
    case control_key('L'): terminal_.write("\x1b[2J\x1b[H"); return draw();
    case control_key('N'): return newer();
    case control_key('P'): return older();
    case control_key('U'): return erase(0, cursor_);
    case control_key('W'): return erase(word_start(), cursor_);
    case escape: state_ = State::Escape; return;
    case 0: return; // line noise, and what some terminals send to keep a line alive
    default: return bell();
    }
}

// [ecma-48] 8.3 cursor keys; [dec/vt220] 3.2 the editing keypad: ESC [ number ~
void LineEditor::sequence_end(u8 byte) {
    switch (byte) {
    case 'A': return older();
    case 'B': return newer();
    case 'C': return control(control_key('F'));
    case 'D': return control(control_key('B'));
    case 'H': return move(0);
    case 'F': return move(text_.size);
    case '~': break;
    default: return;
    }
    if (parameter_ == 1 || parameter_ == 7) return move(0);
    if (parameter_ == 4 || parameter_ == 8) return move(text_.size);
    if (parameter_ == 3) return control(control_key('D'));
}

void LineEditor::insert(char c) {
    if (text_.size == capacity) return bell();
    auto const at = text_.bytes.begin() + cursor_;
    std::copy_backward(at, text_.bytes.begin() + text_.size, text_.bytes.begin() + text_.size + 1);
    *at = c;
    text_.size++;
    cursor_++;
    // The usual case, at the end and within the screen, is an echo of one byte.
    if (cursor_ == text_.size && cursor_ <= window_ + width())
        terminal_.write({&c, 1});
    else
        draw();
}

void LineEditor::erase(u32 from, u32 to) {
    if (from == to) return;
    std::copy(text_.bytes.begin() + to, text_.bytes.begin() + text_.size, text_.bytes.begin() + from);
    text_.size -= to - from;
    cursor_ = from;
    draw();
}

void LineEditor::move(u32 to) {
    if (to == cursor_) return;
    bool const is_on_screen = to >= window_ && to <= window_ + width();
    u32 const before = cursor_;
    cursor_ = to;
    if (is_on_screen && to < before) return move_left_on_screen(before - to);
    draw();
}

u32 LineEditor::word_start() const {
    u32 at = cursor_;
    while (at > 0 && text_.bytes[at - 1] == ' ')
        at--;
    while (at > 0 && text_.bytes[at - 1] != ' ')
        at--;
    return at;
}

void LineEditor::clear_line() {
    window_ = 0;
    begin();
}

void LineEditor::replace(Text const& text) {
    text_ = text;
    cursor_ = text_.size;
    draw();
}

void LineEditor::older() {
    if (back_ == std::min(history_count_, history_size)) return bell();
    if (back_ == 0) draft_ = text_;
    back_++;
    replace(history_[(history_count_ - back_) % history_size]);
}

void LineEditor::newer() {
    if (back_ == 0) return bell();
    back_--;
    replace(back_ == 0 ? draft_ : history_[(history_count_ - back_) % history_size]);
}

void LineEditor::complete() {
    if (!completer_) return bell();
    u32 start = cursor_;
    while (start > 0 && text_.bytes[start - 1] != ' ')
        start--;
    auto const before = text_.view().substr(0, start);
    auto const word = text_.view().substr(start, cursor_ - start);
    Completions found(word);
    completer_(before, found);
    if (found.count() == 0) return bell();
    auto const common = found.common();
    if (common.size() > word.size() || found.count() == 1) {
        for (char const c : common.substr(std::min(word.size(), common.size())))
            insert(c);
        if (found.count() == 1 && (cursor_ == text_.size || text_.bytes[cursor_] != ' ')) insert(' ');
        return;
    }
    terminal_.write("\n");
    Completions list(word, &terminal_);
    completer_(before, list);
    terminal_.write("\n");
    draw();
}

} // namespace kernel
