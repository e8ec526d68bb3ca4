#pragma once
// Where a guest finds the virtual platform's hardware: what the device models answer at and what the ACPI tables
// tell the guest must be the same.
#include <lib/types.hpp>

namespace lib::layout {

inline constexpr u64 pm1a_evt = 0x600, pm1a_cnt = 0x604, pm_tmr = 0x608; // I/O ports [acpi] 4.8.3
inline constexpr u32 sci_gsi = 9;
inline constexpr u8 s5_sleep_type = 0; // what \_S5 says
inline constexpr u64 reset_control_port = 0xcf9;
inline constexpr u8 reset_control_value = 0x06;
inline constexpr u64 ioapic_base = 0xfec0'0000;
inline constexpr u32 pit_gsi = 2;
inline constexpr u64 hpet_base = 0xfed0'0000;
// [intel/hpet] 2.3.4: revision 1, three comparators, 64 bits, legacy replacement, Intel's; a tick in femtoseconds.
inline constexpr u32 hpet_id = 0x8086'a201, hpet_period_fs = 69'841'279;

} // namespace lib::layout
