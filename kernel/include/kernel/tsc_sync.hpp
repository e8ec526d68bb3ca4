// SPDX-License-Identifier: MIT
#pragma once
// How far the TSC of a CPU that starts is from another's, and its correction by IA32_TSC_ADJUST. [intel/vol3] 18.17.3
#include <atomic>
#include <lib/types.hpp>

namespace kernel {

using lib::i64;
using lib::u32;
using lib::u64;

struct TscSkew {
    static constexpr u64 unknown = ~u64{0};
    i64 ticks = 0;        // the other's TSC less ours
    u64 within = unknown; // ticks that the measurement itself may be off
    // A guest with vCPUs on both CPUs could see time go back.
    bool is_noticeable(u64 tolerance) const {
        return within != unknown && static_cast<u64>(ticks < 0 ? -ticks : ticks) > within + tolerance;
    }
};

// Says in the log how far guests may rely on the TSCs of the CPUs being one clock. No two of them are further apart
// than `nanos`, as far as could be measured. Above the limit that is nothing to rely on, and a warning.
inline constexpr u64 tsc_agreement_limit = 10'000; // ns; less than what a vCPU needs to move or to send an interrupt
void log_tsc_agreement(u64 nanos);

class TscProbe {
public:
    void reset() { request_.store(Request::None, std::memory_order_relaxed); }
    // The CPU that is measured: returns when end() has been called. Interrupts are off.
    void answer();
    // The other one. Measures for at most `limit` ticks, and for `rounds` of them if one is as close as `good` ticks.
    TscSkew measure(u64 limit, u32 rounds, u64 good);
    // Moves the measured CPU's TSC by -skew.ticks. False: it does not answer.
    bool correct(TscSkew const& skew, u64 limit);
    void end() { request_.store(Request::End, std::memory_order_release); }

private:
    enum class Request : u32 { None, Read, Adjust, End };
    bool ask(Request request, u64 limit);
    std::atomic<Request> request_{Request::None};
    std::atomic<u64> value_{0}; // of the TSC, or what to add to it
};

} // namespace kernel
