// SPDX-License-Identifier: MIT
#include <drivers/text_grid.hpp>

#include <algorithm>
#include <utility>

namespace drivers {

void TextGrid::resize(u32 columns, u32 rows) {
    auto const room = static_cast<u32>(cells_.size());
    columns_ = std::min(columns, room);
    rows_ = columns_ == 0 ? 0 : std::min(rows, room / columns_);
    column_ = 0;
    row_ = 0;
    std::fill(cells_.begin(), cells_.end(), blank());
    changed_ = {0, rows_};
}

TextGrid::Rows TextGrid::take_changed() { return std::exchange(changed_, {0, 0}); }

void TextGrid::mark_changed(u32 begin, u32 end) {
    bool const is_first = changed_.begin == changed_.end;
    changed_ = {is_first ? begin : std::min(changed_.begin, begin), is_first ? end : std::max(changed_.end, end)};
}

void TextGrid::set_colours(Colour text, Colour background) {
    // Bit 15 would blink in text mode.
    attribute_ = static_cast<u16>(static_cast<u16>(text) << 8 | (static_cast<u16>(background) & 7) << 12);
}

void TextGrid::write(std::string_view text) {
    if (rows_ == 0) return;
    for (char const c : text)
        put(c);
}

void TextGrid::put(char c) {
    constexpr u32 tab_width = 8;
    switch (c) {
    case '\n': new_line(); return;
    case '\r': column_ = 0; return;
    case '\b':
        if (column_ != 0) column_--;
        return;
    case '\t':
        do
            put(' ');
        while (column_ % tab_width != 0 && column_ < columns_);
        return;
    default: break;
    }
    if (column_ >= columns_) new_line();
    auto const code = static_cast<u8>(c);
    bool const is_printable = code >= 0x20 && code != 0x7f;
    cells_[row_ * columns_ + column_] = static_cast<u16>(attribute_ | (is_printable ? code : u8{'?'}));
    mark_changed(row_, row_ + 1);
    column_++;
}

void TextGrid::new_line() {
    column_ = 0;
    if (row_ + 1 < rows_) {
        row_++;
        return;
    }
    auto const used = cells_.first(rows_ * columns_);
    std::copy(used.begin() + columns_, used.end(), used.begin());
    std::fill(used.end() - columns_, used.end(), blank());
    mark_changed(0, rows_);
}

} // namespace drivers
