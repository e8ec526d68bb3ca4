// SPDX-License-Identifier: MIT
#pragma once
// Intel's MultiProcessor tables, for kernels that are older than ACPI or do without it (xv6, Plan 9). [mp] 4
// They say the same as the MADT.
#include <lib/guest_memory.hpp>

namespace loader {

// Up to 128 vCPUs; APIC id of vCPU n is n. `signature` and `features` are EAX and EDX of CPUID leaf 1. OutOfRange: so
// many do not fit.
struct MpConfig {
    lib::u32 vcpu_count;
    lib::u32 signature = 0;
    lib::u32 features = 0;
};
lib::Result<void> write_mp_tables(lib::GuestMemory const& memory, MpConfig const& config);

} // namespace loader
