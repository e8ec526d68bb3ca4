// SPDX-License-Identifier: MIT
#pragma once
// Registers and descriptors of 82540EM and 82574L. [intel/8254x] 3.2, 3.3, 13 [intel/82574] 7.1, 7.2, 10
#include <lib/bits.hpp>
#include <net/e1000.hpp>

namespace net {
namespace e1000 {

inline constexpr u32 id_82540em = 0x100e'8086, id_82574l = 0x10d3'8086; // configuration space at 0
inline constexpr u64 registers_size = 128 * lib::KiB;
inline constexpr u32 all_ones = ~0U; // what a device that is gone answers

inline constexpr u32 CTRL = 0x0000, STATUS = 0x0008, EECD = 0x0010, EERD = 0x0014, CTRL_EXT = 0x0018, ICR = 0x00c0,
                     ITR = 0x00c4, IMS = 0x00d0, IMC = 0x00d8, IVAR = 0x00e4, EITR0 = 0x00e8, RCTL = 0x0100,
                     TCTL = 0x0400, TIPG = 0x0410, RDBAL = 0x2800, RDBAH = 0x2804, RDLEN = 0x2808, RDH = 0x2810,
                     RDT = 0x2818, RDTR = 0x2820, RADV = 0x282c, TDBAL = 0x3800, TDBAH = 0x3804, TDLEN = 0x3808,
                     TDH = 0x3810, TDT = 0x3818, TIDV = 0x3820, TXDCTL = 0x3828, TADV = 0x382c, RAL0 = 0x5400,
                     RAH0 = 0x5404;

struct Ctrl : lib::Reg<Ctrl, u32> {
    using GIO_MASTER_DISABLE = lib::Bits<u32, 2>; // 82574L; a reserved bit of 82540EM
    using SLU = lib::Bits<u32, 6>;                // set link up
    using ILOS = lib::Bits<u32, 7>;               // invert loss of signal
    using FRCSPD = lib::Bits<u32, 11>;            // force the speed
    using FRCDPLX = lib::Bits<u32, 12>;           // and the duplex mode, against what the PHY has found
    using RST = lib::Bits<u32, 26>;
    using VME = lib::Bits<u32, 30>; // strip VLAN tags
};
struct Status : lib::Reg<Status, u32> {
    using FD = lib::Bits<u32, 0>;                 // full duplex
    using LU = lib::Bits<u32, 1>;                 // the link is up
    using TXOFF = lib::Bits<u32, 4>;              // the other side asked for a pause
    using SPEED = lib::Bits<u32, 7, 6>;           // 10, 100, 1000, 1000 Mb/s
    using GIO_MASTER_ENABLE = lib::Bits<u32, 19>; // 82574L: requests may still be under way
};
struct Eecd : lib::Reg<Eecd, u32> {
    using AUTO_RD = lib::Bits<u32, 9>; // 82574L: the registers that the NVM fills are filled
};
// The place of the word's number and the end's bit differ. [intel/8254x] 13.4, EERD [intel/82574] 10, EERD
struct Eerd : lib::Reg<Eerd, u32> {
    using START = lib::Bits<u32, 0>;
    using DONE_82574 = lib::Bits<u32, 1>;
    using DONE_82540 = lib::Bits<u32, 4>;
    using ADDR_82574 = lib::Bits<u32, 15, 2>;
    using ADDR_82540 = lib::Bits<u32, 15, 8>;
    using DATA = lib::Bits<u32, 31, 16>;
};
struct CtrlExt : lib::Reg<CtrlExt, u32> {
    using DRV_LOAD = lib::Bits<u32, 28>; // 82574L: tells its firmware that a driver runs
};
// Causes, in ICR, IMS and IMC.
struct Causes : lib::Reg<Causes, u32> {
    using TXDW = lib::Bits<u32, 0>; // a descriptor was written back
    using LSC = lib::Bits<u32, 2>;  // the link changed
    using RXDMT0 = lib::Bits<u32, 4>;
    using RXO = lib::Bits<u32, 6>; // no buffer was free
    using RXT0 = lib::Bits<u32, 7>;
    using RXQ0 = lib::Bits<u32, 20>; // 82574L, in use with MSI-X
    using TXQ0 = lib::Bits<u32, 22>;
    using OTHER = lib::Bits<u32, 24>;
    using INT_ASSERTED = lib::Bits<u32, 31>; // read-only
};
struct Rctl : lib::Reg<Rctl, u32> {
    using EN = lib::Bits<u32, 1>;
    using UPE = lib::Bits<u32, 3>;        // all addresses of one station
    using MPE = lib::Bits<u32, 4>;        // all addresses of a group
    using RDMTS = lib::Bits<u32, 9, 8>;   // RXDMT0 when 1/2, 1/4, 1/8 of the buffers are left
    using BAM = lib::Bits<u32, 15>;       // broadcasts
    using BSIZE = lib::Bits<u32, 17, 16>; // 0: 2048
    using SECRC = lib::Bits<u32, 26>;     // leave the checksum at the end out
};
struct Tctl : lib::Reg<Tctl, u32> {
    using EN = lib::Bits<u32, 1>;
    using PSP = lib::Bits<u32, 3>;       // pad short frames
    using CT = lib::Bits<u32, 11, 4>;    // collisions before a frame is given up
    using COLD = lib::Bits<u32, 21, 12>; // the time in which they happen, in bytes
};
struct Tipg : lib::Reg<Tipg, u32> { // gaps between frames
    using IPGT = lib::Bits<u32, 9, 0>;
    using IPGR1 = lib::Bits<u32, 19, 10>;
    using IPGR2 = lib::Bits<u32, 29, 20>;
};
struct Txdctl : lib::Reg<Txdctl, u32> {
    using WTHRESH = lib::Bits<u32, 21, 16>; // descriptors that are written back together; 0: at once
    using MUST_BE_ONE = lib::Bits<u32, 22>; // of 82574L. [intel/82574] 10, TXDCTL
    using GRAN = lib::Bits<u32, 24>;        // thresholds count descriptors
};
struct Rah : lib::Reg<Rah, u32> {
    using ADDRESS = lib::Bits<u32, 15, 0>;
    using AV = lib::Bits<u32, 31>; // it is valid
};

// Queues and other causes that send the first message of MSI-X: a valid bit above each number. [intel/82574] 10, IVAR
inline constexpr u32 every_cause_sends_message_0 = 8 | 8 << 8 | 8 << 16;
// In units of 1.024 us, for descriptors that ask for a delay, as none of this driver does; 0 is forbidden.
// [intel/8254x] 13.4.41
inline constexpr u32 shortest_transmit_delay = 1;
// At least 50 us between two interrupts, in units of 256 ns.
inline constexpr u32 interrupt_gap = 50'000 / 256;

} // namespace e1000

struct E1000::ReceiveDescriptor {
    static constexpr u8 DD = 1, EOP = 2; // in status: the device is done with it; the frame ends here
    // In errors: of the checksum, the symbols, the sequence, the carrier extension, the data. Not those of IP and TCP.
    static constexpr u8 frame_errors = 0x97;
    u64 address;
    u16 length, checksum;
    u32 rest; // status, errors, and two bytes of a VLAN tag
};
struct E1000::TransmitDescriptor {
    static constexpr u8 EOP = 1, IFCS = 2, RS = 8; // in command: the last one, insert the checksum, report
    static constexpr u8 DD = 1;                    // in status
    u64 address;
    u16 length;
    u8 checksum_offset, command, status, checksum_start;
    u16 special;
};

inline E1000::ReceiveDescriptor& E1000::received(u32 index) const {
    static_assert(sizeof(ReceiveDescriptor) == 16);
    return reinterpret_cast<ReceiveDescriptor*>(shared_.bytes.data() + receive_ring_at)[index];
}
inline E1000::TransmitDescriptor& E1000::transmitted(u32 index) const {
    static_assert(sizeof(TransmitDescriptor) == 16);
    return reinterpret_cast<TransmitDescriptor*>(shared_.bytes.data() + transmit_ring_at)[index];
}

} // namespace net
