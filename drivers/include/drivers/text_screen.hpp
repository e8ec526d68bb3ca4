// SPDX-License-Identifier: MIT
#pragma once
// The text mode of a VGA, colour, at 0xb8000. [ibm/vga]
// Not supported: setting a mode, fonts, blinking, monochrome adapters.
#include <drivers/text_grid.hpp>
#include <lib/format.hpp>

namespace drivers {

class TextScreen final : public lib::TextSink {
public:
    static constexpr u64 physical_address = 0xb'8000;
    static constexpr u32 usual_storage = 2 * 80 * 25;

    constexpr TextScreen() = default;

    // `memory`: the mapped text buffer. `storage`: two values per cell in ordinary memory; rows beyond either are not
    // used. Before this call nothing is shown.
    void start(std::span<u16> memory, std::span<u16> storage, u32 columns = 80, u32 rows = 25);
    void write(std::string_view text) override;
    void set_colours(Colour text, Colour background) { grid_.set_colours(text, background); }
    TextGrid const& grid() const { return grid_; }

private:
    void show();
    std::span<u16> shown_; // reading the screen back would be slow
    TextGrid grid_;
    u16* memory_ = nullptr;
};

} // namespace drivers
