// SPDX-License-Identifier: MIT
#pragma once
// CPUID of a few host machines, as far as the policy reads it, for tests.
#include <vm/cpuid_policy.hpp>

namespace hosts {

using vm::CpuidRegs;
using vm::u32;

struct Entry {
    u32 leaf, subleaf;
    CpuidRegs regs;
};

template <unsigned N> CpuidRegs find(Entry const (&entries)[N], u32 leaf, u32 subleaf) {
    CpuidRegs found{};
    for (Entry const& entry : entries) {
        if (entry.leaf != leaf) continue;
        if (entry.subleaf == subleaf) return entry.regs;
    }
    return found;
}

inline CpuidRegs skylake_x(u32 leaf, u32 subleaf) {
    static constexpr Entry entries[] = {
        {0, 0, {0x16, 0x756e6547, 0x6c65746e, 0x49656e69}},
        {1, 0, {0x50654, 0x00100800, 0x7ffefbff, 0xbfebfbff}},
        {2, 0, {0x76036301, 0x00f0b5ff, 0, 0x00c30000}},
        {4, 0, {0x1c004121, 0x01c0003f, 0x3f, 0}},
        {4, 1, {0x1c004122, 0x01c0003f, 0x3f, 0}},
        {4, 2, {0x1c004143, 0x03c0003f, 0x3ff, 0}},
        {4, 3, {0x1c03c163, 0x0280003f, 0x4fff, 4}},
        {5, 0, {0x40, 0x40, 3, 0x2020}},
        {6, 0, {0x77, 2, 9, 0}},
        {7, 0, {0, 0xd39ffffb, 0x18, 0xbc000400}},
        {0xa, 0, {0x07300404, 0, 0, 0x603}},
        {0xb, 0, {1, 2, 0x100, 3}},
        {0xb, 1, {4, 16, 0x201, 3}},
        {0xd, 0, {0x2ff, 0xa88, 0xa88, 0}},
        {0xd, 1, {0xf, 0xa08, 0x100, 0}},
        {0xd, 2, {0x100, 0x240, 0, 0}},
        {0xd, 3, {0x40, 0x3c0, 0, 0}},
        {0xd, 4, {0x40, 0x400, 0, 0}},
        {0xd, 5, {0x40, 0x440, 0, 0}},
        {0xd, 6, {0x200, 0x480, 0, 0}},
        {0xd, 7, {0x400, 0x680, 0, 0}},
        {0xd, 8, {0x80, 0, 1, 0}},
        {0xd, 9, {0x8, 0xa80, 0, 0}},
        {0x14, 0, {1, 0xf, 7, 0}},
        {0x15, 0, {2, 292, 0, 0}},
        {0x16, 0, {0xdac, 0x1194, 0x64, 0}},
        {0x80000000, 0, {0x80000008, 0, 0, 0}},
        {0x80000001, 0, {0, 0, 0x121, 0x2c100800}},
        {0x80000002, 0, {0x65746e49, 0x2952286c, 0x726f4320, 0x4d542865}},
        {0x80000006, 0, {0, 0, 0x01006040, 0}},
        {0x80000007, 0, {0, 0, 0, 0x100}},
        {0x80000008, 0, {0x302e, 0, 0, 0}},
    };
    return find(entries, leaf, subleaf);
}

inline CpuidRegs epyc(u32 leaf, u32 subleaf) {
    static constexpr Entry entries[] = {
        {0, 0, {0xd, 0x68747541, 0x444d4163, 0x69746e65}},
        {1, 0, {0x00800f12, 0x00100800, 0x7ed8320b, 0x178bfbff}},
        {5, 0, {0x40, 0x40, 3, 0x11}},
        {6, 0, {4, 0, 1, 0}},
        {7, 0, {0, 0x209c01a9, 0, 0}},
        {0xd, 0, {7, 0x340, 0x340, 0}},
        {0xd, 1, {0xf, 0x340, 0, 0}},
        {0xd, 2, {0x100, 0x240, 0, 0}},
        {0x80000000, 0, {0x8000001f, 0x68747541, 0x444d4163, 0x69746e65}},
        {0x80000001, 0, {0x00800f12, 0x40000000, 0x35c233ff, 0x2fd3fbff}},
        {0x80000002, 0, {0x20444d41, 0x43595045, 0x30353720, 0x33312031}},
        {0x80000005, 0, {0xff40ff40, 0xff40ff40, 0x20080140, 0x40040140}},
        {0x80000006, 0, {0x26006400, 0x66006400, 0x02006140, 0x02008140}},
        {0x80000007, 0, {0, 0x1b, 0, 0x6799}},
        {0x80000008, 0, {0x3030, 0x1007, 0x603f, 0}},
        {0x8000000a, 0, {1, 0x8000, 0, 0x1bcff}},
        {0x80000019, 0, {0xf040f040, 0, 0, 0}},
        {0x8000001a, 0, {3, 0, 0, 0}},
        {0x8000001b, 0, {0x3ff, 0, 0, 0}},
        {0x8000001d, 0, {0x4121, 0x01c0003f, 0x3f, 0}},
        {0x8000001d, 1, {0x4122, 0x00c0003f, 0xff, 0}},
        {0x8000001d, 2, {0x4143, 0x01c0003f, 0x3ff, 2}},
        {0x8000001d, 3, {0x1c163, 0x03c0003f, 0x1fff, 1}},
        {0x8000001e, 0, {0x10, 0x108, 0x300, 0}},
        {0x8000001f, 0, {0xf, 0x16f, 0xf, 1}},
    };
    return find(entries, leaf, subleaf);
}

// AVX2 but neither AVX-512, XSAVES nor leaves 15h and 16h.
inline CpuidRegs haswell(u32 leaf, u32 subleaf) {
    static constexpr Entry entries[] = {
        {0, 0, {0xd, 0x756e6547, 0x6c65746e, 0x49656e69}},
        {1, 0, {0x306c3, 0x00100800, 0x7ffafbff, 0xbfebfbff}},
        {4, 0, {0x1c004121, 0x01c0003f, 0x3f, 0}},
        {7, 0, {0, 0x27ab, 0, 0}},
        {0xd, 0, {7, 0x340, 0x340, 0}},
        {0xd, 1, {1, 0, 0, 0}},
        {0xd, 2, {0x100, 0x240, 0, 0}},
        {0x80000000, 0, {0x80000008, 0, 0, 0}},
        {0x80000001, 0, {0, 0, 0x21, 0x2c100800}},
        {0x80000008, 0, {0x3027, 0, 0, 0}},
    };
    return find(entries, leaf, subleaf);
}

template <u32 B, u32 C, u32 D> CpuidRegs all_ones(u32 leaf, u32 subleaf) {
    u32 const ones = ~u32{0};
    if (leaf == 0) return {0x1000'0000, B, C, D};
    if (leaf == 0x80000000) return {0x8fff'ffff, ones, ones, ones};
    if (leaf == 4 || leaf == 0x8000001d) return subleaf < 100 ? CpuidRegs{0xffffffe3, ones, ones, ones} : CpuidRegs{};
    return {ones, ones, ones, ones};
}
inline CpuidRegs all_ones_intel(u32 leaf, u32 subleaf) {
    return all_ones<0x756e6547, 0x6c65746e, 0x49656e69>(leaf, subleaf);
}
inline CpuidRegs all_ones_amd(u32 leaf, u32 subleaf) {
    return all_ones<0x68747541, 0x444d4163, 0x69746e65>(leaf, subleaf);
}

template <CpuidRegs (*Host)(u32, u32)> vm::CpuidPolicy policy(vm::PlatformFacts const& facts) {
    return vm::CpuidPolicy::create(vm::CpuidReader::to_function<Host>(), facts);
}

inline vm::PlatformFacts everything(u32 vcpus = 4) {
    vm::PlatformFacts facts;
    facts.tsc_hz = 2'500'000'000;
    facts.vcpu_count = vcpus;
    facts.invariant_tsc = facts.invpcid = facts.rdtscp = facts.xsaves = facts.pku = true;
    return facts;
}

} // namespace hosts
