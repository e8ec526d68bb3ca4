// SPDX-License-Identifier: MIT
#include <kernel/calls.hpp>
#include <kernel/cpus.hpp>
#include <kernel/heap.hpp>
#include <kernel/run_loop.hpp>
#include <kernel/topology.hpp>
#include <kernel/traps.hpp>

namespace kernel {

namespace {
constinit Scheduler* the_scheduler = nullptr;
constexpr u32 nowhere = ~u32{0};
} // namespace

// The run loop of one CPU.
class RunLoop {
public:
    explicit RunLoop(Cpu& cpu) : cpu_(cpu), slice_timer_(Timer::Callback::to<&RunLoop::slice_ended>(*this)) {}

    [[noreturn]] void run() {
        for (;;) {
            // Cleared before the looking: what comes in meanwhile sets it again.
            cpu_.work_pending.exchange(false, std::memory_order_seq_cst);
            run_calls();
            run_deferred_work();
            u64 const at = now().value;
            Decision const decision = the_scheduler->pick(cpu_.index, at);
            arm(decision.until, at);
            if (decision.entity == nullptr) {
                idle();
                continue;
            }
            while (run_one(static_cast<Runnable&>(*decision.entity))) {
            }
        }
    }

    // Takes `runnable` out of the CPU it is loaded on, which is never running it at this time.
    static void unload(Runnable& runnable) {
        u32 const where = runnable.loaded_on_.load(std::memory_order_acquire);
        if (where == nowhere) return;
        Unload request{runnable};
        run_on(where, lib::Delegate<void()>::to<&Unload::go>(request));
    }

private:
    struct Unload {
        Runnable& runnable;
        void go() const {
            if (this_cpu().loaded == &runnable) unload_here(this_cpu());
        }
    };

    // `loaded` is its own CPU's business; others only look.
    static void unload_here(Cpu& cpu) {
        Runnable& runnable = *cpu.loaded.load(std::memory_order_relaxed);
        cpu.loaded.store(nullptr, std::memory_order_release);
        runnable.unload();
        runnable.loaded_on_.store(nowhere, std::memory_order_release);
    }

    void load(Runnable& next) {
        Runnable const* const before = cpu_.loaded.load(std::memory_order_relaxed);
        if (before == &next) return;
        if (before != nullptr) unload_here(cpu_);
        unload(next);
        cpu_.loaded.store(&next, std::memory_order_release);
        next.loaded_on_.store(cpu_.index, std::memory_order_release);
    }

    // True when it is to be run again at once.
    bool run_one(Runnable& runnable) {
        load(runnable);
        RunResult const result = runnable.run();
        switch (result) {
        case RunResult::Work: break;
        case RunResult::Yield: the_scheduler->yield(cpu_.index); break;
        case RunResult::Sleep:
            if (the_scheduler->nap(cpu_.index, now().value) && nap(runnable)) return true;
            // What came before run() ended is seen here; what comes later finds it outside run() and calls wake(),
            // which voids the sleep() if it is first.
            if (!runnable.has_wake_event()) the_scheduler->sleep(cpu_.index, now().value);
            break;
        case RunResult::Stopped:
            unload_here(cpu_);
            the_scheduler->stop(cpu_.index, now().value);
            runnable.stopped();
            break;
        }
        return false;
    }

    // HLT with the runnable in place. A wake() from now on only ends the HLT, or comes before the first look.
    bool nap(Runnable& runnable) {
        u64 const begin = begin_idling();
        runnable.napping_on_.store(cpu_.index, std::memory_order_seq_cst);
        is_napping_.store(true, std::memory_order_relaxed);
        bool is_awake = false;
        while (!cpu_.work_pending.load(std::memory_order_seq_cst)) {
            is_awake = runnable.has_wake_event();
            if (is_awake) break;
            lib::x86::sti_hlt();
            lib::x86::cli();
        }
        is_napping_.store(false, std::memory_order_relaxed);
        runnable.napping_on_.store(nowhere, std::memory_order_seq_cst);
        u64 const end = end_idling(begin);
        u64 const until = the_scheduler->end_nap(cpu_.index, end);
        if (!is_awake || until == Scheduler::over) return false;
        arm(until, end);
        return true;
    }

    void idle() {
        // Interrupts are off from this look to HLT, so no wake-up slips in between.
        if (cpu_.work_pending.load(std::memory_order_seq_cst)) return;
        u64 const begin = begin_idling();
        lib::x86::sti_hlt();
        lib::x86::cli();
        end_idling(begin);
    }

    u64 begin_idling() {
        if (cpu_features().c1e_stops_timer) [[unlikely]]
            turn_c1e_off();
        u64 const begin = now().value;
        cpu_.idle_since.store(begin, std::memory_order_relaxed);
        return begin;
    }
    u64 end_idling(u64 begin) {
        u64 const end = now().value;
        cpu_.idle_since.store(0, std::memory_order_relaxed);
        cpu_.idle_nanos.store(cpu_.idle_nanos.load(std::memory_order_relaxed) + end - begin, std::memory_order_relaxed);
        return end;
    }

    // A slice that ends while the CPU halts in its owner's favour is as good as a new one.
    void slice_ended() {
        if (!is_napping_.load(std::memory_order_relaxed)) cpu_.work_pending.store(true, std::memory_order_relaxed);
    }

    void arm(u64 until, u64 at) {
        if (until == armed_until_ && until > at) return;
        armed_until_ = until;
        if (until == Decision::never)
            cancel_timer(slice_timer_);
        else
            arm_timer(slice_timer_, tsc_of({until}));
    }

    Cpu& cpu_;
    Timer slice_timer_;
    u64 armed_until_ = Decision::never;
    std::atomic<bool> is_napping_{false}; // read by this CPU's interrupts
};

lib::Result<void> start_scheduler(Scheduler::Config const& config) {
    ASSERT(the_scheduler == nullptr);
    the_scheduler = new (std::nothrow) Scheduler;
    if (the_scheduler == nullptr) return lib::fail(lib::Errc::NoMemory);
    std::array<u32, max_cpus> cores{};
    for (u32 i = 0; i < cpu_count(); i++)
        cores[i] = machine_topology().place(i).core;
    set_interrupt_handler(vectors::kick, InterruptHandler::to_function<run_calls>());
    the_scheduler->start(config, cpu_count(), cores, Scheduler::Kick::to_function<request_attention>());
    return {};
}

Scheduler& scheduler() { return *the_scheduler; }

void run_cpu() {
    lib::x86::cli();
    RunLoop(this_cpu()).run();
}

void wake(Runnable& runnable) {
    InterruptGuard const no_interrupts;
    // It looks for itself: an interrupt that ends the HLT is all it takes, which this CPU has had.
    if (u32 const where = runnable.napping_on_.load(std::memory_order_seq_cst); where != nowhere)
        kick(where);
    else
        the_scheduler->wake(runnable, now().value);
}

lib::Result<void> remove_runnable(Runnable& runnable) {
    TRY(the_scheduler->remove(runnable));
    RunLoop::unload(runnable);
    return {};
}

void unload_runnable(Runnable& runnable) { RunLoop::unload(runnable); }

} // namespace kernel
