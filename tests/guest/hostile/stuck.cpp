// SPDX-License-Identifier: MIT
// A processor that never reaches an instruction again: the delivery of each #DB raises the next one. The handler's
// stack is one of the IST, so every delivery writes its frame to the same place, and a data breakpoint watches that
// place. The trap comes before the machine's interrupts are looked at. [intel/vol3] 7.9, 18.2
#include "hostile/hostile.hpp"

namespace hostile {
namespace {

constexpr u8 debug_exception = 1;
constexpr u64 dr7_global_0 = 1 << 1, dr7_write_0 = 1 << 16, dr7_eight_bytes_0 = 2 << 18, dr7_fixed = 0x400;

bool watch_own_frame(Frame& frame) {
    x86::write_dr(0, reinterpret_cast<u64>(&frame.ss));
    x86::write_dr(7, dr7_fixed | dr7_global_0 | dr7_write_0 | dr7_eight_bytes_0);
    return true;
}

} // namespace

void stuck() {
    print("guest: ok stuck raises #DB in the delivery of #DB from now on\n");
    set_handler(debug_exception, watch_own_frame);
    for (;;)
        asm volatile("int $1" : : : "memory"); // the first one sets the trap, the next one falls into it
}

} // namespace hostile
