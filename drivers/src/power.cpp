// SPDX-License-Identifier: MIT
#include <drivers/power.hpp>

#include <lib/x86/instructions.hpp>

namespace drivers {
namespace {

namespace x86 = lib::x86;
using Space = AcpiRegister::Space;

constexpr u16 PM1_CNT_SCI_EN = 1 << 0;
constexpr u16 PM1_CNT_SLP_TYP = 7 << 10;
constexpr u16 PM1_CNT_SLP_EN = 1 << 13;
constexpr u16 PM1_STS_WAK = 1 << 15;
constexpr u8 SLEEP_CONTROL_EN = 1 << 5;
constexpr u16 delay_port = 0x80; // POST codes: an access takes about 1 us and does nothing

void delay_milliseconds(u32 count) {
    for (u32 i = 0; i < count * 1000; i++)
        x86::in8(delay_port);
}

// Configuration space the old way; the address holds device, function and offset on bus 0. [acpi/6.5] 5.2.3.2
void write_pci_config8(u64 address, u8 value) {
    auto const device = static_cast<u32>(address >> 32 & 0x1f);
    auto const function = static_cast<u32>(address >> 16 & 7);
    auto const offset = static_cast<u32>(address & 0xff);
    x86::out32(0xcf8, 0x8000'0000 | device << 11 | function << 8 | (offset & 0xfc));
    x86::out8(static_cast<u16>(0xcfc + (offset & 3)), value);
}

void reset_by_pci_control() {
    constexpr u16 RST_CNT = 0xcf9;
    x86::out8(RST_CNT, 0x02); // a hard reset, which the edge of bit 2 starts
    x86::out8(RST_CNT, 0x06);
}

void reset_by_keyboard_controller() {
    constexpr u16 status_port = 0x64;
    constexpr u8 input_full = 1 << 1;
    constexpr u8 pulse_reset_line = 0xfe;
    for (unsigned i = 0; i < 10'000 && (x86::in8(status_port) & input_full) != 0; i++) {
    }
    x86::out8(status_port, pulse_reset_line);
}

} // namespace

u16 Power::Register::read16() const {
    if (!is_usable()) return 0;
    return where.space == Space::SystemIo ? x86::in16(static_cast<u16>(where.address)) : x86::load16(mapped);
}

void Power::Register::write16(u16 value) const {
    if (!is_usable()) return;
    if (where.space == Space::SystemIo)
        x86::out16(static_cast<u16>(where.address), value);
    else
        x86::store16(mapped, value);
}

void Power::Register::write8(u8 value) const {
    if (!is_usable()) return;
    switch (where.space) {
    case Space::SystemIo: x86::out8(static_cast<u16>(where.address), value); return;
    case Space::SystemMemory: x86::store8(mapped, value); return;
    case Space::PciConfig: write_pci_config8(where.address, value); return;
    }
}

Power::Register Power::prepare(AcpiRegister const& where, MmioMap const& map) {
    if (!where.is_present() || (where.space == Space::SystemIo && where.address > 0xfffe)) return {};
    bool const is_memory = where.space == Space::SystemMemory;
    return {where, is_memory && map ? map({where.address}, 4) : 0};
}

Power::Power(AcpiInfo const& info, MmioMap const& map)
    : pm1a_event_(prepare(info.fadt.pm1a_event, map)), pm1a_control_(prepare(info.fadt.pm1a_control, map)),
      pm1b_control_(prepare(info.fadt.pm1b_control, map)), sleep_control_(prepare(info.fadt.sleep_control, map)),
      reset_(prepare(info.fadt.reset, map)), s5_(info.s5), smi_command_(info.fadt.smi_command),
      acpi_enable_(info.fadt.acpi_enable), reset_value_(info.fadt.reset_value) {}

bool Power::can_power_off() const { return s5_ && (pm1a_control_.is_usable() || sleep_control_.is_usable()); }

// Firmware owns the PM registers until SCI_EN is set, and many boards ignore SLP_EN before.
void Power::enter_acpi_mode() const {
    if (smi_command_ == 0 || smi_command_ > 0xffff || acpi_enable_ == 0) return;
    if ((pm1a_control_.read16() & PM1_CNT_SCI_EN) != 0) return;
    x86::out8(static_cast<u16>(smi_command_), acpi_enable_);
    for (unsigned i = 0; i < 300 && (pm1a_control_.read16() & PM1_CNT_SCI_EN) == 0; i++)
        delay_milliseconds(1);
}

void Power::set_sleep_type(Register const& control, u8 type, bool enable) {
    auto const kept = static_cast<u16>(control.read16() & ~(PM1_CNT_SLP_TYP | PM1_CNT_SLP_EN));
    control.write16(static_cast<u16>(kept | type << 10 | (enable ? PM1_CNT_SLP_EN : 0)));
}

void Power::power_off() const {
    if (!can_power_off()) return;
    if (!pm1a_control_.is_usable()) {
        sleep_control_.write8(static_cast<u8>(s5_->pm1a << 2 | SLEEP_CONTROL_EN));
        delay_milliseconds(100);
        return;
    }
    enter_acpi_mode();
    pm1a_event_.write16(PM1_STS_WAK); // write 1 to clear: an old wake event would wake it again
    set_sleep_type(pm1a_control_, s5_->pm1a, false);
    set_sleep_type(pm1b_control_, s5_->pm1b, false);
    set_sleep_type(pm1a_control_, s5_->pm1a, true);
    set_sleep_type(pm1b_control_, s5_->pm1b, true);
    delay_milliseconds(100);
}

void Power::reset() const {
    if (reset_.is_usable()) {
        reset_.write8(reset_value_);
        delay_milliseconds(20);
    }
    reset_by_pci_control();
    delay_milliseconds(20);
    reset_by_keyboard_controller();
    delay_milliseconds(20);
}

} // namespace drivers
