// SPDX-License-Identifier: MIT
#pragma once
// The integer names used everywhere, and the address and size types that never mix.
#include <compare>
#include <cstddef>
#include <cstdint>

namespace lib {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;
using u128 = unsigned __int128;

inline constexpr u64 page_size = 4096;
inline constexpr u64 KiB = 1024;
inline constexpr u64 MiB = 1024 * KiB;
inline constexpr u64 GiB = 1024 * MiB;

template <typename Tag> struct Address {
    u64 value{};

    constexpr Address operator+(u64 bytes) const { return {value + bytes}; }
    constexpr Address operator-(u64 bytes) const { return {value - bytes}; }
    constexpr Address& operator+=(u64 bytes) {
        value += bytes;
        return *this;
    }
    // Bytes from `other` up to this address.
    constexpr u64 operator-(Address other) const { return value - other.value; }
    constexpr bool is_aligned(u64 alignment) const { return (value & (alignment - 1)) == 0; }
    constexpr Address align_down(u64 alignment) const { return {value & ~(alignment - 1)}; }
    constexpr Address align_up(u64 alignment) const { return {(value + alignment - 1) & ~(alignment - 1)}; }
    friend constexpr auto operator<=>(Address const&, Address const&) = default;
};

using HostPhys = Address<struct HostPhysTag>;       // hpa: what the machine's bus sees
using HostVirt = Address<struct HostVirtTag>;       // an address of ours
using GuestPhys = Address<struct GuestPhysTag>;     // gpa: what the guest believes to be physical
using GuestLinear = Address<struct GuestLinearTag>; // gva: behind the guest's own page tables

constexpr u64 align_up(u64 value, u64 alignment) { return (value + alignment - 1) & ~(alignment - 1); }
constexpr u64 align_down(u64 value, u64 alignment) { return value & ~(alignment - 1); }

// Nanoseconds since Mullion started its clock. 64 bits last 584 years.
struct Nanos {
    u64 value{};
    constexpr Nanos operator+(Nanos other) const { return {value + other.value}; }
    constexpr Nanos operator-(Nanos other) const { return {value - other.value}; }
    friend constexpr auto operator<=>(Nanos const&, Nanos const&) = default;
};
inline constexpr u64 nanos_per_second = 1'000'000'000;

} // namespace lib
