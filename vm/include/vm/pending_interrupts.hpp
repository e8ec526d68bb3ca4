// SPDX-License-Identifier: MIT
#pragma once
// Interrupts on their way to a vCPU. Any CPU posts; only the CPU that runs the vCPU takes, so that IRR itself needs no
// lock. The first 64 bytes have the layout of VT-x's posted-interrupt descriptor, which a CPU takes from by itself: one
// that it is given holds edge-triggered interrupts only, as the CPU knows nothing of `level`. [intel/vol3] 30.6
#include <atomic>
#include <vm/apic_page.hpp>

namespace vm {

enum class TriggerMode : u8 { Edge, Level };

struct alignas(64) PendingInterrupts {
    static constexpr u32 outstanding_bit = 1; // ON; bit 1 SN and bits 23:16 the notification vector are the backend's

    std::atomic<u64> bits[4]{};
    std::atomic<u32> outstanding{0};
    std::atomic<u32> notification_destination{0};
    u64 reserved[3]{};
    // Behind the descriptor: which of `bits` were posted as level-triggered.
    std::atomic<u64> level[4]{};

    // True when the owner has to be told: nobody has told it since it last took.
    bool post(u8 vector, TriggerMode trigger) {
        u32 const word = vector / 64U;
        u64 const mask = bit(vector % 64U);
        if (trigger == TriggerMode::Level)
            level[word].fetch_or(mask, std::memory_order_relaxed);
        else if ((level[word].load(std::memory_order_relaxed) & mask) != 0)
            level[word].fetch_and(~mask, std::memory_order_relaxed);
        // Release: who takes the bit also sees the trigger mode and whatever the sender wrote before its interrupt.
        if ((bits[word].fetch_or(mask, std::memory_order_acq_rel) & mask) != 0) return false;
        return (outstanding.fetch_or(outstanding_bit, std::memory_order_acq_rel) & outstanding_bit) == 0;
    }
    bool is_empty() const { return (outstanding.load(std::memory_order_acquire) & outstanding_bit) == 0; }
    // ON is cleared before the bits are read: what is posted later sets it again.
    void begin_take() { outstanding.fetch_and(~outstanding_bit, std::memory_order_acq_rel); }
    u64 take(u32 word) {
        return bits[word].load(std::memory_order_relaxed) == 0 ? 0 : bits[word].exchange(0, std::memory_order_acq_rel);
    }
    // On INIT and when the APIC is turned off.
    void discard() {
        begin_take();
        for (u32 i = 0; i < 4; ++i)
            take(i);
    }
};
static_assert(sizeof(PendingInterrupts) == 128 && offsetof(PendingInterrupts, outstanding) == 32 &&
              offsetof(PendingInterrupts, level) == 64);

} // namespace vm
