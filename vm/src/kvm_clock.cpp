// SPDX-License-Identifier: MIT
#include <atomic>
#include <lib/memory.hpp>
#include <vm/kvm_clock.hpp>

namespace vm {

KvmClockScale KvmClockScale::of(u64 tsc_hz) {
    if (tsc_hz == 0) return {};
    KvmClockScale scale;
    u64 ticks = tsc_hz;                         // in a second, after the shift
    while (ticks > 2 * lib::nanos_per_second) { // so that the multiplier has 32 bits
        ticks >>= 1;
        scale.shift--;
    }
    while (ticks <= lib::nanos_per_second) {
        ticks <<= 1;
        scale.shift++;
    }
    // 2^32 * 10^9 / (tsc_hz shifted), with the bits that a right shift lost where there is room for them.
    constexpr int room = 2;
    constexpr u64 dividend = lib::nanos_per_second << 32;
    if (scale.shift >= 0)
        scale.multiplier = static_cast<u32>(dividend / ticks);
    else if (-scale.shift <= room)
        scale.multiplier = static_cast<u32>((dividend << -scale.shift) / tsc_hz);
    else
        scale.multiplier = static_cast<u32>((dividend << room) / (tsc_hz >> (-scale.shift - room)));
    return scale;
}

namespace kvm_clock {
namespace {

// [linux/kvm-msr] struct pvclock_vcpu_time_info
enum : unsigned { Version = 0, TscTimestamp = 8, SystemTime = 16, Multiplier = 24, Shift = 28, Flags = 29 };
constexpr u8 tsc_stable = 1;
// struct pvclock_wall_clock
enum : unsigned { WallVersion = 0, WallSeconds = 4, WallNanoseconds = 8 };

} // namespace

void write_time(u8* to, u32 version, KvmClockScale scale, u64 shift_of_tsc, bool stable) {
    lib::store<u32>(to + Version, version - 1);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    lib::store<u64>(to + TscTimestamp, shift_of_tsc);
    lib::store<u64>(to + SystemTime, 0);
    lib::store<u32>(to + Multiplier, scale.multiplier);
    lib::store<u8>(to + Shift, static_cast<u8>(scale.shift));
    lib::store<u8>(to + Flags, stable ? tsc_stable : u8{0});
    std::atomic_thread_fence(std::memory_order_seq_cst);
    lib::store<u32>(to + Version, version);
}

void write_wall(u8* to, u32 version, u32 seconds) {
    lib::store<u32>(to + WallVersion, version - 1);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    lib::store<u32>(to + WallSeconds, seconds);
    lib::store<u32>(to + WallNanoseconds, 0);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    lib::store<u32>(to + WallVersion, version);
}

} // namespace kvm_clock

} // namespace vm
