// SPDX-License-Identifier: MIT
#pragma once
// What Mullion needs to know from the machine's ACPI tables, as plain values. [acpi/6.5] 5.2
// Tables come from firmware and are checked like any foreign input: lengths, checksums, bounds; a table that is not
// sound counts as absent. Not supported: running AML (only the _S5_ package is looked for), hot-plug, the wakeup
// mailbox, Itanium's entries of the MADT.
#include <lib/delegate.hpp>
#include <lib/fixed_vector.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <optional>
#include <span>

namespace drivers {

using lib::HostPhys;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// Physical memory as bytes; an empty span where it cannot be read whole. Lives as long as the machine.
using PhysicalMap = lib::Delegate<std::span<u8 const>(HostPhys at, u64 size)>;

struct AcpiRegister { // Generic Address Structure, 5.2.3.2
    enum class Space : u8 { SystemMemory = 0, SystemIo = 1, PciConfig = 2 };
    Space space = Space::SystemIo;
    u8 bit_width = 0;
    u8 bit_offset = 0;
    u8 access_size = 0; // 0 undefined, 1 to 4: 8 to 64 bits
    u64 address = 0;
    bool is_present() const { return address != 0; }
    friend bool operator==(AcpiRegister const&, AcpiRegister const&) = default;
};

struct AcpiCpu {
    static constexpr u32 no_domain = 0xffff'ffff;
    u32 apic_id;
    u32 acpi_uid;
    u32 domain = no_domain;  // proximity domain: the NUMA node
    bool is_enabled = false; // otherwise it may be brought online later
};

struct AcpiIoApic {
    u8 id;
    u32 gsi_base;
    HostPhys address;
};

// How an interrupt input behaves; the bus's own way is resolved (ISA: high, edge).
struct InterruptShape {
    bool is_active_low = false;
    bool is_level = false;
    friend bool operator==(InterruptShape const&, InterruptShape const&) = default;
};

struct AcpiOverride { // an ISA interrupt that is not the GSI of the same number, or not high and edge
    u8 isa_irq;
    InterruptShape shape;
    u32 gsi;
};

struct AcpiMemory {
    HostPhys base;
    u64 size;
    u32 domain;
    bool is_hot_pluggable;
};

struct AcpiEcam {  // PCI Express configuration space of some buses
    HostPhys base; // of bus 0, as the table says, also when first_bus is not 0
    u16 segment;
    u8 first_bus;
    u8 last_bus;
};

struct AcpiTable {
    u32 signature;
    u32 length;
    HostPhys address;
};

struct AcpiHpet {
    HostPhys address; // 0: there is none
    u16 minimum_tick;
    u8 number;
};

struct AcpiSleepType { // what goes into SLP_TYP of PM1a and PM1b
    u8 pm1a;
    u8 pm1b;
};

struct AcpiConsole { // a 16550-compatible UART
    AcpiRegister registers;
    u8 stride = 1;          // bytes from one register to the next
    std::optional<u8> irq;  // of the ISA bus
    std::optional<u32> gsi; // else
    friend bool operator==(AcpiConsole const&, AcpiConsole const&) = default;
};

struct AcpiFadt {
    bool is_present = false;
    u8 revision = 0;
    u16 sci = 9;
    u32 smi_command = 0; // a port; 0: ACPI mode cannot be switched
    u8 acpi_enable = 0;
    AcpiRegister pm1a_event, pm1b_event;
    AcpiRegister pm1a_control, pm1b_control;
    AcpiRegister pm_timer;
    bool pm_timer_is_32_bit = false;
    AcpiRegister reset; // present only if the flag says that it works
    u8 reset_value = 0;
    AcpiRegister sleep_control; // of hardware-reduced machines
    u8 century_register = 0;    // in the RTC's CMOS; 0: none
    bool has_no_vga = false;
    bool has_no_rtc = false;
    bool is_hardware_reduced = false;
};

struct AcpiInfo {
    u8 rsdp_revision = 0;
    HostPhys local_apic{0xfee0'0000};
    bool has_dual_8259 = true;
    AcpiFadt fadt;
    AcpiHpet hpet{};
    std::optional<AcpiSleepType> s5;
    std::optional<AcpiConsole> console; // that firmware uses, by SPCR
    bool opts_out_of_x2apic = false;    // DMAR
    u32 disabled_cpus = 0;
    u32 rejected_tables = 0; // bad length, checksum or address
    u32 dropped_entries = 0; // more than there is room for
    lib::FixedVector<AcpiCpu, 512> cpus;
    lib::FixedVector<AcpiIoApic, 16> ioapics;
    lib::FixedVector<AcpiOverride, 24> overrides;
    lib::FixedVector<AcpiMemory, 64> memory;
    lib::FixedVector<AcpiEcam, 16> ecams;
    lib::FixedVector<AcpiTable, 64> tables; // every sound table, for the drivers of IOMMUs and others

    // The first table of this signature; fetch its bytes through the same PhysicalMap.
    std::optional<AcpiTable> find(char const (&signature)[5]) const;
    // Where an ISA interrupt arrives.
    AcpiOverride isa_irq(u8 irq) const;
};

struct Rsdp {
    u8 revision;
    u32 rsdt;
    u64 xsdt; // 0: none
};

// Reads an RSDP of either revision, as Multiboot2's tags copy it.
lib::Result<Rsdp> parse_rsdp(std::span<u8 const> bytes);
// Looks for it where a BIOS leaves it: the first KiB of the EBDA and 0xe0000 to 0xfffff. 5.2.5.1
lib::Result<Rsdp> find_rsdp(PhysicalMap const& map);
// Fills `info`, which is large: keep it off small stacks. NotFound without a sound root table; any other table is
// optional.
lib::Result<void> read_acpi(Rsdp const& rsdp, PhysicalMap const& map, AcpiInfo& info);

// Looks for Name(_S5_, Package(){a, b, ...}) in AML; only constants are understood.
std::optional<AcpiSleepType> find_s5(std::span<u8 const> aml);

} // namespace drivers
