// SPDX-License-Identifier: MIT
// The ways a guest ends its own machine: its VM resets or stops, nothing else does.
#include "hostile/hostile.hpp"
#include "runtime/smp.hpp"

namespace hostile {

void triple() {
    print("guest: ok triple loads an empty IDT and faults now\n");
    x86::lidt({0, 0});
    asm volatile("ud2");
}

// The same on the second CPU, while the first one waits.
void triple_elsewhere() {
    print("guest: ok elsewhere lets CPU 1 load an empty IDT and fault now\n");
    smp::prepare();
    smp::start(1, 1, [] {
        x86::lidt({0, 0});
        asm volatile("ud2");
    });
    smp::wait_until([] { return false; });
    fail("triple fault of CPU 1", 1, 0);
}

// Page tables where there is no memory: the walk itself finds nothing.
void bad_page_table() {
    print("guest: ok badcr3 loads CR3 with an address behind RAM now\n");
    x86::write_cr3(0xf0000000);
    x86::load8(user_page);
    print("guest: FAIL lives on without page tables\n");
    finish(1);
}

void reset() {
    print("guest: ok reset writes 6 to port 0xcf9 now\n");
    x86::out8(0xcf9, 2); // [intel/ich] 13.7.5: system reset, then the edge
    x86::out8(0xcf9, 6);
    for (u32 i = 0; i < 10'000'000; i++)
        x86::pause();
    fail("reset by 0xcf9", 1, 0);
}

} // namespace hostile
