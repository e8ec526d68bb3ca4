// SPDX-License-Identifier: MIT
// Between cores: stealing, finding a place for who wakes or must move, telling idle CPUs.
#include "scheduler_locks.hpp"
#include <algorithm>

namespace kernel {
void Scheduler::start(Config const& config, u32 cpu_count, std::array<u32, max_cpus> const& core_numbers, Kick kick) {
    config_ = config;
    kick_ = kick;
    cpu_count_ = std::min(cpu_count, max_cpus);
    word_count_ = (cpu_count_ + 63) / 64;
    for (u32 cpu = 0; cpu < cpu_count_; cpu++) {
        u32 sibling = 0;
        while (sibling < cpu && core_numbers[sibling] != core_numbers[cpu])
            sibling++;
        u32 const index = sibling < cpu ? core_of(sibling).index : core_count_++;
        Core& own = cores_[index];
        own.index = index;
        cpus_[cpu].core = &own;
        cpus_[cpu].index = cpu;
        cpus_[cpu].victim = index;
        own.has_siblings = !own.cpus.is_empty();
        own.cpus.add(cpu);
    }
    publish_shared(CpuSet::first(cpu_count_));
}

// Queue and running ones alike: their order among each other stays.
void Scheduler::shift_all(Core& core, u64 by) {
    core.virtual_time += by;
    for (auto* entity = core.waiting.front(); entity != nullptr; entity = core.waiting.next(*entity))
        entity->virtual_time_ += by;
    core.cpus.for_each([&](u32 cpu) {
        if (cpus_[cpu].current != nullptr) cpus_[cpu].current->virtual_time_ += by;
    });
}

// Moves one entity that `cpu` may run from another core's queue into its own. When balancing, only one that is behind
// what waits here by more than its slice. Queues that never compete drift apart without bound; what is more than
// `any_lag` slices is drift and no claim, and is taken out of the whole queue at once.
bool Scheduler::steal(u32 cpu, Core& from, bool is_balancing) {
    Core& core = core_of(cpu);
    PairLock const locked(core, from);
    SchedulerEntity* found = from.waiting.front();
    while (found != nullptr &&
           !(may_use(*found, cpu) && (is_balancing || (group_fits(core, *found) && core.wanted_group == none))))
        found = from.waiting.next(*found);
    if (found == nullptr) return false;
    if (SchedulerEntity const* const own = first_for(core, cpu); own != nullptr) {
        u64 const step = step_of(*found);
        u64 const lag = any_lag * step;
        if (is_balancing && !is_before(found->virtual_time_ + step, own->virtual_time_)) {
            u64 const floor = found->virtual_time_ - step - lag;
            if (is_before(own->virtual_time_, floor)) shift_all(core, floor - own->virtual_time_);
            return false;
        }
        if (is_before(found->virtual_time_ + lag, own->virtual_time_))
            shift_all(from, own->virtual_time_ - lag - found->virtual_time_);
    }
    take_out(from, *found);
    found->home_.store(core.index, std::memory_order_relaxed);
    join(core, *found, any_lag);
    insert_waiting(core, *found);
    return true;
}

bool Scheduler::steal_any(u32 cpu) {
    Core const& own = core_of(cpu);
    for (u32 i = 1; i < core_count_ && is_anybody_waiting(&own); i++) {
        Core& from = cores_[(own.index + i) % core_count_];
        if (waiting_cores_.has(from.index) && steal(cpu, from, false)) return true;
    }
    return false;
}

void Scheduler::balance(u32 cpu) {
    CpuState& state = cpus_[cpu];
    u32 looked_at = 0;
    for (u32 i = 1; i < core_count_ && looked_at < balance_victims && is_anybody_waiting(state.core); i++) {
        state.victim = (state.victim + 1) % core_count_;
        Core& from = cores_[state.victim];
        if (&from == state.core || !waiting_cores_.has(from.index)) continue;
        looked_at++;
        steal(cpu, from, true);
    }
}

// An idle CPU that may run the entity, no longer marked idle: the caller must kick it. `none`: there is none.
u32 Scheduler::claim_idle_cpu(SchedulerEntity const& entity, u32 preferred_core) {
    for (bool const is_preferred : {true, false}) {
        for (u32 word = 0; word < word_count_; word++) {
            // Most that idle on a machine of pinned vCPUs are not for this one.
            u64 bits = idle_.word(word) & entity.settings_.allowed.word(word);
            while (bits != 0) {
                u32 const cpu = word * 64 + static_cast<u32>(std::countr_zero(bits));
                bits &= bits - 1;
                if ((core_of(cpu).index == preferred_core) != is_preferred) continue;
                // A core that is about to change hands has its idle CPUs for those who wait for just that.
                Core const& core = core_of(cpu);
                u32 const wanted = core.wanted_group.load(std::memory_order_relaxed);
                if (wanted != none && wanted != entity.group_) continue;
                if (may_use(entity, cpu) && group_fits(core, entity) && idle_.take(cpu)) return cpu;
            }
        }
    }
    return none;
}

// Without an idle CPU: the preferred core if it may be used, else the shortest queue.
u32 Scheduler::core_for(SchedulerEntity const& entity, u32 preferred_core) {
    if (may_use_core(entity, cores_[preferred_core])) return preferred_core;
    u32 best = none;
    u32 best_count = ~u32{0};
    for (u32 i = 0; i < core_count_; i++) {
        u32 const count = cores_[i].waiting_count.load(std::memory_order_relaxed);
        if (count >= best_count || !may_use_core(entity, cores_[i])) continue;
        best = i;
        best_count = count;
    }
    return best == none ? preferred_core : best; // the caller of set_affinity() is about to move it again
}

// Queues an entity that is in no list in `core`, its home from now on, and finds out who must look.
void Scheduler::put_into(Core& core, SchedulerEntity& entity, u64 now, u32 idle_cpu, CpuSet& kicks) {
    entity.home_.store(core.index, std::memory_order_relaxed);
    if (throttle_if_spent(core, entity, now)) {
        // Somebody there must arm a timer for it.
        for (u32 cpu = core.cpus.next(0); cpu < max_cpus; cpu = core.cpus.next(cpu + 1))
            if (is_shared(cpu)) {
                kicks.add(cpu);
                break;
            }
        return;
    }
    core.cpus.for_each([&](u32 cpu) {
        // Without a slice it has not been charged for long, and the core's virtual time stood still.
        CpuState& state = cpus_[cpu];
        if (!state.is_alone || state.current == nullptr || state.is_napping) return;
        charge(state, now);
        if (is_before(core.virtual_time, state.current->virtual_time_))
            core.virtual_time = state.current->virtual_time_;
    });
    join(core, entity, idle_cpu == none ? 1 : any_lag);
    insert_waiting(core, entity);
    if (idle_cpu != none) return;
    tell_idle_siblings(core, entity, kicks);
    // Who has had most makes room, if that is clearly more than what this one has had.
    u32 victim = none;
    u64 most = entity.virtual_time_ + scaled(entity, config_.shortest_slice);
    core.cpus.for_each([&](u32 cpu) {
        CpuState const& state = cpus_[cpu];
        if (state.current == nullptr || !may_use(entity, cpu)) return;
        u64 const had = state.current->virtual_time_ +
                        (now > state.charged_at ? scaled(*state.current, now - state.charged_at) : 0);
        if (!is_before(most, had)) return;
        most = had;
        victim = cpu;
    });
    if (victim != none) kicks.add(victim);
}

// CPUs of this core that idle because of another group must note when the turn of this one comes.
void Scheduler::tell_idle_siblings(Core& core, SchedulerEntity const& entity, CpuSet& kicks) {
    if (config_.share_cores || !core.has_siblings) return;
    core.cpus.for_each([&](u32 cpu) {
        if (cpus_[cpu].current == nullptr && may_use(entity, cpu) && idle_.take(cpu)) kicks.add(cpu);
    });
}

// Where an entity that sleeps or is queued in `from`, whose lock is held, should go. An idle CPU found is in `kicks`.
Scheduler::Place Scheduler::find_place(SchedulerEntity& entity, Core& from, CpuSet& kicks) {
    if (entity.settings_.is_exclusive) {
        for (u32 cpu = 0; cpu < cpu_count_; cpu++)
            if (cpus_[cpu].dedicated == &entity) return {&core_of(cpu), none};
        return {&from, none};
    }
    u32 const idle_cpu = claim_idle_cpu(entity, from.index);
    if (idle_cpu == none) return {&cores_[core_for(entity, from.index)], none};
    kicks.add(idle_cpu); // whatever comes of this: it is no longer marked idle
    return {&core_of(idle_cpu), idle_cpu};
}

// Queues it there; it is in no list. The lock of that core is held, and the one of its home.
void Scheduler::put_at(Place place, SchedulerEntity& entity, u64 now, CpuSet& kicks) {
    if (!entity.settings_.is_exclusive) {
        put_into(*place.core, entity, now, place.idle_cpu, kicks);
        return;
    }
    entity.home_.store(place.core->index, std::memory_order_relaxed);
    entity.state_ = State::Waiting;
    place.core->cpus.for_each([&](u32 cpu) {
        if (cpus_[cpu].dedicated == &entity) kicks.add(cpu);
    });
}

void Scheduler::wake(SchedulerEntity& entity, u64 now) {
    CpuSet kicks;
    for (bool is_done = false; !is_done;) {
        Core* from = nullptr;
        Place place{};
        {
            HomeLock home(*this, entity);
            if (entity.state_ == State::Running) entity.wake_pending_ = true;
            if (entity.state_ != State::Asleep) break;
            from = &home.core();
            place = find_place(entity, *from, kicks);
            is_done = place.core == from;
            entity.woken_at_ = now;
            if (is_done) put_at(place, entity, now, kicks);
        }
        if (is_done) break;
        PairLock const locked(*from, *place.core);
        bool const is_still_there = entity.home_.load(std::memory_order_relaxed) == from->index;
        if (!is_still_there || entity.state_ != State::Asleep || !may_use_core(entity, *place.core))
            continue; // changed meanwhile
        put_at(place, entity, now, kicks);
        is_done = true;
    }
    kick_all(kicks);
    offer_waiting(cores_[entity.home_.load(std::memory_order_relaxed)]);
}

// Moves one that waits, or will when its cap allows, to where it may run.
void Scheduler::relocate(SchedulerEntity& entity, u64 now) {
    CpuSet kicks;
    auto const is_queued = [&] { return entity.state_ == State::Waiting || entity.state_ == State::Throttled; };
    for (bool is_done = false; !is_done;) {
        Core* from = nullptr;
        Place place{};
        {
            HomeLock home(*this, entity);
            if (!is_queued()) break;
            from = &home.core();
            place = find_place(entity, *from, kicks);
            is_done = place.core == from;
            if (is_done && entity.settings_.is_exclusive) put_at(place, entity, now, kicks);
            if (is_done && entity.state_ == State::Waiting) tell_idle_siblings(*from, entity, kicks);
        }
        if (is_done) break; // a shared one is queued there already
        PairLock const locked(*from, *place.core);
        if (entity.home_.load(std::memory_order_relaxed) != from->index || !is_queued()) continue;
        if (!may_use_core(entity, *place.core)) continue;
        if (!entity.settings_.is_exclusive) take_out(*from, entity); // an exclusive one is in no list
        put_at(place, entity, now, kicks);
        is_done = true;
    }
    kick_all(kicks);
    offer_waiting(cores_[entity.home_.load(std::memory_order_relaxed)]);
}

// An idle CPU that may run it comes and steals. CPUs that are alone no longer are: at the end of a slice, which they
// have from now on, they look who is behind.
[[gnu::noinline]] void Scheduler::offer_one(SchedulerEntity const& entity, Core const& core, CpuSet& kicks) {
    u32 const idle = claim_idle_cpu(entity, core.index);
    if (idle != none) kicks.add(idle);
    for (u32 word = 0; word < word_count_; word++) {
        u64 bits = alone_.word(word) & entity.settings_.allowed.word(word);
        for (; bits != 0; bits &= bits - 1) {
            u32 const cpu = word * 64 + static_cast<u32>(std::countr_zero(bits));
            if (alone_.take(cpu)) kicks.add(cpu);
        }
    }
}

} // namespace kernel
