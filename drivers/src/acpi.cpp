// SPDX-License-Identifier: MIT
#include <drivers/acpi.hpp>

#include "acpi_tables.hpp"

#include <algorithm>
#include <memory>

namespace drivers {
namespace {

using acpi::signature_of;
using lib::ByteView;
using lib::Errc;

constexpr u32 header_size = 36;
constexpr u32 largest_table = 8 * 1024 * 1024; // DSDTs of large servers reach some MiB
constexpr u32 most_root_entries = 256;

// A whole table with a good checksum.
std::optional<ByteView> read_table(PhysicalMap const& map, u64 address) {
    if (address == 0) return std::nullopt;
    auto const header = ByteView(map({address}, header_size));
    u32 const length = header.get32(4);
    if (header.size() != header_size || length < header_size || length > largest_table) return std::nullopt;
    auto const table = ByteView(map({address}, length));
    if (table.size() != length || table.checksum() != 0) return std::nullopt;
    return table;
}

struct Root {
    ByteView table;
    u32 entry_size;
};

std::optional<Root> find_root(Rsdp const& rsdp, PhysicalMap const& map) {
    auto const xsdt = read_table(map, rsdp.xsdt);
    if (xsdt && xsdt->get32(0) == signature_of("XSDT")) return Root{*xsdt, 8};
    auto const rsdt = read_table(map, rsdp.rsdt);
    if (rsdt && rsdt->get32(0) == signature_of("RSDT")) return Root{*rsdt, 4};
    return std::nullopt;
}

std::optional<Rsdp> scan_for_rsdp(ByteView area) {
    for (u64 at = 0; at + 20 <= area.size(); at += 16)
        if (auto const found = parse_rsdp(area.from(at).bytes())) return *found;
    return std::nullopt;
}

// The FADT first: it tells whether there is more to look for; SRAT last: it adds to CPUs that the MADT names.
void read_known_tables(PhysicalMap const& map, AcpiInfo& info) {
    u64 dsdt = 0;
    auto const for_each = [&](u32 signature, auto&& action) {
        for (auto const& table : info.tables)
            if (table.signature == signature) action(ByteView(map(table.address, table.length)));
    };
    for_each(signature_of("FACP"), [&](ByteView table) { dsdt = acpi::read_fadt(table, info); });
    for_each(signature_of("APIC"), [&](ByteView table) { acpi::read_madt(table, info); });
    for_each(signature_of("HPET"), [&](ByteView table) { acpi::read_hpet(table, info); });
    for_each(signature_of("MCFG"), [&](ByteView table) { acpi::read_mcfg(table, info); });
    for_each(signature_of("SPCR"), [&](ByteView table) { acpi::read_spcr(table, info); });
    for_each(signature_of("DMAR"), [&](ByteView table) { acpi::read_dmar(table, info); });
    for_each(signature_of("SRAT"), [&](ByteView table) { acpi::read_srat(table, info); });
    if (dsdt != 0) {
        if (auto const table = read_table(map, dsdt))
            info.s5 = find_s5(table->from(header_size).bytes());
        else
            info.rejected_tables++;
    }
    for_each(signature_of("SSDT"), [&](ByteView table) {
        if (!info.s5) info.s5 = find_s5(table.from(header_size).bytes());
    });
}

} // namespace

lib::Result<Rsdp> parse_rsdp(std::span<u8 const> bytes) {
    ByteView const view(bytes);
    constexpr u64 signature = 0x2052'5450'2044'5352; // "RSD PTR "
    if (view.size() < 20 || view.get64(0) != signature || view.part(0, 20).checksum() != 0)
        return lib::fail(Errc::BadFormat);
    Rsdp rsdp{.revision = view.get8(15), .rsdt = view.get32(16), .xsdt = 0};
    u32 const length = view.get32(20);
    // A revision 2 structure whose second checksum is wrong still has a good first half.
    if (rsdp.revision >= 2 && length >= 36 && view.has(0, length) && view.part(0, length).checksum() == 0)
        rsdp.xsdt = view.get64(24);
    if (rsdp.rsdt == 0 && rsdp.xsdt == 0) return lib::fail(Errc::BadFormat);
    return rsdp;
}

lib::Result<Rsdp> find_rsdp(PhysicalMap const& map) {
    // The BIOS data area holds the segment of the EBDA at 0x40e.
    u64 const ebda = u64{ByteView(map({0x40e}, 2)).get16(0)} << 4;
    if (ebda >= 0x8'0000 && ebda <= 0x9'fc00)
        if (auto const found = scan_for_rsdp(ByteView(map({ebda}, 1024)))) return *found;
    if (auto const found = scan_for_rsdp(ByteView(map({0xe'0000}, 0x2'0000)))) return *found;
    return lib::fail(Errc::NotFound);
}

lib::Result<void> read_acpi(Rsdp const& rsdp, PhysicalMap const& map, AcpiInfo& info) {
    std::construct_at(&info);
    info.rsdp_revision = rsdp.revision;
    auto const root = find_root(rsdp, map);
    if (!root) return lib::fail(Errc::NotFound);
    u64 const count = std::min<u64>((root->table.size() - header_size) / root->entry_size, most_root_entries);
    for (u64 i = 0; i < count; i++) {
        u64 const at = header_size + i * root->entry_size;
        u64 const address = root->entry_size == 8 ? root->table.get64(at) : root->table.get32(at);
        if (address == 0) continue;
        auto const table = read_table(map, address);
        if (!table) {
            info.rejected_tables++;
            continue;
        }
        AcpiTable const entry{table->get32(0), static_cast<u32>(table->size()), {address}};
        if (!info.tables.push_back(entry)) info.dropped_entries++;
    }
    read_known_tables(map, info);
    return {};
}

std::optional<AcpiTable> AcpiInfo::find(char const (&signature)[5]) const {
    for (auto const& table : tables)
        if (table.signature == signature_of(signature)) return table;
    return std::nullopt;
}

AcpiOverride AcpiInfo::isa_irq(u8 irq) const {
    for (auto const& entry : overrides)
        if (entry.isa_irq == irq) return entry;
    return {.isa_irq = irq, .shape = {}, .gsi = irq};
}

} // namespace drivers
