// SPDX-License-Identifier: MIT
#pragma once
// Work that one CPU gives another. Two kinds: calls, which interrupt whatever the other does, are short, and are waited
// for (a TLB shootdown, taking a vCPU's state out of a CPU); and deferred work, which the other's run loop does between
// two guests, when it comes round, and nobody waits for.
#include <array>
#include <atomic>
#include <kernel/spinlock.hpp>
#include <lib/delegate.hpp>
#include <lib/intrusive_list.hpp>

namespace kernel {

// Embedded in its owner, which must live until it has run.
class DeferredWork : public lib::ListLink<DeferredWork> {
public:
    using Body = lib::Delegate<void()>;
    constexpr DeferredWork() = default;
    explicit constexpr DeferredWork(Body body) : body_(body) {}
    void set_body(Body body) { body_ = body; }

private:
    friend void defer(lib::u32 cpu, DeferredWork& work);
    friend void run_deferred_work();
    Body body_;
    std::atomic<bool> is_queued_{false};
};

// From any CPU and context. What is queued already is queued once.
void defer(lib::u32 cpu, DeferredWork& work);
// By the run loop.
void run_deferred_work();

// Runs `body` on that CPU, in its kick interrupt, and returns when it has. The caller holds no lock; while it waits, it
// serves calls to itself, so that two CPUs may call each other. A CPU that does not answer is interrupted again each
// second and named in the log; after a minute without an answer the machine stops with a panic that names it.
void run_on(lib::u32 cpu, lib::Delegate<void()> body);
// The same on every CPU but this one, all at once.
void run_on_others(lib::Delegate<void()> body);
// Returns when every other CPU has left whatever interrupt handler or guest exit it was in.
void wait_for_other_cpus();
// Serves the calls to this CPU: the handler of vectors::kick.
void run_calls();

// What waits for one CPU.
struct CallQueue {
    struct Call : lib::ListLink<Call> {
        lib::Delegate<void()> body;
        std::atomic<bool> is_done{false};
    };
    struct Lists {
        lib::IntrusiveList<Call> calls;
        lib::IntrusiveList<DeferredWork> work;
    };
    Guarded<Lists, LockRank::Calls> lists;
    std::atomic<bool> has_calls{false};
    std::atomic<bool> has_work{false};
};

} // namespace kernel
