// SPDX-License-Identifier: MIT
#pragma once
// As much ACPI machine language as our DSDT needs, assembled at compile time: every function returns the bytes of one
// term. [acpi] 20.2
#include <array>
#include <cstddef>
#include <lib/types.hpp>

namespace loader::aml {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

template <std::size_t N> using Bytes = std::array<u8, N>;

template <std::size_t... N> constexpr auto join(Bytes<N> const&... parts) {
    Bytes<(N + ... + 0)> all{};
    std::size_t at = 0;
    auto const append = [&](auto const& part) {
        for (u8 const byte : part)
            all[at++] = byte;
    };
    (append(parts), ...);
    return all;
}

// The length field counts itself.
template <std::size_t N> constexpr auto with_length(Bytes<N> const& body) {
    static_assert(N + 3 < 0x10'0000);
    if constexpr (N + 1 < 0x40)
        return join(Bytes<1>{static_cast<u8>(N + 1)}, body);
    else if constexpr (N + 2 < 0x1000)
        return join(Bytes<2>{static_cast<u8>(0x40 | ((N + 2) & 0xf)), static_cast<u8>((N + 2) >> 4)}, body);
    else
        return join(Bytes<3>{static_cast<u8>(0x80 | ((N + 3) & 0xf)), static_cast<u8>((N + 3) >> 4),
                             static_cast<u8>((N + 3) >> 12)},
                    body);
}

template <std::size_t N> constexpr Bytes<N> little_endian(u64 value) {
    Bytes<N> bytes{};
    for (u8& byte : bytes) {
        byte = static_cast<u8>(value);
        value >>= 8;
    }
    return bytes;
}
constexpr Bytes<2> byte_const(u8 value) { return {0x0a, value}; }
constexpr Bytes<5> dword_const(u32 value) { return join(Bytes<1>{0x0c}, little_endian<4>(value)); }
template <std::size_t N> constexpr Bytes<N + 1> string(char const (&text)[N]) {
    Bytes<N + 1> bytes{0x0d};
    for (std::size_t i = 0; i < N; i++)
        bytes[i + 1] = static_cast<u8>(text[i]);
    return bytes;
}
// A name of four characters, after an optional backslash.
template <std::size_t N> constexpr Bytes<N - 1> path(char const (&text)[N]) {
    static_assert(N == 5 || N == 6);
    Bytes<N - 1> bytes{};
    for (std::size_t i = 0; i + 1 < N; i++)
        bytes[i] = static_cast<u8>(text[i]);
    return bytes;
}
// "PNP0501" in the 32 bits of an EISA ID. [acpi] 19.3.4
constexpr Bytes<5> eisa_id(char const (&id)[8]) {
    auto const hex = [](char c) { return static_cast<u32>(c <= '9' ? c - '0' : c - 'A' + 10); };
    auto const letter = [](char c) { return static_cast<u32>(c - '@'); };
    u32 const value = letter(id[0]) << 26 | letter(id[1]) << 21 | letter(id[2]) << 16 | hex(id[3]) << 12 |
                      hex(id[4]) << 8 | hex(id[5]) << 4 | hex(id[6]);
    return dword_const(__builtin_bswap32(value));
}

template <std::size_t P, std::size_t V> constexpr auto name(Bytes<P> const& where, Bytes<V> const& value) {
    return join(Bytes<1>{0x08}, where, value);
}
template <std::size_t... N> constexpr auto package(Bytes<N> const&... elements) {
    return join(Bytes<1>{0x12}, with_length(join(Bytes<1>{static_cast<u8>(sizeof...(N))}, elements...)));
}
// The same with `count` elements that are one after the other in `elements`.
template <std::size_t N> constexpr auto package_of(u8 count, Bytes<N> const& elements) {
    return join(Bytes<1>{0x12}, with_length(join(Bytes<1>{count}, elements)));
}
template <std::size_t P, std::size_t... N> constexpr auto scope(Bytes<P> const& where, Bytes<N> const&... terms) {
    return join(Bytes<1>{0x10}, with_length(join(where, terms...)));
}
template <std::size_t P, std::size_t... N> constexpr auto device(Bytes<P> const& where, Bytes<N> const&... terms) {
    return join(Bytes<2>{0x5b, 0x82}, with_length(join(where, terms...)));
}

// Resource descriptors. [acpi] 6.4.2
constexpr Bytes<8> io_ports(u16 base, u8 count) {
    u8 const low = static_cast<u8>(base), high = static_cast<u8>(base >> 8);
    return {0x47, 0x01, low, high, low, high, 0x01, count};
}
constexpr Bytes<12> memory32(u32 base, u32 size) {
    return join(Bytes<4>{0x86, 9, 0, 1}, little_endian<4>(base), little_endian<4>(size)); // writable
}
// What a bridge passes on: bus numbers, ports or memory. `Width`: bytes in each number. [acpi] 6.4.3.5
enum class Passed : u8 { Memory = 0, Ports = 1, Buses = 2 };
template <std::size_t Width> constexpr auto passed(Passed kind, u64 base, u64 size) {
    constexpr u8 tag = Width == 2 ? 0x88 : Width == 4 ? 0x87 : 0x8a;
    constexpr u8 fixed_range = 0x0c; // both ends, decoded by who passes it on
    u8 const flags = kind == Passed::Memory ? 1 : kind == Passed::Ports ? 3 : 0; // writable; the entire range
    return join(Bytes<1>{tag}, little_endian<2>(3 + 5 * Width), Bytes<3>{static_cast<u8>(kind), fixed_range, flags},
                little_endian<Width>(0), little_endian<Width>(base), little_endian<Width>(base + size - 1),
                little_endian<Width>(0), little_endian<Width>(size));
}
constexpr Bytes<3> irq(u32 number) { return {0x22, static_cast<u8>(1U << number), static_cast<u8>(1U << number >> 8)}; }
template <std::size_t... N> constexpr auto resources(Bytes<N> const&... descriptors) {
    constexpr std::size_t size = (N + ... + 0) + 2;
    static_assert(size < 0x100);
    return join(Bytes<1>{0x11},
                with_length(join(byte_const(static_cast<u8>(size)), descriptors..., Bytes<2>{0x79, 0x00})));
}

} // namespace loader::aml
