// SPDX-License-Identifier: MIT
#pragma once
// KVM's clock: how the guest's TSC becomes time, told in a structure in guest memory. Linux, FreeBSD and OpenBSD learn
// the rate of the TSC from it instead of measuring. [linux/kvm-msr] MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW
//
// Time 0 is when the VM was created, where its TSC began at 0: time is the TSC, less what the guest has moved it.
#include <lib/types.hpp>

namespace vm {

using lib::u32;
using lib::u64;
using lib::u8;

// Nanoseconds = (ticks shifted left by `shift`, right if it is negative) * multiplier / 2^32.
struct KvmClockScale {
    u32 multiplier = 0;
    int shift = 0;
    static KvmClockScale of(u64 tsc_hz);
};

// Each is written so that a reader sees either all of it or an odd version. `to` is aligned to 4 bytes at least.
namespace kvm_clock {
inline constexpr u64 time_size = 32, wall_size = 12;
// `version` is even; what the guest moved the TSC by is `shift_of_tsc`, and `stable` says that all vCPUs agree.
void write_time(u8* to, u32 version, KvmClockScale scale, u64 shift_of_tsc, bool stable);
// Seconds since 1970 at time 0.
void write_wall(u8* to, u32 version, u32 seconds);
} // namespace kvm_clock

} // namespace vm
