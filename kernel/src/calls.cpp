// SPDX-License-Identifier: MIT
#include <kernel/calls.hpp>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <kernel/panic.hpp>
#include <kernel/time.hpp>

namespace kernel {
namespace {

using lib::u32;
using Call = CallQueue::Call;

constexpr u32 batch = 16; // calls on the way at once: they lie on the caller's stack

void send(u32 index, Call& call, lib::Delegate<void()> body) {
    call.body = body;
    CallQueue& queue = cpu(index).calls;
    queue.lists.with([&](CallQueue::Lists& lists) { lists.calls.push_back(call); });
    queue.has_calls.store(true, std::memory_order_release);
    kick(index);
}

// A CPU answers within microseconds; one whose thread an emulator or a hypervisor below does not run may take seconds.
constexpr u64 seconds_to_next_kick = 1;
constexpr u32 most_kicks = 60;

// `call` lies on this CPU's stack, so there is no way on without an answer: a CPU that never gives one is the machine's
// end. A time in which this CPU stood still itself counts as one kick, however long it was.
void wait_for(u32 index, Call const& call) {
    ASSERT(this_cpu().held_lock_ranks == 0); // whom we wait for may wait for that lock
    u64 const patience = seconds_to_next_kick * tsc_scale().hz();
    u64 since = lib::x86::rdtsc();
    u32 kicks = 0;
    while (!call.is_done.load(std::memory_order_acquire)) {
        run_calls();
        lib::x86::pause();
        u64 const now_tsc = lib::x86::rdtsc();
        if (patience == 0 || now_tsc - since < patience) continue;
        since = now_tsc;
        if (++kicks > most_kicks) {
            std::array<char, 120> text{};
            panic(lib::format_to(text, "CPU {} (APIC id {:#x}) has not answered for {} s", index, cpu(index).apic_id,
                                 most_kicks * seconds_to_next_kick));
        }
        if (kicks == 1)
            log_warning("CPU {} (APIC id {:#x}) does not answer; interrupting it again", index, cpu(index).apic_id);
        kick(index);
    }
}

} // namespace

void defer(u32 index, DeferredWork& work) {
    if (work.is_queued_.exchange(true, std::memory_order_acq_rel)) return;
    CallQueue& queue = cpu(index).calls;
    queue.lists.with([&](CallQueue::Lists& lists) { lists.work.push_back(work); });
    queue.has_work.store(true, std::memory_order_release);
    request_attention(index);
}

void run_deferred_work() {
    CallQueue& queue = this_cpu().calls;
    if (!queue.has_work.load(std::memory_order_relaxed) || !queue.has_work.exchange(false, std::memory_order_acquire))
        return;
    // One that defers itself again has its turn next time.
    DeferredWork* last = nullptr;
    queue.lists.with([&](CallQueue::Lists& lists) { last = lists.work.back(); });
    while (last != nullptr) {
        DeferredWork* const work = queue.lists.with([](CallQueue::Lists& lists) { return lists.work.pop_front(); });
        if (work == nullptr) return;
        bool const is_last = work == last;
        DeferredWork::Body const body = work->body_;
        work->is_queued_.store(false, std::memory_order_release);
        body(); // `work` may be gone afterwards
        if (is_last) return;
    }
}

void run_calls() {
    CallQueue& queue = this_cpu().calls;
    if (!queue.has_calls.exchange(false, std::memory_order_acq_rel)) return;
    while (Call* const call = queue.lists.with([](CallQueue::Lists& lists) { return lists.calls.pop_front(); })) {
        call->body();
        call->is_done.store(true, std::memory_order_release); // from here on it is the caller's stack again
    }
}

void run_on(u32 index, lib::Delegate<void()> body) {
    InterruptGuard const no_interrupts;
    if (index == this_cpu().index) {
        body();
        return;
    }
    Call call;
    send(index, call, body);
    wait_for(index, call);
}

void run_on_others(lib::Delegate<void()> body) {
    InterruptGuard const no_interrupts;
    u32 const own = this_cpu().index;
    u32 const count = cpu_count();
    for (u32 first = 0; first < count; first += batch) {
        std::array<Call, batch> calls;
        for (u32 i = 0; i < batch && first + i < count; i++)
            if (first + i != own) send(first + i, calls[i], body);
        for (u32 i = 0; i < batch && first + i < count; i++)
            if (first + i != own) wait_for(first + i, calls[i]);
    }
}

namespace {
void nothing() {}
} // namespace
void wait_for_other_cpus() { run_on_others(lib::Delegate<void()>::to_function<nothing>()); }

} // namespace kernel
