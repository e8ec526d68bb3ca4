// SPDX-License-Identifier: MIT
#include <kernel/log.hpp>
#include <kernel/tsc_sync.hpp>
#include <lib/x86/instructions.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {

namespace x86 = lib::x86;

void log_tsc_agreement(u64 nanos) {
    if (nanos <= tsc_agreement_limit)
        return log_info("cpus: TSCs agree within {}.{:03} us", nanos / 1000, nanos % 1000);
    log_warning(
        "cpus: TSCs may be {} us apart, because CPUs answered too late to measure it better: a guest with vCPUs on "
        "several CPUs may see time jump by as much",
        nanos / 1000);
}

void TscProbe::answer() {
    for (;;) {
        Request const request = request_.load(std::memory_order_acquire);
        if (request == Request::End) return;
        if (request == Request::None) {
            x86::pause();
            continue;
        }
        if (request == Request::Read)
            value_.store(x86::rdtsc(), std::memory_order_relaxed);
        else
            x86::wrmsr(x86::IA32_TSC_ADJUST, x86::rdmsr(x86::IA32_TSC_ADJUST) + value_.load(std::memory_order_relaxed));
        request_.store(Request::None, std::memory_order_release);
    }
}

bool TscProbe::ask(Request request, u64 limit) {
    request_.store(request, std::memory_order_release);
    for (u64 const begin = x86::rdtsc(); request_.load(std::memory_order_acquire) != Request::None; x86::pause())
        if (x86::rdtsc() - begin > limit) return false;
    return true;
}

// Like a network clock: the other's reading lies somewhere between two of ours; the closest pair says most.
TscSkew TscProbe::measure(u64 limit, u32 rounds, u64 good) {
    TscSkew best;
    u64 const begin = x86::rdtsc();
    for (u32 round = 0; (round < rounds || best.within > good) && x86::rdtsc() - begin < limit; round++) {
        u64 const before = x86::rdtsc();
        if (!ask(Request::Read, limit)) break;
        u64 const after = x86::rdtsc();
        u64 const within = (after - before) / 2;
        if (within >= best.within) continue;
        best = {static_cast<i64>(value_.load(std::memory_order_relaxed) - (before + within)), within};
    }
    return best;
}

bool TscProbe::correct(TscSkew const& skew, u64 limit) {
    value_.store(u64{0} - static_cast<u64>(skew.ticks), std::memory_order_relaxed);
    return ask(Request::Adjust, limit);
}

} // namespace kernel
