// SPDX-License-Identifier: MIT
#pragma once
// Readers of single tables: each takes a whole table with its header and adds to the AcpiInfo.
#include <drivers/acpi.hpp>
#include <lib/byte_view.hpp>

namespace drivers::acpi {

constexpr u32 signature_of(char const (&text)[5]) {
    u32 value = 0;
    for (unsigned i = 0; i < 4; i++)
        value |= u32{static_cast<u8>(text[i])} << i * 8;
    return value;
}

u64 read_fadt(lib::ByteView table, AcpiInfo& info); // gives the address of the DSDT
void read_madt(lib::ByteView table, AcpiInfo& info);
void read_hpet(lib::ByteView table, AcpiInfo& info);
void read_mcfg(lib::ByteView table, AcpiInfo& info);
void read_spcr(lib::ByteView table, AcpiInfo& info);
void read_dmar(lib::ByteView table, AcpiInfo& info);
void read_srat(lib::ByteView table, AcpiInfo& info);

} // namespace drivers::acpi
