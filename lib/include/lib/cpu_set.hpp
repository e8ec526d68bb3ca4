// SPDX-License-Identifier: MIT
#pragma once
// A set of physical CPUs, by index.
#include <array>
#include <bit>
#include <lib/limits.hpp>
#include <lib/types.hpp>

namespace lib {

class CpuSet {
public:
    constexpr CpuSet() = default;
    static constexpr CpuSet single(u32 cpu) {
        CpuSet set;
        set.add(cpu);
        return set;
    }
    static constexpr CpuSet first(u32 count) {
        CpuSet set;
        for (u32 i = 0; i < count && i < max_cpus; i++)
            set.add(i);
        return set;
    }
    constexpr void add(u32 cpu) { words_[cpu / 64] |= u64{1} << cpu % 64; }
    constexpr void remove(u32 cpu) { words_[cpu / 64] &= ~(u64{1} << cpu % 64); }
    constexpr bool has(u32 cpu) const { return cpu < max_cpus && (words_[cpu / 64] >> cpu % 64 & 1) != 0; }
    // CPUs 64 * index and up, one bit each.
    constexpr u64 word(std::size_t index) const { return words_[index]; }
    constexpr bool is_empty() const {
        u64 any = 0;
        for (auto const word : words_)
            any |= word;
        return any == 0;
    }
    constexpr u32 count() const {
        u32 sum = 0;
        for (auto const word : words_)
            sum += static_cast<u32>(std::popcount(word));
        return sum;
    }
    constexpr CpuSet without(CpuSet const& others) const {
        CpuSet rest = *this;
        for (std::size_t i = 0; i < words_.size(); i++)
            rest.words_[i] &= ~others.words_[i];
        return rest;
    }
    // The lowest member that is at least `from`; max_cpus: none.
    constexpr u32 next(u32 from) const {
        while (from < max_cpus) {
            u64 const rest = words_[from / 64] >> from % 64;
            if (rest != 0) return from + static_cast<u32>(std::countr_zero(rest));
            from = (from / 64 + 1) * 64;
        }
        return max_cpus;
    }
    // From the lowest member up. The body does not change this set.
    template <typename Body> constexpr void for_each(Body body) const {
        for (u32 i = 0; i < words_.size(); i++)
            for (u64 rest = words_[i]; rest != 0; rest &= rest - 1)
                body(i * 64 + static_cast<u32>(std::countr_zero(rest)));
    }
    friend constexpr CpuSet operator&(CpuSet a, CpuSet const& b) {
        for (std::size_t i = 0; i < a.words_.size(); i++)
            a.words_[i] &= b.words_[i];
        return a;
    }
    constexpr CpuSet& operator|=(CpuSet const& other) {
        for (std::size_t i = 0; i < words_.size(); i++)
            words_[i] |= other.words_[i];
        return *this;
    }
    friend constexpr CpuSet operator|(CpuSet a, CpuSet const& b) { return a |= b; }
    // Not the default one, which is memcmp(): byte by byte.
    friend constexpr bool operator==(CpuSet const& a, CpuSet const& b) {
        u64 difference = 0;
        for (std::size_t i = 0; i < a.words_.size(); i++)
            difference |= a.words_[i] ^ b.words_[i];
        return difference == 0;
    }

private:
    std::array<u64, max_cpus / 64> words_{};
};

} // namespace lib
