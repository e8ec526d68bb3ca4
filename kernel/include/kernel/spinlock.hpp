#pragma once
// Data lives in its lock, every lock has a rank (docs/LOCKING.md). A CPU takes locks in rising rank only; debug builds
// check it. Interrupts are off for as long as a lock is held.
#include <atomic>
#include <lib/assert.hpp>
#include <lib/types.hpp>
#include <lib/x86/instructions.hpp>
#include <utility>

namespace kernel {

enum class LockRank : lib::u8 { Platform, Vm, Scheduler, Timers, Calls, Memory, Console, Log };

namespace detail {
#ifdef MULLION_DEBUG
void lock_order_enter(LockRank rank); // kernel/src/cpu.cpp: the CPU's bit set of held ranks
void lock_order_leave(LockRank rank);
#else
inline void lock_order_enter(LockRank) {}
inline void lock_order_leave(LockRank) {}
#endif
} // namespace detail

// Ticket lock: first come, first served.
class Spinlock {
public:
    constexpr Spinlock() = default;
    Spinlock(Spinlock const&) = delete;
    Spinlock& operator=(Spinlock const&) = delete;
    void lock() {
        lib::u32 const ticket = next_.fetch_add(1, std::memory_order_relaxed);
        while (serving_.load(std::memory_order_acquire) != ticket)
            lib::x86::pause();
    }
    void unlock() { serving_.store(serving_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

private:
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

template <typename T, LockRank Rank> class Guarded {
public:
    constexpr Guarded() = default;
    template <typename... Args>
    constexpr explicit Guarded(std::in_place_t, Args&&... args) : data_(std::forward<Args>(args)...) {}

    // Calls `body` with the data, under the lock, and returns what it returns.
    template <typename F> decltype(auto) with(F&& body) {
        Hold const hold(lock_);
        return std::forward<F>(body)(data_);
    }
    // For the panic path only, where the owner may be this very CPU.
    T& without_lock() { return data_; }

private:
    class Hold {
    public:
        explicit Hold(Spinlock& lock) : lock_(lock) {
            detail::lock_order_enter(Rank);
            lock_.lock();
        }
        ~Hold() {
            lock_.unlock();
            detail::lock_order_leave(Rank);
        }
        Hold(Hold const&) = delete;
        Hold& operator=(Hold const&) = delete;

    private:
        InterruptGuard interrupts_;
        Spinlock& lock_;
    };
    Spinlock lock_;
    T data_{};
};

} // namespace kernel
