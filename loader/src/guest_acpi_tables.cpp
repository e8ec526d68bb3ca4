// SPDX-License-Identifier: MIT
#include "sum_of_bytes.hpp"

#include <lib/bits.hpp>
#include <lib/platform_layout.hpp>
#include <loader/aml.hpp>
#include <loader/guest_acpi_tables.hpp>

namespace loader {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
namespace {

using Signature = std::array<char, 4>;

struct [[gnu::packed]] TableHeader { // [acpi] 5.2.6
    Signature signature;
    u32 length = 0;
    u8 revision = 0;
    u8 checksum = 0;
    std::array<char, 6> oem_id{'M', 'U', 'L', 'L', 'N', ' '};
    std::array<char, 8> oem_table_id{'M', 'U', 'L', 'L', 'I', 'O', 'N', ' '};
    u32 oem_revision = 1;
    std::array<char, 4> creator_id{'M', 'L', 'L', 'N'};
    u32 creator_revision = 1;
};
static_assert(sizeof(TableHeader) == 36);

struct [[gnu::packed]] Rsdp { // [acpi] 5.2.5.3
    std::array<char, 8> signature{'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '};
    u8 checksum = 0;
    std::array<char, 6> oem_id{'M', 'U', 'L', 'L', 'N', ' '};
    u8 revision = 2;
    u32 rsdt = 0;
    u32 length = 36;
    u64 xsdt = 0;
    u8 extended_checksum = 0;
    std::array<u8, 3> reserved{};
};
static_assert(sizeof(Rsdp) == 36);
constexpr std::size_t rsdp_first_part = 20;

struct [[gnu::packed]] Facs { // [acpi] 5.2.10
    Signature signature{'F', 'A', 'C', 'S'};
    u32 length = 64;
    u32 hardware_signature = 0, waking_vector = 0, global_lock = 0, flags = 0;
    u64 x_waking_vector = 0;
    u8 version = 2;
    std::array<u8, 31> reserved{};
};
static_assert(sizeof(Facs) == 64);

struct [[gnu::packed]] GenericAddress { // [acpi] 5.2.3.2
    u8 space = 0;
    u8 bit_width = 0;
    u8 bit_offset = 0;
    u8 access_size = 0;
    u64 address = 0;
};
constexpr GenericAddress io_register(u64 port, u8 bits) {
    return {1, bits, 0, static_cast<u8>(bits == 32 ? 3 : bits / 8), port};
}

struct [[gnu::packed]] Fadt { // [acpi] 5.2.9
    TableHeader header{{'F', 'A', 'C', 'P'}, 0, 6};
    u32 firmware_ctrl = 0;
    u32 dsdt = 0;
    u8 reserved1 = 0;
    u8 preferred_pm_profile = 4; // enterprise server
    u16 sci_int = lib::layout::sci_gsi;
    u32 smi_cmd = 0; // always in ACPI mode
    u8 acpi_enable = 0, acpi_disable = 0, s4bios_req = 0, pstate_cnt = 0;
    u32 pm1a_evt_blk = lib::layout::pm1a_evt;
    u32 pm1b_evt_blk = 0;
    u32 pm1a_cnt_blk = lib::layout::pm1a_cnt;
    u32 pm1b_cnt_blk = 0;
    u32 pm2_cnt_blk = 0;
    u32 pm_tmr_blk = lib::layout::pm_tmr;
    u32 gpe0_blk = 0, gpe1_blk = 0;
    u8 pm1_evt_len = 4, pm1_cnt_len = 2, pm2_cnt_len = 0, pm_tmr_len = 4;
    u8 gpe0_blk_len = 0, gpe1_blk_len = 0, gpe1_base = 0, cst_cnt = 0;
    u16 p_lvl2_lat = 0xfff, p_lvl3_lat = 0xfff; // no C2, no C3
    u16 flush_size = 0, flush_stride = 0;
    u8 duty_offset = 0, duty_width = 0, day_alrm = 0, mon_alrm = 0;
    u8 century = 0x32;
    u16 iapc_boot_arch = 0;
    u8 reserved2 = 0;
    u32 flags = 0;
    GenericAddress reset_reg = io_register(lib::layout::reset_control_port, 8);
    u8 reset_value = lib::layout::reset_control_value;
    u16 arm_boot_arch = 0;
    u8 minor_version = 3;
    u64 x_firmware_ctrl = 0; // zero while firmware_ctrl is not
    u64 x_dsdt = 0;
    GenericAddress x_pm1a_evt_blk = io_register(lib::layout::pm1a_evt, 32);
    GenericAddress x_pm1b_evt_blk{};
    GenericAddress x_pm1a_cnt_blk = io_register(lib::layout::pm1a_cnt, 16);
    GenericAddress x_pm1b_cnt_blk{}, x_pm2_cnt_blk{};
    GenericAddress x_pm_tmr_blk = io_register(lib::layout::pm_tmr, 32);
    GenericAddress x_gpe0_blk{}, x_gpe1_blk{}, sleep_control_reg{}, sleep_status_reg{};
    std::array<char, 8> hypervisor_vendor{'M', 'u', 'l', 'l', 'i', 'o', 'n', '\0'};
};
static_assert(sizeof(Fadt) == 276);

constexpr u16 LEGACY_DEVICES = 1 << 0,
              VGA_NOT_PRESENT = 1 << 2; // [acpi] table 5.11; no 8042 (bit 1), a CMOS RTC (bit 5)
constexpr u32 WBINVD = 1 << 0, PROC_C1 = 1 << 2, SLP_BUTTON = 1 << 5, TMR_VAL_EXT = 1 << 8,
              RESET_REG_SUP = 1 << 10; // [acpi] table 5.10; SLP_BUTTON: there is none in the fixed registers

struct [[gnu::packed]] MadtStart { // [acpi] 5.2.12
    TableHeader header{{'A', 'P', 'I', 'C'}, 0, 5};
    u32 local_apic_address = lib::layout::local_apic_base;
    u32 flags = 1; // PCAT_COMPAT: there is an 8259 pair
};
struct [[gnu::packed]] MadtLocalApic {
    u8 type = 0, length = 8, uid = 0, apic_id = 0;
    u32 flags = 1; // enabled
};
struct [[gnu::packed]] MadtLocalX2Apic {
    u8 type = 9, length = 16;
    u16 reserved = 0;
    u32 apic_id = 0;
    u32 flags = 1;
    u32 uid = 0;
};
struct [[gnu::packed]] MadtIoApic {
    u8 type = 1, length = 12, id = 0, reserved = 0;
    u32 address = lib::layout::ioapic_base;
    u32 gsi_base = 0;
};
struct [[gnu::packed]] MadtOverride {
    u8 type = 2, length = 10, bus = 0, source = 0;
    u32 gsi = 0;
    u16 flags = 0;
};
struct [[gnu::packed]] MadtLocalNmi {
    u8 type = 4, length = 6, uid = 0xff;
    u16 flags = 0;
    u8 lint = 1;
};
struct [[gnu::packed]] MadtLocalX2Nmi {
    u8 type = 10, length = 12;
    u16 flags = 0;
    u32 uid = ~0U;
    u8 lint = 1;
    std::array<u8, 3> reserved{};
};
static_assert(sizeof(MadtLocalApic) == 8 && sizeof(MadtLocalX2Apic) == 16 && sizeof(MadtIoApic) == 12 &&
              sizeof(MadtOverride) == 10 && sizeof(MadtLocalNmi) == 6 && sizeof(MadtLocalX2Nmi) == 12);
constexpr u16 active_high_level = 0x1 | 0x3 << 2;
constexpr u32 first_x2apic_id = 255; // 255 is the broadcast id of an xAPIC

struct [[gnu::packed]] Hpet { // [intel/hpet] 3.2.4
    TableHeader header{{'H', 'P', 'E', 'T'}, 0, 1};
    u32 event_timer_block_id = lib::layout::hpet_id;
    GenericAddress base{0, 0, 0, 0, lib::layout::hpet_base};
    u8 number = 0;
    u16 shortest_period = 1719; // ticks, 120 us: shorter ones coalesce
    u8 page_protection = 0;
};
static_assert(sizeof(Hpet) == 56);

struct [[gnu::packed]] Mcfg { // [pci/firmware] 4.1.2
    TableHeader header{{'M', 'C', 'F', 'G'}, 0, 1};
    u64 reserved1 = 0;
    u64 base = lib::layout::ecam_base;
    u16 segment_group = 0;
    u8 first_bus = 0, last_bus = lib::layout::ecam_buses - 1;
    u32 reserved2 = 0;
};
static_assert(sizeof(Mcfg) == 60);

// Writes tables one behind the other and keeps their checksums.
class TableWriter {
public:
    TableWriter(lib::GuestMemory const& memory, GuestPhys start, GuestPhys end)
        : memory_(memory), at_(start), end_(end) {}

