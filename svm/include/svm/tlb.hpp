// SPDX-License-Identifier: MIT
#pragma once
// Address-space identifiers and TLB flushes. [amd/vol2] 15.16
//
// Each CPU hands out its own ASIDs, in order. When they run out, the next entry flushes the whole TLB and counting
// starts again: a new generation, in which every ASID of an older one is void. A vCPU that needs its own translations
// forgotten takes a fresh ASID, or has its own flushed where the CPU can do that alone.
#include <atomic>
#include <svm/vmcb.hpp>

namespace svm {

// What a vCPU holds: an ASID and the generation it belongs to. Generations of different CPUs differ too.
struct AsidLease {
    u32 asid = 0;
    u64 generation = 0; // 0: none
};

class AsidPool {
public:
    // `count` as CPUID 8000_000Ah EBX has it: ASIDs 0 (the host's) to count - 1 exist.
    void start(u32 count, u32 cpu) {
        constexpr u64 cpu_bits = 16;
        last_ = count - 1;
        step_ = u64{1} << cpu_bits;
        generation_ = (generation_ >> cpu_bits << cpu_bits) | cpu;
        expire();
    }
    bool is_current(AsidLease const& lease) const { return lease.generation == generation_; }
    AsidLease take() {
        if (next_ > last_) expire();
        return {next_++, generation_};
    }
    // All leases end, and the next entry flushes everything.
    void expire() {
        next_ = 1;
        generation_ += step_;
        must_flush_ = true;
    }
    // Whether the entry that follows has to flush everything; asked once, with the lease that it needs taken.
    bool take_flush() {
        bool const flush = must_flush_;
        must_flush_ = false;
        return flush;
    }

private:
    u64 generation_ = 0;
    u64 step_ = 0;
    u32 next_ = 1;
    u32 last_ = 1;
    bool must_flush_ = false;
};

// Counts changes of nested tables that took something away. A CPU that enters a guest with an older number in mind
// flushes everything first.
u64 flush_epoch();
// Returns when no CPU can use a translation from before the call.
void flush_everywhere();

// The CPU's part in that: around each entry.
class GuestPresence {
public:
    // True when everything has to be flushed.
    bool enter() {
        inside_.exchange(seen_,
                         std::memory_order_seq_cst); // before the epoch is read: flush_everywhere() looks at it after
        u64 const epoch = flush_epoch();
        if (epoch == seen_) [[likely]]
            return false;
        seen_ = epoch;
        inside_.store(epoch, std::memory_order_release);
        return true;
    }
    void leave() { inside_.store(outside, std::memory_order_release); }
    bool may_use_older_than(u64 epoch) const { return inside_.load(std::memory_order_seq_cst) < epoch; }

private:
    static constexpr u64 outside = ~u64{0};
    std::atomic<u64> inside_{outside}; // the epoch whose translations the guest may use
    u64 seen_ = 0;
};

} // namespace svm
