// SPDX-License-Identifier: MIT
#pragma once
// Starts the other CPUs of the machine.
#include <drivers/acpi.hpp>
#include <expected>
#include <lib/delegate.hpp>
#include <vm/backend.hpp>

namespace boot {

struct BringUp {
    drivers::AcpiInfo const& acpi;
    lib::u32 limit;             // use at most so many CPUs, this one included; 0: all
    lib::HostPhys startup_page; // MemorySummary::startup_page
    lib::Delegate<std::expected<void, vm::Refusal>()>
        prepare; // on each CPU as the last step; one that refuses is left out
};

// Brings up every enabled CPU of the MADT, one after the other, registers it with kernel/cpus and lets it wait. One
// that does not answer in time is reported and left out. Needs the clock, this CPU's APIC and its apic_id. Fills
// kernel::machine_topology().
void bring_up_cpus(BringUp const& request);

// Sends the waiting CPUs into `main_loop`, which must not return. The caller goes there by itself.
void release_cpus(void (*main_loop)());

} // namespace boot
