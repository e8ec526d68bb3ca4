// SPDX-License-Identifier: MIT
#pragma once
// The end: our own bug. Prints registers and a symbolised backtrace on every console, polled, and stops all CPUs.
#include <kernel/traps.hpp>
#include <lib/format.hpp>

namespace kernel {

[[noreturn]] void panic(std::string_view what);
[[noreturn]] void panic_trap(TrapFrame const& frame, std::string_view what);

// By the NMI handler: a panic sends NMIs to all other CPUs, which halt here.
void stop_if_panic_elsewhere();

// Start-up cannot go on: the machine lacks something or is set up wrongly. `what` says it, `remedy` what to do.
[[noreturn]] void refuse_to_start(std::string_view what, std::string_view remedy);

// Polled output for panics; must work without locks, interrupts or memory.
void set_panic_sink(lib::TextSink* sink);
// Called once at the very end, of a panic and of refuse_to_start(): may switch the machine off, or returns and it
// halts.
void set_panic_end(void (*end)());

struct Symbol {
    std::string_view name; // empty: unknown
    lib::u64 offset;
};
Symbol symbol_at(lib::u64 address);
void print_backtrace(lib::TextSink& sink, lib::u64 rip, lib::u64 rbp);

} // namespace kernel
