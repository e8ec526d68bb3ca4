// SPDX-License-Identifier: MIT
#pragma once
// Counts what one guest's disk does, where Mullion reads it. Each request pays for it, so nothing here divides.
#include <algorithm>
#include <bit>
#include <lib/service_board.hpp>

namespace storage {

using lib::u32;
using lib::u64;

class DiskCounters {
public:
    using Kind = lib::service::DiskRequest;

    // Goes on with what is there; requests of an instance before are not under way any more.
    void start(lib::service::DiskStatistics& statistics, u64 ticks_per_second) {
        statistics_ = &statistics;
        statistics.under_way = 0;
        microsecond_ = (u64{1'000'000} << fraction_bits) / std::max<u64>(ticks_per_second, 1'000'000);
    }
    void taken() {
        u32 const now = ++statistics_->under_way;
        if (now > statistics_->most_under_way) statistics_->most_under_way = now;
    }
    void moved(Kind kind, u64 bytes) { statistics_->bytes[static_cast<u32>(kind)] += bytes; }
    void dropped() { statistics_->under_way--; }
    void given_back(Kind kind, bool is_good, u64 ticks) {
        auto const index = static_cast<u32>(kind);
        statistics_->under_way--;
        statistics_->requests[index]++;
        if (!is_good) statistics_->errors++;
        if (index < lib::service::latency_kinds) statistics_->latencies[index][step_of(ticks)]++;
    }
    // The step of a time. Less than nothing, as the clocks of two CPUs may differ by some ticks, counts as nothing.
    u32 step_of(u64 ticks) const {
        if (ticks > ~u64{0} / 2) return 0;
        u64 const microseconds = std::min(ticks, longest) * microsecond_ >> fraction_bits;
        return std::min(static_cast<u32>(std::bit_width(microseconds)), lib::service::latency_steps - 1);
    }

private:
    static constexpr u32 fraction_bits = 20;
    static constexpr u64 longest = u64{1} << 40; // ticks: minutes, and the product stays below 2^64

    lib::service::DiskStatistics* statistics_ = nullptr;
    u64 microsecond_ = 0; // in a tick, with fraction_bits
};

} // namespace storage
