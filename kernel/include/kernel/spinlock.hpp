// SPDX-License-Identifier: MIT
#pragma once
// Data lives in its lock, and every lock has a rank (docs/LOCKING.md). A CPU takes locks in rising rank only and with
// interrupts off, which debug builds check.
#include <atomic>
#include <lib/assert.hpp>
#include <lib/types.hpp>
#include <lib/x86/instructions.hpp>
#include <utility>

namespace kernel {

enum class LockRank : lib::u8 {
    Platform,
    Devices,
    Vm,
    SchedulerSettings,
    Scheduler,
    Timers,
    Calls,
    Interrupts,
    Pci,
    Memory,
    ConsoleInput,
    Log,
    ConsoleOutput,
};

namespace detail {
#ifdef MULLION_DEBUG
// kernel/src/cpu.cpp: the CPU's bit set of held ranks.
void lock_order_enter(LockRank rank);
void lock_order_enter_second(LockRank rank);
void lock_order_leave(LockRank rank);
#else
inline void lock_order_enter(LockRank) {}
inline void lock_order_enter_second(LockRank) {}
inline void lock_order_leave(LockRank) {}
#endif
} // namespace detail

// Ticket lock: first come, first served. The caller has interrupts off for as long as it holds it; LockGuard below is
// how it is held.
template <LockRank Rank> class Spinlock {
public:
    constexpr Spinlock() = default;
    Spinlock(Spinlock const&) = delete;
    Spinlock& operator=(Spinlock const&) = delete;
    void lock() {
        detail::lock_order_enter(Rank);
        wait_for_turn();
    }
    void unlock() {
        release();
        detail::lock_order_leave(Rank);
    }
    // While one lock of this rank is held, where an order among them is written down. That one is unlocked last.
    void lock_second() {
        detail::lock_order_enter_second(Rank);
        wait_for_turn();
    }
    void unlock_second() { release(); }

private:
    void wait_for_turn() {
        lib::u32 const ticket = next_.fetch_add(1, std::memory_order_relaxed);
        while (serving_.load(std::memory_order_acquire) != ticket)
            lib::x86::pause();
    }
    void release() { serving_.store(serving_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

    std::atomic<lib::u32> next_{0};
    std::atomic<lib::u32> serving_{0};
};

// Interrupts off while it lives; restores what was before.
class InterruptGuard {
public:
    InterruptGuard() : flags_(lib::x86::read_flags()) { lib::x86::cli(); }
    ~InterruptGuard() {
        if ((flags_ & (1U << 9)) != 0) lib::x86::sti();
    }
    InterruptGuard(InterruptGuard const&) = delete;
    InterruptGuard& operator=(InterruptGuard const&) = delete;

private:
    lib::u64 flags_;
};

// Holds a lock while it lives. Interrupts are off already.
template <typename Lock> class [[nodiscard]] LockGuard {
public:
    explicit LockGuard(Lock& lock) : lock_(lock) { lock_.lock(); }
    ~LockGuard() { lock_.unlock(); }
    LockGuard(LockGuard const&) = delete;
    LockGuard& operator=(LockGuard const&) = delete;

private:
    Lock& lock_;
};

template <typename T, LockRank Rank> class Guarded {
public:
    constexpr Guarded() = default;
    template <typename... Args>
    constexpr explicit Guarded(std::in_place_t, Args&&... args) : data_(std::forward<Args>(args)...) {}

    // Calls `body` with the data, under the lock, and returns what it returns.
    template <typename F> decltype(auto) with(F&& body) {
        InterruptGuard const no_interrupts;
        LockGuard const locked(lock_);
        return std::forward<F>(body)(data_);
    }
    // For the panic path only, where the owner may be this very CPU.
    T& without_lock() { return data_; }

private:
    Spinlock<Rank> lock_;
    T data_{};
};

} // namespace kernel
