// SPDX-License-Identifier: MIT
#pragma once
// What Mullion and a service agree on: where things are in a service's address space, the manifest page, and the system
// calls. Both sides are built from this tree, and a manifest says its version, so that a stale program is refused.
#include <lib/types.hpp>

namespace lib::service {

inline constexpr u32 abi_version = 3;

// All of it is below 2 GiB, so that a service's code reaches everything of its own by 32-bit addresses. Page 0 is never
// mapped. Between two areas there are unmapped pages.
inline constexpr u64 image_begin = 0x1000'0000;
inline constexpr u64 image_end = image_begin + 16 * MiB;
inline constexpr u64 manifest_at = 0x2000'0000; // read-only
inline constexpr u64 stack_end = 0x3000'0000;
inline constexpr u64 stack_size = 32 * KiB;
inline constexpr u64 heap_begin = 0x4000'0000;

// The first bytes of a program's first segment, which is at image_begin.
struct ProgramHeader {
    u64 magic;
    u32 version; // abi_version
    u32 reserved;
};
inline constexpr u64 program_magic = 0x6563'6976'7265'734d; // "Mservice"

// The one page that tells a service what it has got. Fixed at its start.
struct Manifest {
    u32 version;
    u32 instance; // 1 for the first, one more after each death
    u64 heap_begin, heap_size;
    // TSC ticks in a second, and the TSC at Mullion's time 0.
    u64 tsc_hz, tsc_at_zero;
    u64 handler_limit; // TSC ticks that a handler may take before it must call wait()
    char name[32];     // ends with a NUL
};
static_assert(sizeof(Manifest) <= page_size);

// INT system_call_vector. Number in RAX, arguments in RDI and RSI, result in RAX; every other register is kept.
inline constexpr u8 system_call_vector = 0xf0;
enum class Call : u64 {
    Stop = 0, // ends this instance, with a reason for the log: text in RDI, length in RSI
    Wait = 1, // returns the events of the mask in RDI that have come, and forgets them; 0: the TSC has reached RSI
    Log = 2,  // one line: text in RDI, length in RSI; returns an Answer
    // Of a service that serves guests' devices (service_board.hpp). Device in RDI, queue in RSI; returns an Answer.
    Interrupt = 3, // interrupts the driver for a queue
    Misuse = 4,    // the driver broke a rule: the device needs a reset; RSI does not matter
    Stopped = 5,   // RSI: DeviceEntry::stops for which nothing is under way any more
    // Of a service that drives controllers of the machine. Controller in RDI; return an Answer.
    BusMaster =
        6, // RSI 1: it may write to memory from now on; nothing of an instance before is left in it. 0: it may not
    ReadPort = 7,           // PortAccess in RSI; returns the value, or an Answer
    WritePort = 8,          // PortAccess in RSI
    Catalogue = 9,          // the catalogue has changed; RDI and RSI do not matter
    ReadConfiguration = 10, // returns 4 bytes at offset RSI, a multiple of 4 below 256, or an Answer
};
enum class Answer : u64 {
    Done = 0,
    NoSuchCall = ~u64{0},
    BadAddress = ~u64{0} - 1, // not, or not wholly, memory of the service
    TooLong = ~u64{0} - 2,
    TooMany = ~u64{0} - 3, // log lines: one was dropped
    NoSuchDevice = ~u64{0} - 4,
};
// An access to a BAR of ports.
struct PortAccess {
    u32 value;  // to be written
    u16 offset; // a multiple of the width
    u8 bar;
    u8 width; // 1, 2 or 4 bytes
};
static_assert(sizeof(PortAccess) == 8);
inline constexpr u64 longest_line = 256;
inline constexpr u64 no_deadline = ~u64{0};

} // namespace lib::service
