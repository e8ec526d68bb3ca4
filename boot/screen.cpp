// SPDX-License-Identifier: MIT
#include <algorithm>
#include <array>
#include <bit>
#include <boot/screen.hpp>
#include <drivers/framebuffer_console.hpp>
#include <drivers/text_screen.hpp>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <kernel/log.hpp>
#include <kernel/page_table.hpp>

extern "C" lib::u8 const console_font[]; // made by scripts/make-font
extern "C" lib::u8 const console_font_height;

namespace boot {
namespace {

using drivers::FramebufferConsole;
using drivers::TextScreen;

constexpr u64 vga_window_end = 0xc'0000;
constexpr u64 largest_framebuffer = 256 * lib::MiB; // 8K in 32 bits takes half of it
constexpr u64 largest_storage = lib::MiB;           // a screen of 8K takes that

constinit TextScreen text_screen;
constinit std::array<u16, TextScreen::usual_storage> text_storage{};
constinit FramebufferConsole framebuffer_console;

// GRUB says nothing of the screen where it did not set a mode: on a BIOS that is text mode.
bool is_efi(Multiboot2 const& information) {
    return information.efi_system_table64() || information.has_efi_memory_map() || information.has_efi_boot_services();
}

constexpr drivers::PixelLayout layout_of(Framebuffer const& found) {
    auto const field = [](Framebuffer::Field f) { return drivers::PixelLayout::Field{f.position, f.width}; };
    return {.pitch = found.pitch,
            .width = found.width,
            .height = found.height,
            .bits_per_pixel = found.bits_per_pixel,
            .red = field(found.red),
            .green = field(found.green),
            .blue = field(found.blue)};
}

lib::Result<void> show_on(Framebuffer const& found) {
    u64 const size = u64{found.pitch} * found.height;
    if (found.kind != Framebuffer::Kind::Rgb || size > largest_framebuffer) return lib::fail(lib::Errc::Unsupported);
    auto const layout = layout_of(found);
    drivers::Font const font{console_font_height, console_font};
    u64 const storage_bytes = std::min(FramebufferConsole::storage_for(layout, font) * sizeof(u16), largest_storage);
    auto const order = static_cast<unsigned>(std::bit_width((std::max(storage_bytes, u64{1}) - 1) / lib::page_size));
    HostPhys const storage = TRY(kernel::allocate_frames(order));
    auto const mapped = kernel::map_device(found.address, size, kernel::MemoryType::WriteCombining);
    auto const started =
        mapped
            ? framebuffer_console.start({reinterpret_cast<u8*>(mapped->value), size},
                                        {kernel::phys_to_virt<u16>(storage), storage_bytes / sizeof(u16)}, layout, font)
            : lib::Result<void>(lib::fail(mapped.error()));
    if (!started) kernel::free_frames(storage, order);
    return started;
}

} // namespace

void start_text_screen(Multiboot2 const* information) {
    u64 address = TextScreen::physical_address;
    u32 columns = 80;
    u32 rows = 25;
    if (auto const found = information != nullptr ? information->framebuffer() : std::nullopt) {
        u64 const size = u64{found->pitch} * found->height;
        bool const is_in_window = found->address.value >= TextScreen::physical_address && size <= vga_window_end &&
                                  found->address.value <= vga_window_end - size;
        if (found->kind != Framebuffer::Kind::Text || !is_in_window || found->pitch != found->width * sizeof(u16))
            return;
        address = found->address.value;
        columns = found->width;
        rows = found->height;
    } else if (information != nullptr && is_efi(*information)) {
        return; // nothing need be at 0xb8000
    }
    text_screen.start({kernel::phys_to_virt<u16>(HostPhys{address}), std::size_t{columns} * rows}, text_storage,
                      columns, rows);
}

void start_framebuffer(Multiboot2 const& information) {
    auto const found = information.framebuffer();
    if (!found) {
        if (is_efi(information)) kernel::log_info("screen: the loader left none");
        return;
    }
    if (found->kind == Framebuffer::Kind::Text) return;
    if (!show_on(*found)) {
        kernel::log_warning(
            "screen: {}x{} pixels of {} bits cannot be drawn on; set gfxpayload in GRUB to another mode", found->width,
            found->height, found->bits_per_pixel);
        return;
    }
    kernel::dump_log(framebuffer_console);
    kernel::log_info("screen: {}x{} pixels of {} bits", found->width, found->height, found->bits_per_pixel);
}

void write_to_screen(std::string_view text) {
    text_screen.write(text); // the one that is not in use ignores it
    framebuffer_console.write(text);
}

} // namespace boot
