// SPDX-License-Identifier: MIT
#pragma once
// How long exits take, by reason: from the first instruction after the exit to the one before the next entry, in TSC
// ticks. Filled only while somebody asked for it (Vcpu::measure_exits).
#include <array>
#include <bit>
#include <vm/exit.hpp>

namespace vm {

struct ExitTimes {
    // Bucket i counts exits of up to 2^(i + smallest) ticks, the last one the rest too.
    static constexpr unsigned buckets = 16, smallest = 6;

    struct Reason {
        u64 count = 0, ticks = 0, longest = 0;
        std::array<u64, buckets> histogram{};
    };
    std::array<Reason, exit_reason_count> reasons{};

    static constexpr unsigned bucket_of(u64 ticks) {
        unsigned const bits =
            ticks < 2 ? 0 : 64 - static_cast<unsigned>(std::countl_zero(ticks - 1)); // 2^bits >= ticks
        return bits <= smallest ? 0 : bits - smallest < buckets ? bits - smallest : buckets - 1;
    }
    void clear() { // one by one: all of it is too much for a stack
        for (Reason& reason : reasons)
            reason = {};
    }
    void add(ExitReason reason, u64 ticks) {
        Reason& here = reasons.data()[static_cast<unsigned>(reason)];
        here.count++;
        here.ticks += ticks;
        if (ticks > here.longest) here.longest = ticks;
        here.histogram.data()[bucket_of(ticks)]++;
    }
    void add(ExitTimes const& other) {
        for (unsigned i = 0; i < exit_reason_count; i++) {
            Reason& here = reasons[i];
            Reason const& there = other.reasons[i];
            here.count += there.count;
            here.ticks += there.ticks;
            if (there.longest > here.longest) here.longest = there.longest;
            for (unsigned b = 0; b < buckets; b++)
                here.histogram[b] += there.histogram[b];
        }
    }
};

} // namespace vm