    lib::Result<GuestPhys> begin(u64 alignment = 16) {
        at_ = at_.align_up(alignment);
        start_ = at_;
        sum_ = 0;
        return start_;
    }
    template <typename T> lib::Result<void> put(T const& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        if (at_ > end_ || end_ - at_ < sizeof(T)) return lib::fail(lib::Errc::OutOfRange);
        std::span const bytes(reinterpret_cast<u8 const*>(&value), sizeof(T)); // no copy: the stack is small
        sum_ = static_cast<u8>(sum_ + sum_of_bytes(bytes));
        auto const done = memory_.write(at_, bytes);
        at_ += sizeof(T);
        return done;
    }
    // Length and checksum of a table whose header was put with both zero.
    lib::Result<void> end() {
        u32 const length = static_cast<u32>(at_ - start_);
        for (u32 rest = length; rest != 0; rest >>= 8)
            sum_ = static_cast<u8>(sum_ + rest);
        if (auto const done = memory_.write(start_ + offsetof(TableHeader, length), length); !done) return done;
        return memory_.write(start_ + offsetof(TableHeader, checksum), static_cast<u8>(-sum_));
    }

private:
    lib::GuestMemory const& memory_;
    GuestPhys at_, end_, start_{};
    u8 sum_ = 0;
};

template <typename T> u8 checksum_of(T const& value, std::size_t count = sizeof(T)) {
    return static_cast<u8>(-sum_of_bytes(std::span(reinterpret_cast<u8 const*>(&value), sizeof(T)).first(count)));
}

constexpr auto s5_package = aml::name(aml::path("\\_S5_"), aml::package(aml::byte_const(lib::layout::s5_sleep_type),
                                                                        aml::byte_const(lib::layout::s5_sleep_type),
                                                                        aml::byte_const(0), aml::byte_const(0)));
// All that the LPC bridge decodes: Linux gives up a resource that covers only a part of it.
constexpr auto acpi_ports = aml::io_ports(lib::layout::pm1a_evt, lib::layout::acpi_ports_size);
constexpr auto devices =
    aml::scope(aml::path("\\_SB_"),
               aml::device(aml::path("COM1"), aml::name(aml::path("_HID"), aml::eisa_id("PNP0501")),
                           aml::name(aml::path("_UID"), aml::byte_const(0)),
                           aml::name(aml::path("_CRS"), aml::resources(aml::io_ports(0x3f8, 8), aml::irq(4)))),
               aml::device(aml::path("RTC_"), aml::name(aml::path("_HID"), aml::eisa_id("PNP0B00")),
                           aml::name(aml::path("_CRS"), aml::resources(aml::io_ports(0x70, 4), aml::irq(8)))),
               aml::device(aml::path("TIMR"), aml::name(aml::path("_HID"), aml::eisa_id("PNP0100")),
                           aml::name(aml::path("_CRS"), aml::resources(aml::io_ports(0x40, 4), aml::irq(0)))),
               aml::device(aml::path("HPET"), aml::name(aml::path("_HID"), aml::eisa_id("PNP0103")),
                           aml::name(aml::path("_CRS"), aml::resources(aml::memory32(lib::layout::hpet_base, 0x400)))),
               aml::device(aml::path("PIC_"), aml::name(aml::path("_HID"), aml::eisa_id("PNP0000")),
                           aml::name(aml::path("_CRS"), aml::resources(aml::io_ports(0x20, 2), aml::io_ports(0xa0, 2),
                                                                       aml::io_ports(0x4d0, 2), aml::irq(2)))),
               aml::device(aml::path("SYSR"), aml::name(aml::path("_HID"), aml::eisa_id("PNP0C02")),
                           aml::name(aml::path("_CRS"),
                                     aml::resources(aml::io_ports(0x61, 1), aml::io_ports(0x80, 1),
                                                    aml::io_ports(0x92, 1), aml::io_ports(0xed, 1), acpi_ports,
                                                    aml::memory32(lib::layout::ecam_base, lib::layout::ecam_size)))));

// _PRT: which line each interrupt pin of each slot drives. [acpi] 6.2.13
constexpr auto interrupt_routes = [] {
    constexpr u32 slots = 32, pins = 4;
    constexpr auto route = [](u32 slot, u32 pin) {
        return aml::package(aml::dword_const(slot << 16 | 0xffff), aml::byte_const(static_cast<u8>(pin)),
                            aml::byte_const(0), aml::byte_const(static_cast<u8>(lib::layout::pci_gsi(slot, pin))));
    };
    aml::Bytes<slots * pins * route(0, 0).size()> all{};
    std::size_t at = 0;
    for (u32 slot = 0; slot < slots; slot++)
        for (u32 pin = 0; pin < pins; pin++)
            for (u8 const byte : route(slot, pin))
                all[at++] = byte;
    return aml::package_of(slots * pins, all);
}();

// The root of the PCI buses.
constexpr auto pci_root = aml::scope(
    aml::path("\\_SB_"),
    aml::device(aml::path("PCI0"), aml::name(aml::path("_HID"), aml::eisa_id("PNP0A08")),
                aml::name(aml::path("_CID"), aml::eisa_id("PNP0A03")), aml::name(aml::path("_UID"), aml::byte_const(0)),
                aml::name(aml::path("_BBN"), aml::byte_const(0)), aml::name(aml::path("_PRT"), interrupt_routes)));

// What it passes on. `high_window`: descriptors of the window above RAM, if there is one.
template <std::size_t... N> constexpr auto pci_root_resources(aml::Bytes<N> const&... high_window) {
    using lib::layout::pci_low_window, lib::layout::pci_config_address;
    constexpr u64 after_configuration = 0xd00;
    constexpr aml::Bytes<2> root_and_two_names{'\\', 0x2e}; // [acpi] 20.2.2
    return aml::scope(
        aml::join(root_and_two_names, aml::path("_SB_"), aml::path("PCI0")),
        aml::name(aml::path("_CRS"),
                  aml::resources(
                      aml::passed<2>(aml::Passed::Buses, 0, lib::layout::ecam_buses),
                      aml::io_ports(pci_config_address, 8), aml::passed<2>(aml::Passed::Ports, 0, pci_config_address),
                      aml::passed<2>(aml::Passed::Ports, after_configuration, 0x1'0000 - after_configuration),
                      aml::passed<4>(aml::Passed::Memory, pci_low_window.base, pci_low_window.size), high_window...)));
}

// Each processor opens the scope anew, so that no length depends on how many there are.
constexpr auto processor(u32 uid) {
    constexpr char digits[] = "0123456789ABCDEF";
    char const number[5] = {'C', digits[uid >> 8 & 0xf], digits[uid >> 4 & 0xf], digits[uid & 0xf], '\0'};
    return aml::scope(aml::path("\\_SB_"),
                      aml::device(aml::path(number), aml::name(aml::path("_HID"), aml::string("ACPI0007")),
                                  aml::name(aml::path("_UID"), aml::dword_const(uid)),
                                  aml::name(aml::path("_STA"), aml::byte_const(0x0f))));
}
constexpr u32 max_processors = 0x1000; // three digits in a name

lib::Result<GuestPhys> write_dsdt(TableWriter& writer, AcpiConfig const& config) {
    GuestPhys const start = TRY(writer.begin());
    TRY(writer.put(TableHeader{{'D', 'S', 'D', 'T'}, 0, 2}));
    TRY(writer.put(s5_package));
    TRY(writer.put(devices));
    auto const high = lib::layout::pci_high_window(config.ram_above_4g, config.physical_address_bits);
    TRY(writer.put(pci_root));
    if (high.size != 0)
        TRY(writer.put(pci_root_resources(aml::passed<8>(aml::Passed::Memory, high.base, high.size))));
    else
        TRY(writer.put(pci_root_resources()));
    for (u32 uid = 0; uid < config.vcpu_count; uid++)
        TRY(writer.put(processor(uid)));
    TRY(writer.end());
    return start;
}

lib::Result<GuestPhys> write_madt(TableWriter& writer, u32 vcpu_count) {
    GuestPhys const start = TRY(writer.begin());
    TRY(writer.put(MadtStart{}));
    for (u32 id = 0; id < vcpu_count && id < first_x2apic_id; id++)
        TRY(writer.put(MadtLocalApic{.uid = static_cast<u8>(id), .apic_id = static_cast<u8>(id)}));
    for (u32 id = first_x2apic_id; id < vcpu_count; id++)
        TRY(writer.put(MadtLocalX2Apic{.apic_id = id, .uid = id}));
    TRY(writer.put(MadtIoApic{}));
    TRY(writer.put(MadtOverride{.source = 0, .gsi = lib::layout::pit_gsi}));
    TRY(writer.put(
        MadtOverride{.source = lib::layout::sci_gsi, .gsi = lib::layout::sci_gsi, .flags = active_high_level}));
    TRY(writer.put(MadtLocalNmi{}));
    if (vcpu_count > first_x2apic_id) TRY(writer.put(MadtLocalX2Nmi{}));
    TRY(writer.end());
    return start;
}

lib::Result<GuestPhys> write_fadt(TableWriter& writer, GuestPhys facs, GuestPhys dsdt) {
    Fadt fadt{};
    fadt.firmware_ctrl = static_cast<u32>(facs.value);
    fadt.dsdt = static_cast<u32>(dsdt.value);
    fadt.x_dsdt = dsdt.value;
    fadt.iapc_boot_arch = LEGACY_DEVICES | VGA_NOT_PRESENT;
    fadt.flags = WBINVD | PROC_C1 | SLP_BUTTON | TMR_VAL_EXT | RESET_REG_SUP;
    GuestPhys const start = TRY(writer.begin());
    TRY(writer.put(fadt));
    TRY(writer.end());
    return start;
}

lib::Result<GuestPhys> write_hpet(TableWriter& writer) {
    GuestPhys const start = TRY(writer.begin());
    TRY(writer.put(Hpet{}));
    TRY(writer.end());
    return start;
}

lib::Result<GuestPhys> write_mcfg(TableWriter& writer) {
    GuestPhys const start = TRY(writer.begin());
    TRY(writer.put(Mcfg{}));
    TRY(writer.end());
    return start;
}

template <typename Pointer>
lib::Result<GuestPhys> write_root(TableWriter& writer, Signature signature, std::span<GuestPhys const> tables) {
    GuestPhys const start = TRY(writer.begin());
    TRY(writer.put(TableHeader{signature, 0, 1}));
    for (GuestPhys const table : tables)
        TRY(writer.put(static_cast<Pointer>(table.value)));
    TRY(writer.end());
    return start;
}

} // namespace

lib::Result<GuestPhys> write_acpi_tables(lib::GuestMemory const& memory, AcpiConfig const& config) {
    if (config.vcpu_count == 0 || config.vcpu_count > max_processors) return lib::fail(lib::Errc::OutOfRange);
    GuestPhys const rsdp_at = bios_area;
    GuestPhys const facs_at = bios_area + 64; // aligned to 64
    TRY(memory.write(facs_at, Facs{}));

    TableWriter writer(memory, acpi_table_area, bios_area);
    GuestPhys const dsdt = TRY(write_dsdt(writer, config));
    GuestPhys const fadt = TRY(write_fadt(writer, facs_at, dsdt));
    GuestPhys const madt = TRY(write_madt(writer, config.vcpu_count));
    GuestPhys const hpet = TRY(write_hpet(writer));
    GuestPhys const mcfg = TRY(write_mcfg(writer));
    std::array<GuestPhys, 4> const tables{fadt, madt, hpet, mcfg};
    GuestPhys const rsdt = TRY(write_root<u32>(writer, {'R', 'S', 'D', 'T'}, tables));
    GuestPhys const xsdt = TRY(write_root<u64>(writer, {'X', 'S', 'D', 'T'}, tables));

    Rsdp rsdp{};
    rsdp.rsdt = static_cast<u32>(rsdt.value);
    rsdp.xsdt = xsdt.value;
    rsdp.checksum = checksum_of(rsdp, rsdp_first_part);
    rsdp.extended_checksum = checksum_of(rsdp);
    TRY(memory.write(rsdp_at, rsdp));
    return rsdp_at;
}

} // namespace loader
