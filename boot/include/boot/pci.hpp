// SPDX-License-Identifier: MIT
#pragma once
// The machine's PCI functions at boot.
#include <boot/multiboot2.hpp>
#include <config/command_line.hpp>

namespace boot {

// Finds the PCI functions and stops those that firmware left able to write to memory and that nobody owns. One CPU
// runs.
void start_pci(Multiboot2 const& information, config::Options const& options);

} // namespace boot
