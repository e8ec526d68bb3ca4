// SPDX-License-Identifier: MIT
#pragma once
// What a loader hands over: the state in which the first vCPU starts.
#include <lib/types.hpp>

namespace loader {

using lib::u16;
using lib::u64;
using lib::u8;

enum class EntryMode : u8 {
    Protected32, // CR0 = PE | ET, CR4 = 0, EFER = 0
    Long64,      // CR0 = PE | ET | PG, CR4 = PAE, EFER = LME | LMA, CR3 as given
};

// All segments are flat: base 0, limit 4 GiB, code readable, data writable, present, ring 0. RFLAGS = 2, so interrupts
// are off. The registers that are not named are 0. The descriptors that the selectors name are in guest memory too.
struct EntryState {
    EntryMode mode = EntryMode::Protected32;
    u64 rip = 0;
    u64 rsp = 0;
    u64 rax = 0;
    u64 rbx = 0;
    u64 rsi = 0;
    u64 cr3 = 0;
    u64 gdt_base = 0;
    u16 gdt_limit = 0;
    u16 code_selector = 0;
    u16 data_selector = 0;
};

} // namespace loader
