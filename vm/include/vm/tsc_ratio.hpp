// SPDX-License-Identifier: MIT
#pragma once
// The rate of a guest's TSC against the machine's, as the CPU's TSC scaling multiplies. [intel/vol3] 25.6.5, 26.3
#include <algorithm>
#include <lib/fixed_point.hpp>
#include <optional>

namespace vm {

using lib::u64;

class TscRatio {
public:
    static constexpr unsigned fraction_bits = 48;
    constexpr TscRatio() = default; // the same rate
    // Rates from 1 MHz to 64 GHz; at most 4096 to one either way. nullopt outside of it.
    static constexpr std::optional<TscRatio> of(u64 guest_hz, u64 host_hz) {
        constexpr u64 least = 1'000'000, most = 64'000'000'000, steepest = 4096;
        if (guest_hz == host_hz) return TscRatio();
        for (u64 const hz : {guest_hz, host_hz})
            if (hz < least || hz > most) return std::nullopt;
        if (guest_hz / host_hz >= steepest || host_hz / guest_hz >= steepest) return std::nullopt;
        TscRatio ratio;
        bool is_exact = false;
        ratio.multiplier_ = lib::fixed_ratio(guest_hz, host_hz, fraction_bits, is_exact);
        ratio.inverse_ =
            lib::fixed_ratio_up(one, ratio.multiplier_, fraction_bits); // of what the hardware does, not of the rates
        return ratio;
    }

    constexpr bool is_one() const { return multiplier_ == one; }
    // What the hardware multiplies by: 16.48 fixed point.
    constexpr u64 multiplier() const { return multiplier_; }

    // The guest's TSC, but for the offset, when the machine's is `host`: exactly what the hardware computes.
    constexpr u64 to_guest(u64 host) const {
        if (is_one()) return host;
        return static_cast<u64>((lib::u128{host} * multiplier_) >> fraction_bits);
    }
    // How many of the machine's ticks pass at least until `guest` of the guest's have. The largest number when it is
    // too large for 64 bits. The error is below two ticks plus 2^-35 of the time.
    constexpr u64 to_host_ticks(u64 guest) const {
        if (is_one()) return guest;
        lib::u128 const ticks = ((lib::u128{guest} * inverse_) >> fraction_bits) + 2;
        return ticks >> 64 != 0 ? ~u64{0} : static_cast<u64>(ticks);
    }

private:
    static constexpr u64 one = u64{1} << fraction_bits;
    u64 multiplier_ = one;
    u64 inverse_ = one;
};

} // namespace vm
