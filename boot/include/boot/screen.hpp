// SPDX-License-Identifier: MIT
#pragma once
// The screen as the loader left it: VGA text, or a framebuffer. At most one is in use; no mode is ever set.
// Not supported: indexed colours, text modes elsewhere than in the VGA's window.
#include <boot/multiboot2.hpp>
#include <string_view>

namespace boot {

// Text mode needs no memory set-up, so it shows everything from now on. `information`: nullptr if it is damaged.
void start_text_screen(Multiboot2 const* information);
// For a framebuffer, when page tables and the allocator are there: shows the log so far, and everything from now on.
void start_framebuffer(Multiboot2 const& information);
// Shown nowhere while no screen is in use.
void write_to_screen(std::string_view text);

} // namespace boot
