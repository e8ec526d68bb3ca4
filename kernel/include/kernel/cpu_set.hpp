// SPDX-License-Identifier: MIT
#pragma once
// A set of physical CPUs, by index.
#include <array>
#include <bit>
#include <lib/types.hpp>

namespace kernel {

inline constexpr lib::u32 max_cpus = 256;

class CpuSet {
public:
    constexpr CpuSet() = default;
    static constexpr CpuSet single(lib::u32 cpu) {
        CpuSet set;
        set.add(cpu);
        return set;
    }
    static constexpr CpuSet first(lib::u32 count) {
        CpuSet set;
        for (lib::u32 i = 0; i < count; i++)
            set.add(i);
        return set;
    }
    constexpr void add(lib::u32 cpu) { words_[cpu / 64] |= lib::u64{1} << cpu % 64; }
    constexpr void remove(lib::u32 cpu) { words_[cpu / 64] &= ~(lib::u64{1} << cpu % 64); }
    constexpr bool has(lib::u32 cpu) const { return cpu < max_cpus && (words_[cpu / 64] >> cpu % 64 & 1) != 0; }
    // CPUs 64 * index and up, one bit each.
    constexpr lib::u64 word(std::size_t index) const { return words_[index]; }
    constexpr bool is_empty() const {
        lib::u64 any = 0;
        for (auto const word : words_)
            any |= word;
        return any == 0;
    }
    constexpr lib::u32 count() const {
        lib::u32 sum = 0;
        for (auto const word : words_)
            sum += static_cast<lib::u32>(std::popcount(word));
        return sum;
    }
    // The first member at or behind `from`; max_cpus: none.
    constexpr lib::u32 next(lib::u32 from) const {
        while (from < max_cpus) {
            lib::u64 const rest = words_[from / 64] >> from % 64;
            if (rest != 0) return from + static_cast<lib::u32>(std::countr_zero(rest));
            from = (from / 64 + 1) * 64;
        }
        return max_cpus;
    }
    template <typename Body> constexpr void for_each(Body body) const {
        for (lib::u32 cpu = next(0); cpu < max_cpus; cpu = next(cpu + 1))
            body(cpu);
    }
    friend constexpr CpuSet operator&(CpuSet a, CpuSet const& b) {
        for (std::size_t i = 0; i < a.words_.size(); i++)
            a.words_[i] &= b.words_[i];
        return a;
    }
    friend constexpr CpuSet operator|(CpuSet a, CpuSet const& b) {
        for (std::size_t i = 0; i < a.words_.size(); i++)
            a.words_[i] |= b.words_[i];
        return a;
    }
    // Not the default one, which is memcmp(): byte by byte.
    friend constexpr bool operator==(CpuSet const& a, CpuSet const& b) {
        lib::u64 difference = 0;
        for (std::size_t i = 0; i < a.words_.size(); i++)
            difference |= a.words_[i] ^ b.words_[i];
        return difference == 0;
    }

private:
    std::array<lib::u64, max_cpus / 64> words_{};
};

} // namespace kernel
