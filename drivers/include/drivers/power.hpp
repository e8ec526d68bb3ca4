// SPDX-License-Identifier: MIT
#pragma once
// Turning the machine off and starting it again. [acpi/6.5] 4.8.3, 7.4.2
// Usable from a panic: no locks, no memory, every wait bounded. Each function returns if the machine did not obey.
// Not supported: sleep states other than S5, _PTS and other AML methods.
#include <drivers/acpi.hpp>
#include <lib/delegate.hpp>

namespace drivers {

// The virtual address of an uncached mapping of these registers, 0 if there is none.
using MmioMap = lib::Delegate<u64(HostPhys at, u64 size)>;

class Power {
public:
    // Keeps what it needs; registers in memory are mapped here, not in a panic.
    Power(AcpiInfo const& info, MmioMap const& map);

    bool can_power_off() const;
    void power_off() const; // S5
    // FADT's reset register, then port 0xcf9, then the keyboard controller. The caller has the triple fault left.
    void reset() const;

private:
    struct Register {
        AcpiRegister where;
        u64 mapped = 0;
        bool is_usable() const {
            return where.is_present() && (where.space != AcpiRegister::Space::SystemMemory || mapped != 0);
        }
        u16 read16() const;
        void write16(u16 value) const;
        void write8(u8 value) const;
    };
    static Register prepare(AcpiRegister const& where, MmioMap const& map);
    void enter_acpi_mode() const;
    static void set_sleep_type(Register const& control, u8 type, bool enable);

    Register pm1a_event_, pm1a_control_, pm1b_control_, sleep_control_, reset_;
    std::optional<AcpiSleepType> s5_;
    u32 smi_command_;
    u8 acpi_enable_;
    u8 reset_value_;
};

} // namespace drivers
