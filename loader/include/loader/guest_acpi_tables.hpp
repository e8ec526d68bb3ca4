// SPDX-License-Identifier: MIT
#pragma once
// The ACPI tables of the virtual platform, written into guest memory before a guest starts: RSDP, RSDT, XSDT, FADT,
// FACS, MADT, HPET, MCFG, DSDT. [acpi] 5.2
//
// Not supported: interrupts of PCI by way of the 8259 pair (no link devices), NUMA, processors that come and go.
#include <lib/guest_memory.hpp>

namespace loader {

using lib::GuestPhys;

struct AcpiConfig {
    lib::u32 vcpu_count; // APIC id and processor UID of vCPU n are n
    lib::u64 ram_above_4g;
    lib::u32 physical_address_bits; // of the guest's CPUs
};

// The tables lie in acpi_table_area, RSDP and FACS in the BIOS area behind it; E820 knows both.
inline constexpr GuestPhys acpi_table_area{0xe'0000};
inline constexpr GuestPhys bios_area{0xf'0000};
inline constexpr GuestPhys bios_area_end{0x10'0000};

// Returns where the RSDP is. OutOfRange: so many vCPUs do not fit.
lib::Result<GuestPhys> write_acpi_tables(lib::GuestMemory const& memory, AcpiConfig const& config);

} // namespace loader
