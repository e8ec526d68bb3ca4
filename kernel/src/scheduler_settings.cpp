// SPDX-License-Identifier: MIT
// Adding, removing and changing entities while everything runs. Rare: one lock for all of it.
#include "scheduler_locks.hpp"
#include <algorithm>

namespace kernel {

CpuSet Scheduler::shared_cpus() const {
    CpuSet set;
    for (u32 cpu = 0; cpu < cpu_count_; cpu++)
        if (is_shared(cpu)) set.add(cpu);
    return set;
}

void Scheduler::publish_shared(CpuSet const& shared) {
    for (u32 word = 0; word < shared_.size(); word++) {
        u64 bits = 0;
        for (u32 bit = 0; bit < 64; bit++)
            bits |= u64{shared.has(word * 64 + bit)} << bit;
        shared_[word].store(bits, std::memory_order_relaxed);
    }
}

// The CPUs for the others if `extra` is given away as well (`none`: as it is) and `freed` has none any more.
CpuSet Scheduler::shared_without(u32 extra, SchedulerEntity const* freed) const {
    CpuSet shared;
    for (u32 cpu = 0; cpu < cpu_count_; cpu++) {
        bool is_taken = false;
        for (u32 other = 0; other < cpu_count_; other++) {
            bool const is_near = other == cpu || (!config_.share_cores && cpus_[other].core == cpus_[cpu].core);
            is_taken |=
                is_near && (other == extra || (cpus_[other].dedicated != nullptr && cpus_[other].dedicated != freed));
        }
        if (!is_taken) shared.add(cpu);
    }
    return shared;
}

lib::Result<void> Scheduler::check(ScheduleSettings const& settings) const {
    if (settings.weight == 0 || settings.weight > ScheduleSettings::max_weight || settings.cap > 100)
        return lib::fail(lib::Errc::OutOfRange);
    if ((settings.allowed & CpuSet::first(cpu_count_)).is_empty()) return lib::fail(lib::Errc::OutOfRange);
    if (settings.is_exclusive) return settings.cap == 0 ? lib::Result<void>{} : lib::fail(lib::Errc::OutOfRange);
    if ((settings.allowed & shared_cpus()).is_empty()) return lib::fail(lib::Errc::Busy);
    return {};
}

bool Scheduler::can_do_without(SchedulerEntity const& entity, CpuSet const& shared) {
    for (auto* other = all_.front(); other != nullptr; other = all_.next(*other))
        if (other != &entity && !other->settings_.is_exclusive && (other->settings_.allowed & shared).is_empty())
            return false;
    return true;
}

// A CPU that `entity` can have for itself: beside one of its own group if possible, else where fewest wait.
u32 Scheduler::find_cpu_for(SchedulerEntity const& entity, CpuSet const& allowed) {
    u32 best = none;
    u32 best_cost = ~u32{0};
    for (u32 cpu = 0; cpu < cpu_count_; cpu++) {
        if (!allowed.has(cpu) || (cpus_[cpu].dedicated != nullptr && cpus_[cpu].dedicated != &entity)) continue;
        bool fits = true;
        bool has_friend = false;
        core_of(cpu).cpus.for_each([&](u32 sibling) {
            SchedulerEntity const* const owner = cpus_[sibling].dedicated;
            if (owner == nullptr || owner == &entity) return;
            if (owner->group_ == entity.group_)
                has_friend = true;
            else if (!config_.share_cores)
                fits = false;
        });
        if (!fits || !can_do_without(entity, shared_without(cpu))) continue;
        CoreLock const locked(core_of(cpu));
        u32 const cost =
            has_friend ? 0 : 1 + core_of(cpu).waiting_count.load(std::memory_order_relaxed) + core_of(cpu).running;
        if (cost >= best_cost) continue;
        best = cpu;
        best_cost = cost;
    }
    return best;
}

void Scheduler::dedicate(u32 cpu, SchedulerEntity& entity) {
    publish_shared(shared_without(cpu));
    CoreLock const locked(core_of(cpu));
    cpus_[cpu].dedicated = &entity;
    idle_.take(cpu);
}

void Scheduler::undedicate(SchedulerEntity& entity) {
    for (u32 cpu = 0; cpu < cpu_count_; cpu++) {
        if (cpus_[cpu].dedicated != &entity) continue;
        CoreLock const locked(core_of(cpu));
        cpus_[cpu].dedicated = nullptr;
    }
    publish_shared(shared_without(none));
}

// After the sets have changed: everybody who is where he must not be moves, and every CPU looks again.
void Scheduler::clear_out(u64 now) {
    for (auto* entity = all_.front(); entity != nullptr; entity = all_.next(*entity)) {
        bool must_move = false;
        {
            HomeLock home(*this, *entity);
            bool const is_queued = entity->state_ == State::Waiting || entity->state_ == State::Throttled;
            must_move = is_queued && !entity->settings_.is_exclusive && !may_use_core(*entity, home.core());
        }
        if (must_move) relocate(*entity, now);
    }
    kick_all(CpuSet::first(cpu_count_));
}

lib::Result<void> Scheduler::add(SchedulerEntity& entity, ScheduleSettings const& settings) {
    LockGuard const control(control_lock_);
    if (entity.state_ != State::Detached) return lib::fail(lib::Errc::BadState);
    TRY(check(settings));
    u32 cpu = (settings.allowed & shared_cpus()).next(0);
    if (settings.is_exclusive) cpu = find_cpu_for(entity, settings.allowed);
    if (cpu >= cpu_count_) return lib::fail(lib::Errc::Busy);
    entity.settings_ = settings;
    entity.set_weight(settings.weight);
    entity.virtual_time_ = 0;
    entity.budget_ = 0;
    entity.budget_at_ = 0;
    entity.wake_pending_ = false;
    entity.used_.store(0, std::memory_order_relaxed);
    entity.home_.store(core_of(cpu).index, std::memory_order_relaxed);
    all_.push_back(entity);
    if (settings.is_exclusive) {
        dedicate(cpu, entity);
        clear_out(0);
    }
    HomeLock const home(*this, entity);
    entity.state_ = State::Asleep;
    return {};
}

lib::Result<void> Scheduler::remove(SchedulerEntity& entity) {
    LockGuard const control(control_lock_);
    if (entity.state_ == State::Detached) return lib::fail(lib::Errc::BadState);
    {
        HomeLock home(*this, entity);
        if (entity.state_ == State::Running) return lib::fail(lib::Errc::Busy);
        bool const is_listed =
            !entity.settings_.is_exclusive && (entity.state_ == State::Waiting || entity.state_ == State::Throttled);
        if (is_listed) take_out(home.core(), entity);
        entity.state_ = State::Detached;
    }
    lib::IntrusiveList<SchedulerEntity, AllTag>::remove(entity);
    if (entity.settings_.is_exclusive) {
        undedicate(entity);
        kick_all(CpuSet::first(cpu_count_));
    }
    return {};
}

u64 Scheduler::used(SchedulerEntity& entity, u64 now) {
    HomeLock home(*this, entity);
    u64 sum = entity.used();
    home.core().cpus.for_each([&](u32 cpu) {
        CpuState const& state = cpus_[cpu];
        if (state.current == &entity && !state.is_napping && now > state.charged_at) sum += now - state.charged_at;
    });
    return sum;
}

lib::Result<void> Scheduler::set_weight(SchedulerEntity& entity, u32 weight) {
    LockGuard const control(control_lock_);
    ScheduleSettings wanted = entity.settings_;
    wanted.weight = weight;
    TRY(check(wanted));
    HomeLock const home(*this, entity);
    entity.set_weight(weight);
    return {};
}

lib::Result<void> Scheduler::set_cap(SchedulerEntity& entity, u32 cap, u64 now) {
    LockGuard const control(control_lock_);
    ScheduleSettings wanted = entity.settings_;
    wanted.cap = cap;
    TRY(check(wanted));
    CpuSet kicks;
    {
        HomeLock home(*this, entity);
        if (entity.settings_.cap != 0) refill(entity, now);
        entity.settings_.cap = cap;
        entity.budget_at_ = now;
        entity.budget_ = std::min(entity.budget_, cap == 0 ? i64{0} : burst_of(entity));
        if (entity.state_ == State::Throttled) { // by the old rate
            Queue::remove(entity);
            entity.state_ = State::Asleep;
            put_into(home.core(), entity, now, none, kicks);
        }
        kicks = kicks | home.core().cpus; // deadlines change
    }
    kick_all(kicks);
    return {};
}

lib::Result<void> Scheduler::set_affinity(SchedulerEntity& entity, CpuSet const& allowed, u64 now) {
    LockGuard const control(control_lock_);
    ScheduleSettings wanted = entity.settings_;
    wanted.allowed = allowed;
    TRY(check(wanted));
    if (entity.settings_.is_exclusive) {
        u32 const cpu = find_cpu_for(entity, allowed);
        if (cpu >= cpu_count_) return lib::fail(lib::Errc::Busy);
        if (cpus_[cpu].dedicated != &entity) {
            undedicate(entity);
            dedicate(cpu, entity);
        }
    }
    {
        HomeLock const home(*this, entity);
        entity.settings_.allowed = allowed;
    }
    if (entity.settings_.is_exclusive) settle_exclusive(entity, now);
    clear_out(now);
    return {};
}

// Its queueing place must be where its CPU is; while it runs elsewhere, that CPU's next pick() sees to it.
void Scheduler::settle_exclusive(SchedulerEntity& entity, u64 now) {
    relocate(entity, now); // if it waits
    u32 target = 0;
    for (u32 cpu = 0; cpu < cpu_count_; cpu++)
        if (cpus_[cpu].dedicated == &entity) target = core_of(cpu).index;
    for (;;) {
        u32 const home = entity.home_.load(std::memory_order_relaxed);
        PairLock const locked(cores_[home], cores_[target]);
        if (entity.home_.load(std::memory_order_relaxed) != home) continue;
        if (entity.state_ == State::Asleep || entity.state_ == State::Stopped)
            entity.home_.store(target, std::memory_order_relaxed);
        return;
    }
}

lib::Result<void> Scheduler::set_exclusive(SchedulerEntity& entity, bool is_exclusive, u64 now) {
    LockGuard const control(control_lock_);
    if (entity.settings_.is_exclusive == is_exclusive) return {};
    ScheduleSettings wanted = entity.settings_;
    wanted.is_exclusive = is_exclusive;
    if (is_exclusive) {
        TRY(check(wanted));
        u32 const cpu = find_cpu_for(entity, wanted.allowed);
        if (cpu >= cpu_count_) return lib::fail(lib::Errc::Busy);
        dedicate(cpu, entity);
        {
            HomeLock home(*this, entity);
            if (entity.state_ == State::Waiting || entity.state_ == State::Throttled) {
                take_out(home.core(), entity);
                entity.state_ = State::Waiting;
            }
            entity.settings_.is_exclusive = true;
        }
        settle_exclusive(entity, now);
    } else {
        // Its CPU need not become a shared one: a sibling may be exclusive too.
        if ((entity.settings_.allowed & shared_without(none, &entity)).is_empty()) return lib::fail(lib::Errc::Busy);
        undedicate(entity); // which makes its CPU one of the shared ones
        CpuSet kicks;
        HomeLock home(*this, entity);
        entity.settings_.is_exclusive = false;
        if (entity.state_ == State::Waiting) put_into(home.core(), entity, now, none, kicks);
    }
    clear_out(now);
    return {};
}

} // namespace kernel
