// SPDX-License-Identifier: MIT
// Time: charging, slices, caps, and what one CPU decides from its own core's queue. scheduler_balance.cpp has what goes
// on between cores.
#include "scheduler_locks.hpp"
#include <algorithm>

namespace kernel {

u64 Scheduler::slice_of(SchedulerEntity const& entity) const {
    u32 const weight = entity.settings_.weight;
    if (weight >= ScheduleSettings::usual_weight) return config_.slice;
    return std::max(config_.shortest_slice, config_.slice * weight / ScheduleSettings::usual_weight);
}

bool Scheduler::may_use(SchedulerEntity const& entity, u32 cpu) const {
    if (entity.settings_.is_exclusive) return cpus_[cpu].dedicated == &entity;
    return is_shared(cpu) && entity.settings_.allowed.has(cpu);
}

bool Scheduler::may_use_core(SchedulerEntity const& entity, Core const& core) const {
    for (u32 cpu = core.cpus.next(0); cpu < max_cpus; cpu = core.cpus.next(cpu + 1))
        if (may_use(entity, cpu)) return true;
    return false;
}

// On a core of one CPU nobody runs beside it: one who naps there makes room for everybody.
bool Scheduler::group_fits(Core const& core, SchedulerEntity const& entity) const {
    if (config_.share_cores || !core.has_siblings) return true;
    u32 const group = core.running_group.load(std::memory_order_relaxed);
    return group == none || group == entity.group_;
}

void Scheduler::charge(CpuState& state, u64 now) {
    if (state.current == nullptr || now <= state.charged_at) return; // clocks of two CPUs may differ by a few ns
    u64 const ran = now - state.charged_at;
    state.charged_at = now;
    pay(*state.current, ran, now);
}

void Scheduler::pay(SchedulerEntity& entity, u64 ran, u64 now) const {
    entity.virtual_time_ += scaled(entity, ran);
    entity.used_.store(entity.used_.load(std::memory_order_relaxed) + ran, std::memory_order_relaxed);
    if (entity.settings_.cap != 0) {
        entity.budget_ -= static_cast<i64>(ran); // before: a full bucket takes no more
        refill(entity, now);
    }
}

void Scheduler::charge_work(u32 cpu, SchedulerEntity& payer, u64 begin, u64 end) {
    if (end <= begin) return;
    {
        CpuState& state = cpus_[cpu];
        CoreLock const locked(*state.core);
        if (state.current != nullptr && !state.is_napping) {
            charge(state, begin);
            state.charged_at = std::max(state.charged_at, end);
        }
    }
    HomeLock home(*this, payer);
    pay(payer, end - begin, end);
    if (payer.settings_.is_exclusive) return; // in no list
    // Its place in a list changes, but the number of entities there does not: nobody takes the list for empty.
    if (payer.state_ == State::Waiting) {
        Queue::remove(payer);
        put_in_order(home.core(), payer);
    } else if (payer.state_ == State::Throttled) {
        payer.resume_at_ += (end - begin) * 100 / payer.settings_.cap;
        Queue::remove(payer);
        insert_throttled(home.core(), payer);
    }
}

u32 Scheduler::cpu_for_work(SchedulerEntity& entity, u32 here) {
    SchedulerEntity const* const current = cpus_[here].current; // changed by this CPU only
    if (current != nullptr && current->group_ == entity.group_) return here;
    HomeLock home(*this, entity);
    Core const& core = home.core();
    if (core.cpus.has(here) && may_use(entity, here)) return here;
    for (u32 cpu = core.cpus.next(0); cpu < max_cpus; cpu = core.cpus.next(cpu + 1))
        if (may_use(entity, cpu)) return cpu;
    // It sleeps, and its core has been given to another VM since.
    for (u32 cpu = 0; cpu < cpu_count_; cpu++)
        if (may_use(entity, cpu)) return cpu;
    return here;
}

// --- Caps: a bucket that fills at the capped rate

i64 Scheduler::burst_of(SchedulerEntity const& entity) const {
    return static_cast<i64>(std::max(cap_period * entity.settings_.cap / 100, shortest_burst));
}

void Scheduler::refill(SchedulerEntity& entity, u64 now) const {
    if (now <= entity.budget_at_) return;
    u64 const gone = now - entity.budget_at_; // may be days
    u64 const cap = entity.settings_.cap;
    entity.budget_ += static_cast<i64>(gone / 100 * cap + gone % 100 * cap / 100);
    entity.budget_at_ = now;
    // Half a burst more than what lets it run again, so that it loses nothing while it waits for its turn.
    entity.budget_ = std::min(entity.budget_, burst_of(entity) * 3 / 2);
}

bool Scheduler::throttle_if_spent(Core& core, SchedulerEntity& entity, u64 now) {
    if (entity.settings_.cap == 0) return false;
    refill(entity, now);
    if (entity.budget_ > 0) return false;
    auto const missing = static_cast<u64>(burst_of(entity) - entity.budget_);
    entity.resume_at_ = now + missing * 100 / entity.settings_.cap;
    insert_throttled(core, entity);
    return true;
}

void Scheduler::insert_throttled(Core& core, SchedulerEntity& entity) {
    entity.state_ = State::Throttled;
    SchedulerEntity* later = core.throttled.front();
    while (later != nullptr && later->resume_at_ <= entity.resume_at_)
        later = core.throttled.next(*later);
    if (later != nullptr)
        core.throttled.insert_before(*later, entity);
    else
        core.throttled.push_back(entity);
}

void Scheduler::release_throttled(Core& core, u64 now) {
    while (!core.throttled.is_empty()) {
        SchedulerEntity& entity = *core.throttled.begin();
        if (entity.resume_at_ > now) return;
        Queue::remove(entity);
        refill(entity, now);
        join(core, entity, 1);
        insert_waiting(core, entity);
    }
}

// --- The queue

void Scheduler::put_in_order(Core& core, SchedulerEntity& entity) {
    // From the back, where one whose slice has ended belongs.
    SchedulerEntity* earlier = core.waiting.back();
    while (earlier != nullptr && is_before(entity.virtual_time_, earlier->virtual_time_))
        earlier = core.waiting.previous(*earlier);
    if (earlier != nullptr)
        core.waiting.insert_after(*earlier, entity);
    else
        core.waiting.push_front(entity);
}

void Scheduler::insert_waiting(Core& core, SchedulerEntity& entity) {
    entity.state_ = State::Waiting;
    put_in_order(core, entity);
    u32 const before = core.waiting_count.load(std::memory_order_relaxed);
    core.waiting_count.store(before + 1, std::memory_order_relaxed);
    // Before anybody looks for CPUs that idle or are alone: those mark themselves and look here afterwards.
    if (before == 0) waiting_cores_.set(core.index);
}

// Out of whichever list it is in.
void Scheduler::take_out(Core& core, SchedulerEntity& entity) {
    if (entity.state_ == State::Waiting) {
        u32 const left = core.waiting_count.load(std::memory_order_relaxed) - 1;
        core.waiting_count.store(left, std::memory_order_relaxed);
        if (left == 0) waiting_cores_.take(core.index);
    }
    Queue::remove(entity);
}

// Fits the virtual time of one that comes from a sleep or from another core to this queue's: it keeps a claim of at
// most `most_lag_steps` slices, and waits for at most one more than its turn.
void Scheduler::join(Core& core, SchedulerEntity& entity, u64 most_lag_steps) {
    if (core.running == 0 && core.waiting_count.load(std::memory_order_relaxed) == 0) {
        core.virtual_time = entity.virtual_time_;
        return;
    }
    u64 const step = step_of(entity);
    u64 const earliest = core.virtual_time - most_lag_steps * step;
    u64 const latest = core.virtual_time + step;
    if (is_before(entity.virtual_time_, earliest)) entity.virtual_time_ = earliest;
    if (is_before(latest, entity.virtual_time_)) entity.virtual_time_ = latest;
}

SchedulerEntity* Scheduler::first_for(Core& core, u32 cpu) {
    if (!is_shared(cpu)) return nullptr; // no exclusive one is in a queue
    for (SchedulerEntity& entity : core.waiting)
        if (entity.settings_.allowed.has(cpu)) return &entity;
    return nullptr;
}

// Who of the waiting is so far behind that what runs there should stop for it.
SchedulerEntity* Scheduler::preemptor(CpuState const& state) {
    SchedulerEntity* const first = first_for(*state.core, state.index);
    if (first == nullptr) return nullptr;
    u64 const claim = first->virtual_time_ + scaled(*first, config_.shortest_slice);
    return is_before(claim, state.current->virtual_time_) ? first : nullptr;
}

// --- One CPU's turn

void Scheduler::note_wake_latency(SchedulerEntity& entity, u64 now) {
    u64 const waited = now > entity.woken_at_ ? now - entity.woken_at_ : 0; // clocks of two CPUs may differ by a few ns
    entity.woken_at_ = 0;
    auto const add = [](std::atomic<u64>& sum, u64 value) { // under the core's lock: nobody else writes
        sum.store(sum.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
    };
    add(entity.wake_count_, 1);
    add(entity.wake_total_, waited);
    if (waited > entity.wake_longest_.load(std::memory_order_relaxed))
        entity.wake_longest_.store(waited, std::memory_order_relaxed);
}

void Scheduler::begin(CpuState& state, SchedulerEntity& entity, u64 now) {
    Core& core = *state.core;
    entity.state_ = State::Running;
    entity.wake_pending_ = false;
    if (entity.woken_at_ != 0) note_wake_latency(entity, now);
    state.current = &entity;
    state.picked_at = state.charged_at = now;
    state.slice_end = now + slice_of(entity);
    state.has_yielded = false;
    if (is_before(core.virtual_time, entity.virtual_time_)) core.virtual_time = entity.virtual_time_;
    if (core.running++ == 0) {
        // A new slice of the same group is no new turn: a sibling may be waiting for the end of this one.
        if (core.turn_group != entity.group_ || now > core.turn_ended) core.turn_started = now;
        core.turn_group = entity.group_;
        core.running_group.store(entity.group_, std::memory_order_relaxed);
    }
    if (core.wanted_group == entity.group_) core.wanted_group = none;
    if (entity.settings_.cap != 0) refill(entity, now);
}

void Scheduler::leave(CpuState& state, State next) {
    Core& core = *state.core;
    state.current->state_ = next;
    state.current = nullptr;
    if (--core.running != 0) return;
    core.running_group.store(none, std::memory_order_relaxed);
    core.turn_ended = state.charged_at;
}

u64 Scheduler::idle_deadline(Core& core, u32 cpu) {
    u64 until = Decision::never;
    auto const* const throttled = core.throttled.front();
    if (throttled != nullptr) until = throttled->resume_at_;
    // Somebody of another group waits for the siblings' turn to be long enough.
    if (!config_.share_cores && core.running != 0 && core.wanted_group == none && first_for(core, cpu) != nullptr)
        until = std::min(until, core.turn_started + config_.slice);
    return until;
}

// When to decide again about who has just been picked: nobody who waits is further behind.
inline u64 Scheduler::first_deadline(CpuState& state, u64 now) {
    Core& core = *state.core;
    SchedulerEntity const& entity = *state.current;
    state.limit = Decision::never;
    if (!core.throttled.is_empty()) state.limit = std::max((*core.throttled.begin()).resume_at_, now + 1);
    u32 const cap = entity.settings_.cap;
    if (cap != 0 && entity.budget_ <= 0) // charge_work() has taken it: throttled at the next look
        state.limit = now + 1;
    else if (cap != 0 && cap < 100)
        state.limit = std::min(state.limit, now + static_cast<u64>(entity.budget_) * 100 / (100 - cap));
    return std::min(state.slice_end, state.limit);
}

u64 Scheduler::deadline(CpuState& state, u64 now) {
    u64 const until = first_deadline(state, now);
    u64 const safe_until = state.picked_at + config_.shortest_slice;
    return until > safe_until && now < safe_until && preemptor(state) != nullptr ? safe_until : until;
}

// Whether what runs there keeps the CPU.
bool Scheduler::goes_on(CpuState const& state, u64 now) {
    Core const& core = *state.core;
    if (state.has_yielded || now >= state.slice_end) return false;
    if (core.wanted_group != none && core.wanted_group != state.current->group_) return false;
    return now < state.picked_at + config_.shortest_slice || preemptor(state) == nullptr;
}

// Takes the next one out of the queue, or starts the change to its group.
SchedulerEntity* Scheduler::choose(Core& core, u32 cpu, u64 now, CpuSet& kicks) {
    SchedulerEntity* const best = first_for(core, cpu);
    if (best == nullptr) return nullptr;
    bool const is_alone = config_.share_cores || core.running == 0;
    if (is_alone && core.wanted_group != none && !config_.share_cores) {
        // The turn of the wanted group begins, unless nobody of it is left who could take it here.
        bool is_there = false;
        for (auto* entity = core.waiting.front(); entity != nullptr; entity = core.waiting.next(*entity)) {
            if (entity->group_ != core.wanted_group) continue;
            is_there = true;
            if (may_use(*entity, cpu)) return entity;
        }
        if (is_there) return nullptr; // for a sibling only
        core.wanted_group = none;
    }
    if (is_alone) return best;
    SchedulerEntity* fitting = nullptr;
    for (auto* entity = best; entity != nullptr && fitting == nullptr; entity = core.waiting.next(*entity))
        if (may_use(*entity, cpu) && group_fits(core, *entity)) fitting = entity;
    if (core.wanted_group != none) return nullptr;
    if (fitting == best || now < core.turn_started + config_.shortest_slice) return fitting;
    if (fitting == nullptr && now < core.turn_started + config_.slice) return nullptr;
    core.wanted_group = best->group_;
    core.cpus.for_each([&](u32 sibling) {
        if (cpus_[sibling].current != nullptr) kicks.add(sibling);
    });
    return nullptr;
}

// A sibling that idles because of the groups looks again whenever another starts or stops.
void Scheduler::wake_siblings(Core& core, u32 cpu, CpuSet& kicks) {
    if (config_.share_cores || !core.has_siblings) return;
    core.cpus.for_each([&](u32 sibling) {
        SchedulerEntity const* const owner = cpus_[sibling].dedicated;
        if (owner != nullptr && cpus_[sibling].current == nullptr &&
            owner->home_.load(std::memory_order_relaxed) == core.index && owner->state_ == State::Waiting)
            kicks.add(sibling);
    });
    if (!is_anybody_waiting(nullptr)) return;
    core.cpus.for_each([&](u32 sibling) {
        if (sibling != cpu && cpus_[sibling].current == nullptr && idle_.take(sibling)) kicks.add(sibling);
    });
}

bool Scheduler::sleep(u32 cpu, u64 now) {
    CpuState& state = cpus_[cpu];
    CpuSet kicks;
    {
        CoreLock const locked(*state.core);
        charge(state, now);
        SchedulerEntity& entity = *state.current;
        if (entity.wake_pending_) {
            entity.wake_pending_ = false;
            return false;
        }
        leave(state, State::Asleep);
        wake_siblings(*state.core, cpu, kicks);
    }
    kick_all(kicks);
    return true;
}

// Siblings that wait for this group to leave, caps and throttled ones need what sleep() and pick() do.
bool Scheduler::may_nap(CpuState const& state) const {
    Core const& core = *state.core;
    SchedulerEntity const& entity = *state.current;
    if (entity.wake_pending_) return false;
    if (SchedulerEntity const* const owner = state.dedicated; owner != nullptr) return owner == &entity;
    bool const has_no_siblings = config_.share_cores || !core.has_siblings;
    return has_no_siblings && may_use(entity, state.index) && entity.settings_.cap == 0 && core.throttled.is_empty();
}

bool Scheduler::nap(u32 cpu, u64 now) {
    CpuState& state = cpus_[cpu];
    {
        CoreLock const locked(*state.core);
        if (!may_nap(state)) return false;
        // Somebody waits right here, as below: the usual case where two take turns.
        if (state.dedicated == nullptr && state.core->waiting_count.load(std::memory_order_relaxed) != 0) return false;
        charge(state, now);
        state.is_napping = true;
        if (state.dedicated != nullptr) return true;
        idle_.set(cpu); // before the queues are looked at: who queues after that look sees it
    }
    if (!is_anybody_waiting(nullptr)) return true;
    (void)end_nap(cpu, now);
    return false;
}

u64 Scheduler::end_nap(u32 cpu, u64 now) {
    CpuState& state = cpus_[cpu];
    CoreLock const locked(*state.core);
    state.charged_at = now;
    state.is_napping = false;
    if (state.dedicated == state.current) return Decision::never;
    if (!idle_.take(cpu)) return over;
    if (state.is_alone && alone_.has(cpu)) return state.limit;
    if (now >= state.slice_end) {
        state.picked_at = now;
        state.slice_end = now + slice_of(*state.current);
    }
    return state.slice_end;
}

void Scheduler::stop(u32 cpu, u64 now) {
    CpuState& state = cpus_[cpu];
    CpuSet kicks;
    {
        CoreLock const locked(*state.core);
        charge(state, now);
        leave(state, State::Stopped);
        wake_siblings(*state.core, cpu, kicks);
    }
    kick_all(kicks);
}

void Scheduler::yield(u32 cpu) {
    CoreLock const locked(core_of(cpu));
    cpus_[cpu].has_yielded = true;
}

void Scheduler::kick_all(CpuSet const& cpus) {
    if (!cpus.is_empty()) cpus.for_each([&](u32 cpu) { kick_(cpu); });
}

SchedulerEntity* Scheduler::pick_dedicated(CpuState& state, u64 now, SchedulerEntity*& evicted, CpuSet& kicks) {
    Core& core = *state.core;
    SchedulerEntity& owner = *state.dedicated;
    charge(state, now);
    if (state.current != nullptr && state.current != &owner) {
        evicted = state.current;
        leave(state, State::Waiting);
        if (!evicted->settings_.is_exclusive) insert_waiting(core, *evicted); // an exclusive one is in no list
        wake_siblings(core, state.index, kicks);
    }
    // While it is new here, siblings may not have made room yet; they kick when they have.
    bool const is_here = owner.home_.load(std::memory_order_relaxed) == core.index;
    if (state.current == nullptr && is_here && owner.state_ == State::Waiting && group_fits(core, owner))
        begin(state, owner, now);
    return state.current;
}

// Ends what the CPU did until now, unless it goes on.
void Scheduler::settle(CpuState& state, u64 now, Settled& result, CpuSet& kicks) {
    Core& core = *state.core;
    CoreLock const locked(core);
    if (state.current == nullptr) idle_.take(state.index); // else it is not marked
    if (state.is_alone) {
        state.is_alone = false;
        result.is_disturbed = !alone_.take(state.index);
    }
    if (state.dedicated != nullptr) {
        result.decision.entity = pick_dedicated(state, now, result.evicted, kicks);
        result.is_decided = true;
        return;
    }
    release_throttled(core, now);
    charge(state, now);
    if (state.current == nullptr) return;
    SchedulerEntity& entity = *state.current;
    result.has_left = true;
    if (!may_use(entity, state.index)) {
        result.evicted = &entity;
        leave(state, State::Waiting);
        if (!entity.settings_.is_exclusive) insert_waiting(core, entity);
    } else if (throttle_if_spent(core, entity, now)) {
        leave(state, State::Throttled);
    } else if (goes_on(state, now)) {
        result.decision = {&entity, deadline(state, now)};
        result.is_decided = true;
    } else {
        leave(state, State::Waiting);
        result.expired = &entity;
        if (state.has_yielded) let_pass(core, state.index, entity);
        insert_waiting(core, entity);
        choose_at_once(state, now, result, kicks);
    }
}

// Whether a CPU that idles or is alone might run it.
inline bool Scheduler::is_awaited(SchedulerEntity const& entity) const {
    for (u32 i = 0; i < word_count_; i++)
        if (((idle_.word(i) | alone_.word(i)) & entity.settings_.allowed.word(i)) != 0) return true;
    return false;
}

// Tells those who wait for it of everybody in this queue. True if there are any.
inline bool Scheduler::offer(Core& core, CpuSet& kicks) {
    bool is_any = false;
    for (SchedulerEntity const& entity : core.waiting) {
        if (!is_awaited(entity)) [[likely]]
            continue;
        offer_one(entity, core, kicks);
        is_any = true;
    }
    return is_any;
}

void Scheduler::offer_waiting(Core& core) {
    if (core.waiting_count.load(std::memory_order_relaxed) == 0) return;
    CpuSet kicks;
    {
        CoreLock const locked(core);
        if (!offer(core, kicks)) return;
    }
    kick_all(kicks);
}

// The usual end of a slice: nobody waits elsewhere, so that there is nothing to balance, and no sibling has a say.
void Scheduler::choose_at_once(CpuState& state, u64 now, Settled& result, CpuSet& kicks) {
    Core& core = *state.core;
    if (core.has_siblings || is_anybody_waiting(&core)) return;
    SchedulerEntity* const next = first_for(core, state.index);
    if (next == nullptr) return;
    take_out(core, *next);
    begin(state, *next, now);
    result.decision = {next, first_deadline(state, now)};
    result.is_decided = true;
    result.has_kicks = offer(core, kicks);
    result.is_offered = true;
}

// Goes behind the first other one, by no more than a slice.
void Scheduler::let_pass(Core& core, u32 cpu, SchedulerEntity& entity) {
    SchedulerEntity const* const other = first_for(core, cpu);
    if (other == nullptr || !is_before(entity.virtual_time_, other->virtual_time_)) return;
    u64 const latest = entity.virtual_time_ + step_of(entity);
    entity.virtual_time_ = is_before(other->virtual_time_, latest) ? other->virtual_time_ : latest;
}

// Nobody waits in this core's queue: true if nobody who waits elsewhere may come here either. Who queues from now on
// sees the mark.
bool Scheduler::goes_alone(CpuState& state) {
    alone_.set(state.index);
    for (u32 i = 0; is_anybody_waiting(nullptr) && i < core_count_; i++) {
        if (!waiting_cores_.has(i)) continue;
        CoreLock const locked(cores_[i]);
        if (first_for(cores_[i], state.index) == nullptr) continue;
        alone_.take(state.index);
        return false;
    }
    state.is_alone = true;
    return true;
}

Decision Scheduler::pick(u32 cpu, u64 now) {
    CpuState& state = cpus_[cpu];
    Core& core = *state.core;
    Settled settled;
    CpuSet kicks;
    settle(state, now, settled, kicks);
    if (core.has_siblings || settled.has_kicks) kick_all(kicks);
    if (settled.evicted != nullptr) relocate(*settled.evicted, now);
    Decision decision = settled.decision;
    if (!settled.is_decided) {
        balance(cpu);
        constexpr unsigned attempts = 3;
        for (unsigned attempt = 0;; attempt++) {
            decision = choose_or_idle(state, now, settled.has_left && attempt == 0);
            if (decision.entity != nullptr || attempt == attempts || !steal_any(cpu)) break;
            idle_.take(cpu);
        }
    }
    if (core.waiting_count.load(std::memory_order_relaxed) != 0) {
        if (!settled.is_offered) offer_waiting(core);
    } else if (decision.entity != nullptr && decision.entity == settled.expired && !settled.is_disturbed &&
               goes_alone(state)) {
        // Only after a whole slice, also when it was just disturbed: a CPU is kicked at most once in each.
        decision.until = state.limit;
    }
    return decision;
}

Decision Scheduler::choose_or_idle(CpuState& state, u64 now, bool has_left) {
    Core& core = *state.core;
    u32 const cpu = state.index;
    CpuSet kicks;
    Decision decision{nullptr, Decision::never};
    {
        CoreLock const locked(core);
        if (SchedulerEntity* const next = choose(core, cpu, now, kicks)) {
            take_out(core, *next);
            begin(state, *next, now);
            decision = {next, first_deadline(state, now)};
            wake_siblings(core, cpu, kicks);
        } else {
            idle_.set(cpu); // before other queues are looked at again: who queues after that look sees it
            if (has_left) wake_siblings(core, cpu, kicks);
            decision.until = idle_deadline(core, cpu);
        }
    }
    kick_all(kicks);
    return decision;
}

} // namespace kernel
