// SPDX-License-Identifier: MIT
#pragma once
// Where a guest finds the virtual platform's hardware: what the device models answer at and what the ACPI tables
// tell the guest must be the same.
#include <lib/types.hpp>

namespace lib::layout {

inline constexpr u64 pm1a_evt = 0x600, pm1a_cnt = 0x604, pm_tmr = 0x608; // I/O ports [acpi] 4.8.3
inline constexpr u8 acpi_ports_size = 0x80; // from pm1a_evt on, by what PMBASE decodes [intel/ich] 13.1
inline constexpr u32 sci_gsi = 9;
inline constexpr u8 s5_sleep_type = 0; // what \_S5 says
inline constexpr u64 reset_control_port = 0xcf9;
inline constexpr u8 reset_control_value = 0x06;
inline constexpr u64 ioapic_base = 0xfec0'0000;
inline constexpr u64 local_apic_base = 0xfee0'0000; // of all vCPUs; also where messages that are interrupts go
inline constexpr u32 pit_gsi = 2;
inline constexpr u64 hpet_base = 0xfed0'0000;
// [intel/hpet] 2.3.4: revision 1, three comparators, 64 bits, legacy replacement, Intel's; a tick in femtoseconds.
inline constexpr u32 hpet_id = 0x8086'a201, hpet_period_fs = 69'841'279;

struct Window {
    u64 base, size;
};
// Configuration space of PCI: two ports, and a window of memory for buses 0 to 63 of 1 MiB each. [pcie] 7.2.2
inline constexpr u64 pci_config_address = 0xcf8, pci_config_data = 0xcfc;
inline constexpr u64 ecam_base = 0xe000'0000, ecam_size = 0x0400'0000;
inline constexpr u32 ecam_buses = ecam_size >> 20;
// Where base address registers of PCI functions may point. No RAM and no other device is in there.
inline constexpr Window pci_ports{0x1000, 0xf000}, pci_low_window{0xc000'0000, 0x2000'0000};
// The same above 4 GiB and RAM; of size 0 where the guest's physical addresses end too early.
constexpr Window pci_high_window(u64 ram_above_4g, u32 physical_address_bits) {
    constexpr u64 alignment = u64{1} << 30, size = u64{16} << 30;
    u64 const base = (u64{4} * alignment + ram_above_4g + alignment - 1) / alignment * alignment;
    if (base + size > u64{1} << physical_address_bits) return {};
    return {base, size};
}
// From the low window's end to 4 GiB, where devices have fixed places and no base address register may point.
inline constexpr Window fixed_devices{pci_low_window.base + pci_low_window.size, 0x2000'0000};
static_assert(fixed_devices.base + fixed_devices.size == u64{1} << 32);
// Interrupt pin INTA# to INTD# (0 to 3) of a slot reaches this line.
inline constexpr u32 pci_first_gsi = 16, pci_gsi_count = 4;
constexpr u32 pci_gsi(u32 slot, u32 pin) { return pci_first_gsi + (slot + pin) % pci_gsi_count; }

} // namespace lib::layout
