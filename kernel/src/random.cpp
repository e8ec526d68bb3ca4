// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <kernel/random.hpp>
#include <lib/x86/instructions.hpp>

namespace kernel {

using lib::u32;
using lib::u64;
using lib::u8;
namespace {

constexpr u32 feature_leaf = 1, RDRAND = 1U << 30; // ECX
constexpr int attempts = 10;                       // before the source counts as broken [intel/vol1] 7.3.17.1

bool next_number(u64& value) {
    for (int left = attempts; left > 0; left--)
        if (lib::x86::rdrand(value)) return true;
    return false;
}

} // namespace

bool has_random() {
    if ((lib::x86::cpuid(feature_leaf).ecx & RDRAND) == 0) return false;
    u64 first = 0;
    if (!next_number(first)) return false;
    for (int i = 0; i < 8; i++)
        if (u64 other = first; next_number(other) && other != first) return true;
    return false;
}

u32 random(std::span<u8> bytes) {
    u32 done = 0;
    while (done < bytes.size()) {
        u64 value = 0;
        if (!next_number(value)) break;
        u32 const count = std::min<u32>(sizeof(value), static_cast<u32>(bytes.size()) - done);
        std::memcpy(bytes.data() + done, &value, count);
        done += count;
    }
    return done;
}

} // namespace kernel
