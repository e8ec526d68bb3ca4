// SPDX-License-Identifier: MIT
#include <drivers/framebuffer_console.hpp>
#include <drivers/text_screen.hpp>

#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <vector>

namespace {

using drivers::FramebufferConsole;
using drivers::PixelLayout;
using drivers::TextScreen;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

struct FakeCrtc {
    fakes::Cpu cpu;
    u8 index = 0;
    u8 registers[256] = {};
    FakeCrtc() {
        cpu.add_ports(0x3d4, 2, {.in = {}, .out = [this](u16 offset, unsigned, u32 value) {
                                     if (offset == 0)
                                         index = static_cast<u8>(value);
                                     else
                                         registers[index] = static_cast<u8>(value);
                                 }});
    }
    u32 cursor() const { return u32{registers[0x0e]} << 8 | registers[0x0f]; }
};

TEST(TextScreen, ShowsTextAndCursor) {
    FakeCrtc crtc;
    std::vector<u16> memory(80 * 25, 0xeeee);
    std::vector<u16> storage(TextScreen::usual_storage);
    TextScreen screen;
    screen.write("lost"); // before start
    screen.start(memory, storage);
    EXPECT_EQ(memory[0], 0x0720);
    screen.set_colours(drivers::Colour::Yellow, drivers::Colour::Blue);
    screen.write("Hi\nyou");
    EXPECT_EQ(memory[0], 0x1e48);
    EXPECT_EQ(memory[80 + 2], 0x1e75);
    EXPECT_EQ(crtc.cursor(), 83U);
    EXPECT_EQ(crtc.registers[0x0a] & 0x20, 0);
}

TEST(TextScreen, ScrollsWithoutReadingTheScreen) {
    FakeCrtc crtc;
    std::vector<u16> memory(80 * 25);
    std::vector<u16> storage(TextScreen::usual_storage);
    TextScreen screen;
    screen.start(memory, storage);
    for (unsigned i = 0; i < 25; i++) {
        screen.write("line\n");
        std::fill(memory.begin(), memory.end(), u16{0}); // what a read would find
    }
    screen.write("x");
    EXPECT_EQ(memory[24 * 80], 0x0778);
    EXPECT_EQ(memory[0], 0); // unchanged cells are not written again
}

TEST(TextScreen, StaysInsideASmallBuffer) {
    FakeCrtc crtc;
    std::vector<u16> memory(100);
    std::vector<u16> storage(TextScreen::usual_storage);
    TextScreen screen;
    screen.start(memory, storage, 40, 25);
    EXPECT_EQ(screen.grid().rows(), 2U);
    for (unsigned i = 0; i < 200; i++)
        screen.write("overflow ");
}

constexpr u32 font_height = 4;
struct FakeFont {
    std::vector<u8> glyphs = std::vector<u8>(256 * font_height);
    FakeFont() { glyphs['A' * font_height] = 0x81; } // the corners of the first line
    drivers::Font font() const { return {font_height, glyphs.data()}; }
};

PixelLayout layout(u8 bits, u32 width, u32 height, u32 padding = 0) {
    u32 const bytes = (u32{bits} + 7) / 8;
    PixelLayout result{.pitch = width * bytes + padding,
                       .width = width,
                       .height = height,
                       .bits_per_pixel = bits,
                       .red = {16, 8},
                       .green = {8, 8},
                       .blue = {0, 8}};
    if (bits == 16) {
        result.red = {11, 5};
        result.green = {5, 6};
        result.blue = {0, 5};
    }
    return result;
}

u32 pixel(std::vector<u8> const& memory, PixelLayout const& shape, u32 x, u32 y) {
    u32 value = 0;
    u32 const bytes = (u32{shape.bits_per_pixel} + 7) / 8;
    for (u32 i = 0; i < bytes; i++)
        value |= u32{memory[y * shape.pitch + x * bytes + i]} << i * 8;
    return value;
}

TEST(FramebufferConsole, DrawsGlyphsInEveryDepth) {
    struct Depth {
        u8 bits;
        u32 grey;
    };
    for (auto const& depth : {Depth{32, 0xaaaaaa}, Depth{24, 0xaaaaaa}, Depth{16, 0xad55}}) {
        FakeFont font;
        auto const shape = layout(depth.bits, 64, 16, 5);
        std::vector<u8> memory(u64{shape.pitch} * shape.height, 0xee);
        std::vector<u16> storage(20'000);
        FramebufferConsole console;
        ASSERT_TRUE(console.start(memory, storage, shape, font.font()));
        console.write("\n A");
        EXPECT_EQ(pixel(memory, shape, 8, 4), depth.grey) << int{depth.bits};
        EXPECT_EQ(pixel(memory, shape, 9, 4), 0U);
        EXPECT_EQ(pixel(memory, shape, 15, 4), depth.grey);
        EXPECT_EQ(pixel(memory, shape, 8, 5), 0U);
        EXPECT_EQ(memory[shape.pitch - 1], 0xee); // the padding is not ours
    }
}

TEST(FramebufferConsole, ScrollsWithoutReadingTheFramebuffer) {
    FakeFont font;
    auto const shape = layout(32, 64, 16);
    std::vector<u8> memory(u64{shape.pitch} * shape.height);
    std::vector<u16> storage(20'000);
    FramebufferConsole console;
    ASSERT_TRUE(console.start(memory, storage, shape, font.font()));
    console.write("\n\n\nA");
    std::fill(memory.begin(), memory.end(), u8{0xee});
    console.write("\n");
    EXPECT_EQ(pixel(memory, shape, 0, 8), 0xaaaaaaU);    // moved up
    EXPECT_EQ(pixel(memory, shape, 0, 12), 0U);          // gone from the last line
    EXPECT_EQ(pixel(memory, shape, 0, 0), 0xeeee'eeeeU); // never changed, never written
}

TEST(FramebufferConsole, RefusesWhatItCannotDrawOn) {
    FakeFont font;
    std::vector<u8> memory(64 * 16 * 4);
    std::vector<u16> storage(20'000);
    FramebufferConsole console;
    EXPECT_EQ(console.start(memory, storage, layout(8, 64, 16), font.font()).error(), lib::Errc::Unsupported);
    EXPECT_EQ(console.start(memory, storage, layout(32, 64, 16), {font_height, nullptr}).error(),
              lib::Errc::Unsupported);
    EXPECT_EQ(console.start(memory, storage, layout(32, 64, 17), font.font()).error(), lib::Errc::OutOfRange);
    auto outside = layout(24, 64, 16);
    outside.red.position = 17;
    EXPECT_EQ(console.start(memory, storage, outside, font.font()).error(), lib::Errc::Unsupported);
    auto narrow = layout(32, 64, 16);
    narrow.pitch--;
    EXPECT_EQ(console.start(memory, storage, narrow, font.font()).error(), lib::Errc::OutOfRange);
    console.write("nothing happens");
}

TEST(FramebufferConsole, UsesAsManyRowsAsItHasStorageFor) {
    FakeFont font;
    auto const shape = layout(16, 4096, 1000);
    std::vector<u8> memory(u64{shape.pitch} * shape.height);
    std::vector<u16> storage(20'000);
    FramebufferConsole console;
    ASSERT_TRUE(console.start(memory, storage, shape, font.font()));
    EXPECT_EQ(console.grid().columns(), 512U);
    EXPECT_EQ(console.grid().rows(), 19U); // what the storage holds
    EXPECT_EQ(FramebufferConsole::storage_for(shape, font.font()), 2U * 512 * 250);
    for (unsigned i = 0; i < 100; i++)
        console.write("some text that goes on\n");
}

} // namespace
