// SPDX-License-Identifier: MIT
#pragma once
// Text on a linear RGB framebuffer of 15 to 32 bits per pixel. The framebuffer is only written, and only where a cell
// changed. Not supported: indexed colours, glyphs of another width than 8, a visible cursor.
#include <array>
#include <drivers/text_grid.hpp>
#include <lib/format.hpp>
#include <lib/result.hpp>

namespace drivers {

struct PixelLayout { // as Multiboot2 describes it
    struct Field {
        u8 position;
        u8 width;
    };
    u32 pitch; // bytes
    u32 width;
    u32 height;
    u8 bits_per_pixel;
    Field red, green, blue;
};

struct Font { // 256 glyphs in Latin-1 order, 8 pixels wide, one byte per line, the left pixel in bit 7
    u32 height;
    u8 const* glyphs;
};

class FramebufferConsole final : public lib::TextSink {
public:
    constexpr FramebufferConsole() = default;
    // How many values of storage the whole screen takes.
    static constexpr u64 storage_for(PixelLayout const& layout, Font const& font) {
        return font.height == 0 ? 0 : u64{2} * (layout.width / 8) * (layout.height / font.height);
    }

    // `memory`: the mapped framebuffer, best as write-combining. Unsupported for a layout that cannot be drawn on,
    // OutOfRange if `memory` is too small for it. With less `storage` than storage_for() says, lower rows stay unused.
    // Before this call nothing is shown.
    lib::Result<void> start(std::span<u8> memory, std::span<u16> storage, PixelLayout const& layout, Font const& font);
    void write(std::string_view text) override;
    void set_colours(Colour text, Colour background) { grid_.set_colours(text, background); }
    TextGrid const& grid() const { return grid_; }

private:
    void show();
    void draw(u32 column, u32 row, u16 cell);
    std::span<u16> shown_; // the framebuffer is too slow to be read back
    std::array<u32, 16> palette_{};
    TextGrid grid_;
    u8* memory_ = nullptr;
    PixelLayout layout_{};
    Font font_{};
    u32 pixel_bytes_ = 0;
};

} // namespace drivers
