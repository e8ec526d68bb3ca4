#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
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

void cancel_timer(Timer& timer) {
    u32 const index = timer.queue_.load(std::memory_order_relaxed);
    if (index == ~0U) return;
    TimerQueue& queue = cpu(index).timers;
    InterruptGuard const no_interrupts;
    LockGuard const locked(queue.lock());
    queue.cancel(timer); // the hardware may fire for nothing: cheaper than telling it
}

void run_timers() { // by the interrupt
    TimerQueue& queue = this_cpu().timers;
    bool is_last = false;
    for (unsigned i = 0; !is_last; i++) {
        Timer* due = nullptr;
        {
            LockGuard const locked(queue.lock());
            u64 const now_tsc = lib::x86::rdtsc();
            if (i < max_callbacks_per_interrupt) due = queue.pop_due(now_tsc);
            // What fired is over; nothing needs to be stopped. The callback arms the hardware itself for what is
            // sooner.
            is_last = due == nullptr || queue.next_deadline() > now_tsc;
            if (is_last && queue.next_deadline() != TimerQueue::never) local_apic().arm_timer(queue.next_deadline());
        }
        if (due != nullptr) TimerQueue::call(*due);
    }
}

} // namespace kernel
