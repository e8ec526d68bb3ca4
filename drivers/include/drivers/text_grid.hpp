// SPDX-License-Identifier: MIT
#pragma once
// Text in cells: the cursor, line breaks and scrolling that text mode and framebuffer consoles share. Lives in ordinary
// memory, so that a slow screen is only ever written.
// Not supported: escape sequences, anything but Latin-1.
#include <lib/types.hpp>
#include <span>
#include <string_view>

namespace drivers {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

enum class Colour : u8 {
    Black,
    Blue,
    Green,
    Cyan,
    Red,
    Magenta,
    Brown,
    LightGrey,
    DarkGrey,
    LightBlue,
    LightGreen,
    LightCyan,
    LightRed,
    Pink,
    Yellow,
    White
};

class TextGrid {
public:
    // Cells as text mode has them: the character, its colour in bits 11:8, the background's in 14:12.
    constexpr TextGrid() = default;
    explicit constexpr TextGrid(std::span<u16> cells) : cells_(cells) {}

    // Empties the grid. Rows and columns are cut to what the cells hold.
    void resize(u32 columns, u32 rows);
    void write(std::string_view text);
    void set_colours(Colour text, Colour background);

    u32 columns() const { return columns_; }
    u32 rows() const { return rows_; }
    u32 column() const { return column_; }
    u32 row() const { return row_; }
    std::span<u16 const> line(u32 row) const { return cells_.subspan(row * columns_, columns_); }
    struct Rows {
        u32 begin, end;
    };
    Rows take_changed(); // outside of these nothing has changed since the last call

private:
    void put(char c);
    void new_line();
    void mark_changed(u32 begin, u32 end);
    u16 blank() const { return static_cast<u16>(attribute_ | ' '); }

    std::span<u16> cells_;
    u32 columns_ = 0;
    u32 rows_ = 0;
    u32 column_ = 0; // may equal columns_: the line breaks with the next character only
    u32 row_ = 0;
    u16 attribute_ = 0x0700;
    Rows changed_{0, 0};
};

} // namespace drivers
