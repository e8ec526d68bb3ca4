// SPDX-License-Identifier: MIT
#pragma once
// All CPUs that run Mullion, by index; 0 is the one that booted.
#include <kernel/cpu.hpp>

namespace kernel {

lib::u32 cpu_count();
Cpu& cpu(lib::u32 index);
// Before the CPU itself runs.
void register_cpu(Cpu& cpu);
// Makes that CPU leave its guest or its sleep and look at what it has to do.
void kick(lib::u32 index);

// Makes its run loop come round: sets work_pending, and kicks it if it is another CPU.
void request_attention(lib::u32 index);

// The handler of vectors::timer: calls back what is due on this CPU and arms the hardware for the next.
void run_timers();

} // namespace kernel
