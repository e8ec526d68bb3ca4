// SPDX-License-Identifier: MIT
#pragma once
// What a guest may try against its hypervisor. Every test survives and ends with "guest: ok NAME ..."; those of
// ends.cpp end the VM by design.
#include "runtime/apic.hpp"
#include "runtime/runtime.hpp"

namespace hostile {

using namespace guest;

// Control and debug registers, EFER, XCR0 and tables as they were at the start; call after anything that ran foreign
// code.
void remember_state();
void repair_state();

inline constexpr u8 timer_vector = 0x70;

// One instruction of snippets.S / mmio_forms.S with its registers.
struct Snippet {
    char const* name;
    u8 const* code;
    u64 size;
    u64 rax, rcx, rdx, rbx;
};

void msrs();
void ports();
void privileged();
void mmio();
void storm();
void stuck();
void triple();
void triple_elsewhere();
void bad_page_table();
void random();
void reset();

} // namespace hostile
