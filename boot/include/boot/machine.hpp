// SPDX-License-Identifier: MIT
#pragma once
// The physical machine after boot: its tables, interrupt controllers, console, clock, and how to switch it off.
#include <boot/multiboot2.hpp>
#include <config/command_line.hpp>
#include <drivers/acpi.hpp>
#include <kernel/interrupts.hpp>

namespace boot {

// COM port and text screen, as early as possible; panics and the log go there from now on. `information`: nullptr if it
// is damaged.
void start_early_console(Multiboot2 const* information, config::Options const& options);
// Interrupt controllers, TSC calibration, console by interrupts, wall clock. Refuses to start when something is missing
// that cannot be done without.
void start_machine(Multiboot2 const& information, config::Options const& options);
drivers::AcpiInfo const& acpi_info();
// The input at which an ISA interrupt arrives, for good. nullptr: it has a user, or there is no memory.
kernel::InterruptSource* isa_interrupt(lib::u8 irq);
// Writes out the console and switches the machine off; stops the CPU when that fails.
[[noreturn]] void power_off(u32 status);
[[noreturn]] void restart();

} // namespace boot
