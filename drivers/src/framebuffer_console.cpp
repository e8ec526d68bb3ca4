// SPDX-License-Identifier: MIT
#include <drivers/framebuffer_console.hpp>

#include <algorithm>
#include <atomic>
#include <cstring>

namespace drivers {
namespace {

constexpr u32 glyph_width = 8;
constexpr u32 widest_pixel = 4;

// The colours of text mode, 0xrrggbb.
constexpr u32 text_mode_colours[16] = {0x000000, 0x0000aa, 0x00aa00, 0x00aaaa, 0xaa0000, 0xaa00aa, 0xaa5500, 0xaaaaaa,
                                       0x555555, 0x5555ff, 0x55ff55, 0x55ffff, 0xff5555, 0xff55ff, 0xffff55, 0xffffff};

u32 component(u32 value, PixelLayout::Field field) { // of 8 bits, cut or widened to the field
    u32 const scaled = field.width >= 8 ? value << (field.width - 8) : value >> (8 - field.width);
    return scaled << field.position;
}

bool is_field_sound(PixelLayout::Field field, u8 bits) {
    return field.width > 0 && field.width <= 16 && field.position + field.width <= bits;
}

} // namespace

lib::Result<void> FramebufferConsole::start(std::span<u8> memory, std::span<u16> storage, PixelLayout const& layout,
                                            Font const& font) {
    memory_ = nullptr;
    u8 const bits = layout.bits_per_pixel;
    u32 const pixel_bytes = (u32{bits} + 7) / 8;
    bool const has_sound_fields =
        is_field_sound(layout.red, bits) && is_field_sound(layout.green, bits) && is_field_sound(layout.blue, bits);
    if (bits < 15 || bits > 32 || !has_sound_fields || font.glyphs == nullptr || font.height == 0)
        return lib::fail(lib::Errc::Unsupported);
    if (u64{layout.width} * pixel_bytes > layout.pitch || u64{layout.pitch} * layout.height > memory.size())
        return lib::fail(lib::Errc::OutOfRange);
    for (u32 i = 0; i < 16; i++) {
        u32 const colour = text_mode_colours[i];
        palette_[i] = component(colour >> 16, layout.red) | component(colour >> 8 & 0xff, layout.green) |
                      component(colour & 0xff, layout.blue);
    }
    layout_ = layout;
    font_ = font;
    pixel_bytes_ = pixel_bytes;
    memory_ = memory.data();
    std::size_t const room = storage.size() / 2;
    shown_ = storage.subspan(room, room);
    grid_ = TextGrid(storage.first(room));
    grid_.resize(layout.width / glyph_width, layout.height / font.height);
    std::fill(shown_.begin(), shown_.end(), u16{0}); // no cell of ours has attribute 0, so everything is drawn
    show();
    return {};
}

void FramebufferConsole::write(std::string_view text) {
    if (memory_ == nullptr) return;
    grid_.write(text);
    show();
    // A CPU that halts next would keep the last pixels in its write-combining buffers. [intel/vol3] 12.3.1
    std::atomic_thread_fence(std::memory_order_seq_cst);
}

void FramebufferConsole::show() {
    auto const changed = grid_.take_changed();
    u32 at = changed.begin * grid_.columns();
    for (u32 row = changed.begin; row < changed.end; row++) {
        auto const line = grid_.line(row);
        for (u32 column = 0; column < grid_.columns(); column++, at++) {
            if (shown_[at] == line[column]) continue;
            shown_[at] = line[column];
            draw(column, row, line[column]);
        }
    }
}

void FramebufferConsole::draw(u32 column, u32 row, u16 cell) {
    u32 const text = palette_[cell >> 8 & 0xf];
    u32 const background = palette_[cell >> 12 & 0x7];
    u8 const* const glyph = font_.glyphs + (cell & 0xff) * font_.height;
    u8* out = memory_ + u64{row} * font_.height * layout_.pitch + u64{column} * glyph_width * pixel_bytes_;
    std::array<u8, glyph_width * widest_pixel> pixels;
    for (u32 y = 0; y < font_.height; y++, out += layout_.pitch) {
        u8* pixel = pixels.data();
        for (u32 x = 0; x < glyph_width; x++, pixel += pixel_bytes_) {
            u32 const value = (glyph[y] >> (7 - x) & 1) != 0 ? text : background;
            for (u32 i = 0; i < pixel_bytes_; i++)
                pixel[i] = static_cast<u8>(value >> i * 8);
        }
        std::memcpy(out, pixels.data(), glyph_width * pixel_bytes_); // a line at once, for write-combining
    }
}

} // namespace drivers
