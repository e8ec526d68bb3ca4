// SPDX-License-Identifier: MIT
#pragma once
// What real-mode code finds of a BIOS: an interrupt vector table, a data area, and the few services that kernels call
// on their way to protected mode. [bios] interrupt list
//
// Interrupts 10h (function 0Eh, a character for COM1), 11h, 12h, 15h (E820h, E801h, 88h), 16h (01h and 11h: no key),
// 1Ah (00h), and the PIT's, which counts at 40:6Ch. Every other function returns with the carry flag set. Not
// supported: disks, video modes, keys.
#include <loader/e820.hpp>

namespace loader {

// The vector table, the data area and the code that both point at, in the BIOS area. OutOfRange: no RAM is there.
lib::Result<void> write_bios(lib::GuestMemory const& memory, E820Map const& map);

} // namespace loader
