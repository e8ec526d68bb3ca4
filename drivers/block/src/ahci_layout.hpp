// SPDX-License-Identifier: MIT
#pragma once
// Registers and structures in memory of an AHCI controller. [ahci/1.3.1] 3 and 4
#include <block/ahci.hpp>
#include <lib/bits.hpp>

namespace block {
namespace ahci {

inline constexpr u32 CAP = 0x00, GHC = 0x04, IS = 0x08, PI = 0x0c;
struct Cap : lib::Reg<Cap, u32> {
    using NCS = lib::Bits<u32, 12, 8>;
    using SNCQ = lib::Bits<u32, 30>;
    using S64A = lib::Bits<u32, 31>;
};
inline constexpr u32 ghc_reset = 1U << 0, ghc_interrupts = 1U << 1, ghc_enable = 1U << 31;

// Of a port.
inline constexpr u32 PxCLB = 0x00, PxFB = 0x08, PxIS = 0x10, PxIE = 0x14, PxCMD = 0x18, PxTFD = 0x20, PxSIG = 0x24,
                     PxSSTS = 0x28, PxSCTL = 0x2c, PxSERR = 0x30, PxSACT = 0x34, PxCI = 0x38;
inline constexpr u32 port_begin = 0x100, port_size = 0x80;

// PxIS and PxIE. [ahci/1.3.1] 3.3.5
inline constexpr u32 DHRS = 1U << 0, PSS = 1U << 1, SDBS = 1U << 3, PCS = 1U << 6, PRCS = 1U << 22, OFS = 1U << 24,
                     IFS = 1U << 27, HBDS = 1U << 28, HBFS = 1U << 29, TFES = 1U << 30;
inline constexpr u32 link_changes = PCS | PRCS;
inline constexpr u32 command_errors = OFS | IFS | HBDS | HBFS | TFES;
inline constexpr u32 wanted_interrupts = DHRS | PSS | SDBS | link_changes | command_errors;

// PxCMD
inline constexpr u32 ST = 1U << 0, SUD = 1U << 1, POD = 1U << 2, FRE = 1U << 4, CR = 1U << 15;
// PxTFD
inline constexpr u32 ERR = 1U << 0, DRQ = 1U << 3, DF = 1U << 5, BSY = 1U << 7;
// PxSSTS and PxSCTL
inline constexpr u32 det_mask = 0xf, det_ready = 3, det_reset = 1;
inline constexpr u32 no_power_states = 3U << 8; // a link that sleeps looks like one that is lost

inline constexpr u32 signature_ata = 0x0000'0101;

// [ata/8-acs] 7
inline constexpr u8 READ_DMA_EXT = 0x25, WRITE_DMA_EXT = 0x35, READ_FPDMA_QUEUED = 0x60, WRITE_FPDMA_QUEUED = 0x61,
                    FLUSH_CACHE = 0xe7, FLUSH_CACHE_EXT = 0xea, IDENTIFY_DEVICE = 0xec;
inline constexpr u8 device_lba = 0x40;

// An entry of the command list, and one of a table of pieces. [ahci/1.3.1] 4.2.2, 4.2.3
struct Header {
    u32 flags; // the FIS's size in dwords, bit 6: to the disk, upper half: pieces
    u32 moved;
    u64 table;
    u32 reserved[4];
};
inline constexpr u32 header_is_write = 1U << 6;
struct Region {
    u64 address;
    u32 reserved;
    u32 last; // the size less 1
};
static_assert(sizeof(Header) == 32 && sizeof(Region) == 16);

} // namespace ahci

// Register - Host to Device. [ahci/1.3.1] 4.2.3.1, [sata] 10.5.5
struct Ahci::Fis {
    u8 type = 0x27, flags = 0x80; // it is a command
    u8 command = 0, features_low = 0;
    std::array<u8, 3> lba_low{};
    u8 device = 0;
    std::array<u8, 3> lba_high{};
    u8 features_high = 0;
    u8 count_low = 0, count_high = 0;
    std::array<u8, 6> rest{};
};

} // namespace block
