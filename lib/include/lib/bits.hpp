// SPDX-License-Identifier: MIT
#pragma once
// Registers as values with typed fields.
#include <concepts>
#include <lib/types.hpp>
#include <type_traits>

namespace lib {

// Bits [Hi:Lo] of a raw register, in the order the manuals write them.
template <std::unsigned_integral Raw, unsigned Hi, unsigned Lo = Hi,
          typename T = std::conditional_t<Hi == Lo, bool, Raw>>
struct Bits {
    using Value = T;
    static_assert(Hi >= Lo && Hi < sizeof(Raw) * 8);
    static constexpr Raw low_mask =
        Hi - Lo + 1 == sizeof(Raw) * 8 ? static_cast<Raw>(~Raw{0}) : static_cast<Raw>((Raw{1} << (Hi - Lo + 1)) - 1);
    static constexpr Raw mask = static_cast<Raw>(low_mask << Lo);
    static constexpr T get(Raw raw) { return static_cast<T>((raw >> Lo) & low_mask); }
    static constexpr Raw set(Raw raw, T value) {
        return static_cast<Raw>((raw & ~mask) | ((static_cast<Raw>(value) & low_mask) << Lo));
    }
};

// Base of every register value: a type of its own, with no conversion to or from integers.
template <typename Self, std::unsigned_integral R> struct Reg {
    using Raw = R;
    Raw raw{};
    template <typename F> constexpr auto get() const { return F::get(raw); }
    template <typename F> [[nodiscard]] constexpr Self with(typename F::Value value) const {
        return Self{{F::set(raw, value)}};
    }
    template <typename F> constexpr void set(typename F::Value value) { raw = F::set(raw, value); }
    friend constexpr bool operator==(Reg const&, Reg const&) = default;
};

constexpr u64 bit(unsigned n) { return u64{1} << n; }

} // namespace lib
