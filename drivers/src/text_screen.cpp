// SPDX-License-Identifier: MIT
#include <drivers/text_screen.hpp>

#include <algorithm>
#include <lib/x86/instructions.hpp>

namespace drivers {
namespace {

constexpr u16 crtc_index = 0x3d4;
constexpr u16 crtc_data = 0x3d5;
enum Crtc : u8 { CursorStart = 0x0a, CursorHigh = 0x0e, CursorLow = 0x0f };

void write_crtc(Crtc index, u8 value) {
    lib::x86::out8(crtc_index, index);
    lib::x86::out8(crtc_data, value);
}

} // namespace

void TextScreen::start(std::span<u16> memory, std::span<u16> storage, u32 columns, u32 rows) {
    auto const room = static_cast<u32>(std::min(memory.size(), storage.size() / 2));
    shown_ = storage.subspan(room, room);
    grid_ = TextGrid(storage.first(room));
    memory_ = memory.data();
    grid_.resize(columns, columns == 0 ? 0 : std::min(rows, room / columns));
    std::fill(shown_.begin(), shown_.end(), u16{0}); // no cell of ours has attribute 0, so everything is drawn
    write_crtc(CursorStart, 0x0e);                   // visible: bit 5 is off
    show();
}

void TextScreen::write(std::string_view text) {
    if (memory_ == nullptr) return;
    grid_.write(text);
    show();
}

void TextScreen::show() {
    auto const changed = grid_.take_changed();
    u32 at = changed.begin * grid_.columns();
    for (u32 row = changed.begin; row < changed.end; row++) {
        for (u16 const cell : grid_.line(row)) {
            if (shown_[at] != cell) {
                shown_[at] = cell;
                *const_cast<u16 volatile*>(memory_ + at) = cell;
            }
            at++;
        }
    }
    if (grid_.rows() == 0) return;
    u32 const cursor = grid_.row() * grid_.columns() + std::min(grid_.column(), grid_.columns() - 1);
    write_crtc(CursorHigh, static_cast<u8>(cursor >> 8));
    write_crtc(CursorLow, static_cast<u8>(cursor));
}

} // namespace drivers
