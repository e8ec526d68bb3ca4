#pragma once
// The ACPI tables of the virtual platform, written into guest memory before a guest starts: RSDP, RSDT, XSDT, FADT,
// FACS, MADT, HPET, DSDT. [acpi] 5.2
//
// Not supported: PCI (no host bridge, no MCFG), NUMA, processors that come and go.
#include <lib/guest_memory.hpp>

namespace loader {

using lib::GuestPhys;

struct AcpiConfig {
    lib::u32 vcpu_count; // APIC id and processor UID of vCPU n are n
};

// The tables lie in acpi_table_area, RSDP and FACS in the BIOS area behind it; E820 knows both.
inline constexpr GuestPhys acpi_table_area{0xe'0000};
inline constexpr GuestPhys bios_area{0xf'0000};
inline constexpr GuestPhys bios_area_end{0x10'0000};

// Returns where the RSDP is. OutOfRange: so many vCPUs do not fit.
lib::Result<GuestPhys> write_acpi_tables(lib::GuestMemory const& memory, AcpiConfig const& config);

} // namespace loader
