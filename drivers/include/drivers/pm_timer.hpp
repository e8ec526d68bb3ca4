// SPDX-License-Identifier: MIT
#pragma once
// The ACPI power management timer: 3.579545 MHz, 24 or 32 bits. [acpi/6.5] 4.8.2.1
// Not supported: the old PIIX4 chips whose timer must be read three times.
#include <lib/types.hpp>

namespace drivers {

using lib::u16;
using lib::u32;
using lib::u64;

class PmTimer {
public:
    static constexpr u32 hz = 3'579'545;

    static constexpr PmTimer at_port(u16 port, bool is_32_bit) { return PmTimer(port, false, is_32_bit); }
    // `address` is that of an uncached mapping.
    static constexpr PmTimer at_memory(u64 address, bool is_32_bit) { return PmTimer(address, true, is_32_bit); }
    u32 mask() const { return is_32_bit_ ? 0xffff'ffff : 0x00ff'ffff; }
    u32 read() const;

private:
    constexpr PmTimer(u64 address, bool is_memory, bool is_32_bit)
        : address_(address), is_memory_(is_memory), is_32_bit_(is_32_bit) {}
    u64 address_;
    bool is_memory_;
    bool is_32_bit_;
};

} // namespace drivers
