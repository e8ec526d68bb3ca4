// SPDX-License-Identifier: MIT
#include "acpi_tables.hpp"

#include <algorithm>

namespace drivers::acpi {
namespace {

using lib::ByteView;

AcpiRegister read_register(ByteView table, u64 at) {
    u8 const space = table.get8(at);
    if (space > static_cast<u8>(AcpiRegister::Space::PciConfig)) return {};
    u8 const access_size = table.get8(at + 3);
    return {.space = static_cast<AcpiRegister::Space>(space),
            .bit_width = table.get8(at + 1),
            .bit_offset = table.get8(at + 2),
            .access_size = access_size <= 4 ? access_size : u8{0}, // nobody has defined others
            .address = table.get64(at + 4)};
}

// The extended field where it is there and set, otherwise the port of ACPI 1.0.
AcpiRegister read_block(ByteView table, u64 extended_at, u64 port_at, u8 port_bytes) {
    AcpiRegister const extended = read_register(table, extended_at);
    bool const is_port_too_high = extended.space == AcpiRegister::Space::SystemIo && extended.address > 0xffff;
    if (extended.is_present() && !is_port_too_high) return extended;
    u32 const port = table.get32(port_at);
    if (port == 0 || port > 0xffff) return {};
    return {.space = AcpiRegister::Space::SystemIo, .bit_width = static_cast<u8>(port_bytes * 8), .address = port};
}

// MPS INTI flags. [acpi/6.5] table 5.26
InterruptShape read_shape(u16 flags) { return {.is_active_low = (flags & 3) == 3, .is_level = (flags >> 2 & 3) == 3}; }

// Walks entries {u8 type, u8 length, ...}: `action` gets each whole one.
template <typename Action> void for_each_entry(ByteView entries, Action&& action) {
    u64 at = 0;
    while (entries.has(at, 2)) {
        u8 const length = entries.get8(at + 1);
        if (length < 2 || !entries.has(at, length)) return;
        action(entries.get8(at), entries.part(at, length));
        at += length;
    }
}

template <typename List, typename Entry> void add(AcpiInfo& info, List& list, Entry const& entry) {
    if (!list.push_back(entry)) info.dropped_entries++;
}

AcpiCpu* find_cpu(AcpiInfo& info, u32 apic_id) {
    auto* const found =
        std::find_if(info.cpus.begin(), info.cpus.end(), [&](auto const& cpu) { return cpu.apic_id == apic_id; });
    return found == info.cpus.end() ? nullptr : found;
}

void add_cpu(AcpiInfo& info, u32 apic_id, u32 uid, u32 flags) {
    bool const is_enabled = (flags & 1) != 0;
    bool const is_online_capable = (flags & 2) != 0;
    if (!is_enabled && !is_online_capable) {
        info.disabled_cpus++;
        return;
    }
    // Firmware may list a CPU both as local APIC and as local x2APIC.
    if (find_cpu(info, apic_id) != nullptr) return;
    add(info, info.cpus, AcpiCpu{.apic_id = apic_id, .acpi_uid = uid, .is_enabled = is_enabled});
}

// Types of the MADT's entries. [acpi/6.5] 5.2.12
enum MadtEntry : u8 {
    LocalApic = 0,
    IoApic = 1,
    InterruptSourceOverride = 2,
    LocalApicAddressOverride = 5,
    LocalX2Apic = 9,
};

void read_madt_entry(u8 type, ByteView entry, AcpiInfo& info) {
    switch (type) {
    case LocalApic:
        // 255 is the broadcast address: no CPU.
        if (entry.size() >= 8 && entry.get8(3) != 0xff) add_cpu(info, entry.get8(3), entry.get8(2), entry.get32(4));
        return;
    case LocalX2Apic:
        if (entry.size() >= 16 && entry.get32(4) != 0xffff'ffff)
            add_cpu(info, entry.get32(4), entry.get32(12), entry.get32(8));
        return;
    case IoApic:
        if (entry.size() >= 12) add(info, info.ioapics, AcpiIoApic{entry.get8(2), entry.get32(8), {entry.get32(4)}});
        return;
    case InterruptSourceOverride:
        if (entry.size() >= 10 && entry.get8(2) == 0) // bus 0: ISA
            add(info, info.overrides, AcpiOverride{entry.get8(3), read_shape(entry.get16(8)), entry.get32(4)});
        return;
    case LocalApicAddressOverride:
        if (entry.size() >= 12) info.local_apic = {entry.get64(4)};
        return;
    default: return; // NMI sources (LINT1 is one on every PC), Itanium's, and what is yet to come
    }
}

void set_domain(AcpiInfo& info, u32 apic_id, u32 domain) {
    if (AcpiCpu* const cpu = find_cpu(info, apic_id)) cpu->domain = domain;
}

} // namespace

u64 read_fadt(ByteView table, AcpiInfo& info) {
    AcpiFadt& fadt = info.fadt;
    fadt.is_present = true;
    fadt.revision = table.get8(8);
    fadt.sci = table.get16(46);
    fadt.smi_command = table.get32(48);
    fadt.acpi_enable = table.get8(52);
    fadt.pm1a_event = read_block(table, 148, 56, table.get8(88));
    fadt.pm1b_event = read_block(table, 160, 60, table.get8(88));
    fadt.pm1a_control = read_block(table, 172, 64, table.get8(89));
    fadt.pm1b_control = read_block(table, 184, 68, table.get8(89));
    fadt.pm_timer = table.get8(91) == 4 || table.size() >= 220 ? read_block(table, 208, 76, 4) : AcpiRegister{};
    fadt.century_register = table.get8(108);
    u32 const flags = table.get32(112);
    fadt.pm_timer_is_32_bit = (flags & 1U << 8) != 0;
    fadt.is_hardware_reduced = (flags & 1U << 20) != 0;
    if ((flags & 1U << 10) != 0 && table.has(116, 13)) {
        fadt.reset = read_register(table, 116);
        fadt.reset_value = table.get8(128);
    }
    if (fadt.is_hardware_reduced) fadt.sleep_control = read_register(table, 244);
    // ACPI 1.0 has no IAPC_BOOT_ARCH: such machines are full PCs.
    if (fadt.revision >= 2) {
        u16 const boot_arch = table.get16(109);
        fadt.has_no_vga = (boot_arch & 4) != 0;
        fadt.has_no_rtc = (boot_arch & 0x20) != 0;
    }
    u64 const extended_dsdt = table.get64(140);
    return extended_dsdt != 0 ? extended_dsdt : table.get32(40);
}

void read_madt(ByteView table, AcpiInfo& info) {
    if (table.size() < 44) return;
    info.local_apic = {table.get32(36)};
    info.has_dual_8259 = (table.get32(40) & 1) != 0;
    for_each_entry(table.from(44), [&](u8 type, ByteView entry) { read_madt_entry(type, entry, info); });
}

void read_hpet(ByteView table, AcpiInfo& info) {
    // IA-PC HPET 1.0a 3.2.4; only memory-mapped ones exist.
    AcpiRegister const base = read_register(table, 40);
    if (table.size() < 56 || base.space != AcpiRegister::Space::SystemMemory || info.hpet.address.value != 0) return;
    info.hpet = {.address = {base.address}, .minimum_tick = table.get16(53), .number = table.get8(52)};
}

void read_mcfg(ByteView table, AcpiInfo& info) {
    for (u64 at = 44; table.has(at, 16); at += 16) {
        AcpiEcam const ecam{{table.get64(at)}, table.get16(at + 8), table.get8(at + 10), table.get8(at + 11)};
        bool const is_sound = ecam.base.value != 0 && ecam.base.is_aligned(lib::MiB) &&
                              ecam.first_bus <= ecam.last_bus && ecam.base.value <= ~u64{0} - 256 * lib::MiB;
        if (is_sound)
            add(info, info.ecams, ecam);
        else
            info.dropped_entries++;
    }
}

void read_spcr(ByteView table, AcpiInfo& info) {
    // [ms/spcr]: 0 and 1 are 16550 and the like, 12h says it with the register's size.
    u8 const interface = table.get8(36);
    if (!table.has(36, 22) || (interface > 1 && interface != 0x12)) return;
    AcpiConsole console;
    console.registers = read_register(table, 40);
    AcpiRegister const& registers = console.registers;
    bool const is_port = registers.space == AcpiRegister::Space::SystemIo;
    if (!registers.is_present() || registers.space == AcpiRegister::Space::PciConfig ||
        (is_port && registers.address > 0xfff8))
        return;
    // Access sizes 1 to 4 are 1 to 8 bytes; 0 leaves it to the register's width.
    u32 const bytes = registers.access_size != 0 ? 1U << (registers.access_size - 1) : registers.bit_width / 8U;
    if (!is_port && (bytes == 2 || bytes == 4)) console.stride = static_cast<u8>(bytes);
    u8 const interrupts = table.get8(52);
    if ((interrupts & 1) != 0 && table.get8(53) < 16)
        console.irq = table.get8(53);
    else if ((interrupts & 2) != 0)
        console.gsi = table.get32(54);
    info.console = console;
}

void read_dmar(ByteView table, AcpiInfo& info) {
    constexpr u8 x2apic_opt_out = 1 << 1; // [intel/vtd] 8.1
    info.opts_out_of_x2apic = table.size() >= 48 && (table.get8(37) & x2apic_opt_out) != 0;
}

void read_srat(ByteView table, AcpiInfo& info) {
    bool const has_wide_domains = table.get8(8) >= 2;
    for_each_entry(table.from(48), [&](u8 type, ByteView entry) {
        if (type == 0 && entry.size() >= 16 && (entry.get32(4) & 1) != 0) {
            u32 const upper = has_wide_domains ? entry.get32(8) & 0xffff'ff00 : 0; // bytes 9 to 11
            set_domain(info, entry.get8(3), upper | entry.get8(2));
        } else if (type == 2 && entry.size() >= 24 && (entry.get32(12) & 1) != 0) {
            set_domain(info, entry.get32(8), entry.get32(4));
        } else if (type == 1 && entry.size() >= 40 && (entry.get32(28) & 1) != 0) {
            u64 const base = entry.get64(8);
            u64 const size = entry.get64(16);
            u32 const domain = has_wide_domains ? entry.get32(2) : entry.get8(2);
            if (size == 0 || base + size < base)
                info.dropped_entries++;
            else
                add(info, info.memory, AcpiMemory{{base}, size, domain, (entry.get32(28) & 2) != 0});
        }
    });
}

} // namespace drivers::acpi

namespace drivers {
namespace {

// AML opcodes. [acpi/6.5] 20.3
enum Aml : u8 {
    ZeroOp = 0x00,
    OneOp = 0x01,
    NameOp = 0x08,
    BytePrefix = 0x0a,
    WordPrefix = 0x0b,
    DWordPrefix = 0x0c,
    PackageOp = 0x12
};

// An integer constant at `at`, which moves behind it; only values that fit SLP_TYP's three bits.
std::optional<u8> read_sleep_type(lib::ByteView aml, u64& at) {
    if (!aml.has(at, 1)) return std::nullopt;
    u8 const prefix = aml.get8(at++);
    u64 width = 0;
    switch (prefix) {
    case ZeroOp:
    case OneOp: return prefix;
    case BytePrefix: width = 1; break;
    case WordPrefix: width = 2; break;
    case DWordPrefix: width = 4; break;
    default: return std::nullopt;
    }
    if (!aml.has(at, width)) return std::nullopt;
    u32 const value = width == 1 ? aml.get8(at) : width == 2 ? aml.get16(at) : aml.get32(at);
    at += width;
    if (value > 7) return std::nullopt;
    return static_cast<u8>(value);
}

} // namespace

std::optional<AcpiSleepType> find_s5(std::span<u8 const> bytes) {
    lib::ByteView const aml(bytes);
    for (u64 at = 1; aml.has(at, 7); at++) {
        if (aml.get32(at) != acpi::signature_of("_S5_")) continue;
        bool const is_named =
            aml.get8(at - 1) == NameOp || (at >= 2 && aml.get8(at - 1) == '\\' && aml.get8(at - 2) == NameOp);
        if (!is_named || aml.get8(at + 4) != PackageOp) continue;
        // The top two bits of PkgLength's first byte say how many bytes follow it; then comes the number of elements.
        u64 value_at = at + 5 + (aml.get8(at + 5) >> 6) + 1;
        u8 const elements = aml.get8(value_at++);
        auto const pm1a = read_sleep_type(aml, value_at);
        if (elements == 0 || !pm1a) continue;
        auto const pm1b = elements > 1 ? read_sleep_type(aml, value_at) : std::nullopt;
        return AcpiSleepType{*pm1a, pm1b.value_or(*pm1a)};
    }
    return std::nullopt;
}

} // namespace drivers
