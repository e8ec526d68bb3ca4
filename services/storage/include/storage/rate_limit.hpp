// SPDX-License-Identifier: MIT
#pragma once
// A token bucket: so many units a second, and after a rest at once what accrues in burst_ticks(). Time is in ticks.
//
// Instead of what is in the bucket, it keeps the time at which the bucket is full again if nothing is taken until then.
// To take something moves that time, by a product and without a division; the bucket is empty when it is full only
// after burst_ticks(). What is taken may be more than the bucket has: it is paid off afterwards.
#include <algorithm>
#include <lib/fixed_point.hpp>

namespace storage {

using lib::u32;
using lib::u64;

class RateLimit {
public:
    static constexpr u32 bursts_of_a_second = 10;

    // There is no limit.
    RateLimit() = default;
    // `per_second` 0: there is no limit. At least `least` units are allowed at once, however low the rate is.
    // `ticks_per_second` is below 2^43.
    RateLimit(u64 per_second, u64 ticks_per_second, u64 least) {
        if (per_second == 0) return;
        price_ = lib::fixed_ratio_up(ticks_per_second, std::min(per_second, u64{1} << 62), fraction_bits);
        u64 const price_of_least = cost_of(least) >> fraction_bits;
        burst_ = std::max(ticks_per_second / bursts_of_a_second, price_of_least) - price_of_least;
    }

    bool is_limited() const { return price_ != 0; }
    // Whether something may be taken at the time `now`, and from when on it may.
    bool allows(u64 now) const { return !is_limited() || full_at_ <= now + burst_; }
    u64 allowed_at() const { return full_at_ - std::min(full_at_, burst_); }
    void take(u64 now, u64 units) {
        if (!is_limited()) return;
        u64 const cost = std::min(cost_of(units), ~u64{0} - fraction_) + fraction_;
        full_at_ = std::max(full_at_, now) + (cost >> fraction_bits);
        fraction_ = cost % (u64{1} << fraction_bits);
    }

private:
    static constexpr u32 fraction_bits = 20; // of a tick

    u64 cost_of(u64 units) const {
        u64 cost = 0;
        return __builtin_mul_overflow(units, price_, &cost) ? ~u64{0} : cost;
    }

    u64 price_ = 0;                  // of a unit, in ticks and fraction_bits of one
    u64 burst_ = 0;                  // ticks that the bucket may be from full for something to be taken
    u64 full_at_ = 0, fraction_ = 0; // ticks, and the rest in parts of one
};

} // namespace storage
