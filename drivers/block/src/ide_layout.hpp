// SPDX-License-Identifier: MIT
#pragma once
// Registers of a bus-master IDE controller and its drives. [bmide/1.0] 2, [ata/7-vol2] 5
#include <block/ide.hpp>
#include <lib/bits.hpp>

namespace block::ide {

// Of the command block. BARs 0 and 2.
inline constexpr u32 DATA = 0, ERROR = 1, COUNT = 2, LBA_LOW = 3, LBA_MID = 4, LBA_HIGH = 5, DEVICE = 6, STATUS = 7,
                     COMMAND = 7;
// Of the bus master, for each channel. BAR 4
inline constexpr u32 master_command = 0, master_status = 2, master_table = 4;

struct DriveStatus : lib::Reg<DriveStatus, u8> {
    using ERR = lib::Bits<u8, 0>;
    using DRQ = lib::Bits<u8, 3>;
    using DF = lib::Bits<u8, 5>;
    using DRDY = lib::Bits<u8, 6>;
    using BSY = lib::Bits<u8, 7>;
    bool is_idle() const { return !get<BSY>() && !get<DRQ>(); }
    bool has_failed() const { return get<ERR>() || get<DF>(); }
    bool is_good() const { return is_idle() && get<DRDY>() && !has_failed(); }
};
struct MasterStatus : lib::Reg<MasterStatus, u8> {
    using Active = lib::Bits<u8, 0>;
    using Error = lib::Bits<u8, 1>;
    using Interrupt = lib::Bits<u8, 2>;
    static constexpr u8 write_to_clear = Error::mask | Interrupt::mask;
    static constexpr u8 kept = 0x60; // whether drive 0 and 1 are set up for DMA: read and written freely
};

inline constexpr u8 control_reset = 0x04;                  // SRST; nIEN is clear
inline constexpr u8 master_start = 0x01, to_memory = 0x08; // of the bus master's command

// Of the device register: LBA, and the bits that older drives want to be set.
inline constexpr u8 device_lba = 0xe0, device_second = 0x10;

// [ata/8-acs] 7
inline constexpr u8 READ_DMA = 0xc8, READ_DMA_EXT = 0x25, WRITE_DMA = 0xca, WRITE_DMA_EXT = 0x35, FLUSH_CACHE = 0xe7,
                    FLUSH_CACHE_EXT = 0xea, IDENTIFY_DEVICE = 0xec;

// That addresses of 28 bits reach: words 60 and 61 of IDENTIFY DEVICE are at most this, so the last address of 28 bits
// belongs to no sector. [ata/8-acs] 7.16.7
inline constexpr u64 most_short_sectors = (1U << 28) - 1;

// An entry of the table: the address, then the size (0: 64 KiB) and the mark of the last one. [bmide/1.0] 1.2
struct Entry {
    u32 address;
    u32 size;
};
inline constexpr u32 last_entry = 1U << 31;

} // namespace block::ide
