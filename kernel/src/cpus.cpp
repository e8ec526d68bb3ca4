// SPDX-License-Identifier: MIT
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/run_loop.hpp>
#include <kernel/traps.hpp>

namespace kernel {
namespace {

constinit std::array<Cpu*, max_cpus> all{};
constinit std::atomic<u32> count{0};

// A callback that arms its timer for the past gets its turn with the next interrupt, so one interrupt's work is bounded
// by how many timers there are, not by what a guest asks for.
constexpr unsigned max_callbacks_per_interrupt = 64;

} // namespace

u32 cpu_count() { return count.load(std::memory_order_acquire); }
Cpu& cpu(u32 index) { return *all[index]; }
void register_cpu(Cpu& cpu) {
    all[cpu.index] = &cpu;
    count.fetch_add(1, std::memory_order_release);
}

void kick(u32 index) {
    if (index != this_cpu().index) local_apic().send_ipi(cpu(index).apic_id, vectors::kick);
}

void request_attention(u32 index) {
    cpu(index).work_pending.store(true, std::memory_order_seq_cst);
    kick(index);
}

void arm_timer(Timer& timer, u64 deadline_tsc) {
    InterruptGuard const no_interrupts;
    Cpu& here = this_cpu();
    u32 const before = timer.queue_.load(std::memory_order_relaxed);
    if (before != here.index && before != ~0U) cancel_timer(timer);
    LockGuard const locked(here.timers.lock());
    timer.queue_.store(here.index, std::memory_order_relaxed);
    if (here.timers.arm(timer, deadline_tsc)) local_apic().arm_timer(here.timers.next_deadline());
}

void arm_timer_on(u32 index, Timer& timer, u64 deadline_tsc) {
    InterruptGuard const no_interrupts;
    if (index == this_cpu().index) return arm_timer(timer, deadline_tsc);
    if (timer.queue_.load(std::memory_order_relaxed) != index) cancel_timer(timer);
    Cpu& there = cpu(index);
    bool is_first = false;
    {
        LockGuard const locked(there.timers.lock());
        timer.queue_.store(index, std::memory_order_relaxed);
        is_first = there.timers.arm(timer, deadline_tsc);
    }
    // Only that CPU can set its own timer: run_timers() does so, early or not.
    if (is_first) local_apic().send_ipi(there.apic_id, vectors::timer);
}

void cancel_timer(Timer& timer) {
    u32 const index = timer.queue_.load(std::memory_order_relaxed);
    if (index == ~0U) return;
    TimerQueue& queue = cpu(index).timers;
    InterruptGuard const no_interrupts;
    LockGuard const locked(queue.lock());
    queue.cancel(timer); // the hardware may fire for nothing: cheaper than telling it
}

namespace {

// `payer` pays for what this CPU did since `begin_tsc`.
void charge_callback(SchedulerEntity& payer, u64 begin_tsc) {
    u32 const here = this_cpu().index;
    if (scheduler().is_paying(here, payer)) return;
    u64 const begin = tsc_scale().to_nanos(begin_tsc - tsc_at_time_zero());
    scheduler().charge_work(here, payer, begin, now().value);
}

} // namespace

void run_timers() { // by the interrupt
    TimerQueue& queue = this_cpu().timers;
    bool is_last = false;
    for (unsigned i = 0; !is_last; i++) {
        Timer* due = nullptr;
        u64 now_tsc = 0;
        {
            LockGuard const locked(queue.lock());
            now_tsc = lib::x86::rdtsc();
            if (i < max_callbacks_per_interrupt) due = queue.pop_due(now_tsc);
            // What fired is over; nothing needs to be stopped. The callback arms the hardware itself for what is
            // sooner.
            is_last = due == nullptr || queue.next_deadline() > now_tsc;
            if (is_last && queue.next_deadline() != TimerQueue::never) local_apic().arm_timer(queue.next_deadline());
        }
        if (due == nullptr) return;
        SchedulerEntity* const payer = TimerQueue::payer_of(*due); // the timer may be gone afterwards
        TimerQueue::call(*due);
        if (payer != nullptr) charge_callback(*payer, now_tsc);
    }
}

} // namespace kernel
