// SPDX-License-Identifier: MIT
#include <lib/platform_layout.hpp>
#include <loader/e820.hpp>
#include <loader/guest_acpi_tables.hpp>

namespace loader {

using lib::u64;

lib::Result<E820Map> make_e820_map(u64 ram_below_4g, u64 ram_above_4g) {
    if (ram_below_4g < lib::MiB || ram_below_4g > mmio_hole_start) return lib::fail(lib::Errc::OutOfRange);
    if ((ram_below_4g | ram_above_4g) % lib::page_size != 0 || ram_above_4g >> 52 != 0)
        return lib::fail(lib::Errc::OutOfRange);
    E820Map map;
    map.add(0, ebda_start, E820Type::Ram);
    map.add(ebda_start, 0xa'0000, E820Type::Reserved);
    map.add(acpi_table_area.value, bios_area.value, E820Type::AcpiReclaimable);
    map.add(bios_area.value, bios_area_end.value, E820Type::Reserved);
    map.add(lib::MiB, ram_below_4g, E820Type::Ram);
    map.add(lib::layout::ecam_base, lib::layout::ecam_base + lib::layout::ecam_size, E820Type::Reserved);
    map.add(lib::layout::ioapic_base, lib::layout::ioapic_base + lib::page_size, E820Type::Reserved);
    map.add(lib::layout::local_apic_base, lib::layout::local_apic_base + lib::page_size, E820Type::Reserved);
    map.add(4 * lib::GiB, 4 * lib::GiB + ram_above_4g, E820Type::Ram);
    return map;
}

} // namespace loader
