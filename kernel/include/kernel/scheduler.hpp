// SPDX-License-Identifier: MIT
#pragma once
// Which vCPU runs on which physical CPU, and for how long. Pure decisions: no clock, no interrupts, no guest; the run
// loop (kernel/run_loop.hpp) carries them out, tests/unit/kernel/scheduler_test.cpp drives them through millions of
// steps.
//
// Every core (the CPUs that share one: SMT siblings) has a queue of waiting entities ordered by virtual time, which is
// CPU time divided by weight: who has had least comes first. A CPU takes from its own core's queue; when that is empty
// it steals, so that no CPU idles while somebody who may run there waits; and at the end of each slice it looks at
// other cores' queues and steals who is behind by more than a slice, so that fairness holds across cores too. While
// nobody waits who may run on it, a CPU is alone: who has had a slice there gets no end for the next, until somebody
// queues and kicks that CPU. Not
// supported: real-time priorities, gang scheduling, migration costs and caches (but the last core is preferred).
#include <array>
#include <atomic>
#include <kernel/spinlock.hpp>
#include <lib/cpu_set.hpp>
#include <lib/delegate.hpp>
#include <lib/intrusive_list.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace kernel {

using lib::CpuSet;
using lib::i64;
using lib::max_cpus;
using lib::u32;
using lib::u64;
using lib::u8;

struct ScheduleSettings {
    static constexpr u32 max_weight = 10'000;
    static constexpr u32 usual_weight = 100;
    CpuSet allowed{};          // physical CPUs it may run on
    u32 weight = usual_weight; // 1 to 10000: its share among those that compete
    u32 cap = 0;               // percent of one CPU it gets at most; 0: no limit
    bool is_exclusive = false; // has a CPU (and with SMT a core) to itself, without a tick
};

// How long an entity waited for a CPU after its wake-ups. Those that found it napping on its CPU are not among them.
struct WakeLatency {
    u64 count, total, longest; // ns
};

struct QueueTag;
struct AllTag;

// What is scheduled: a vCPU. `group` is its VM: of different groups, never two run on siblings of a core at once.
class SchedulerEntity : public lib::ListLink<SchedulerEntity, QueueTag>, public lib::ListLink<SchedulerEntity, AllTag> {
public:
    explicit SchedulerEntity(u32 group = 0) : group_(group) {}
    void set_group(u32 group) { group_ = group; } // while detached
    u32 group() const { return group_; }
    // CPU time it has had, in ns, up to the last decision about it.
    u64 used() const { return used_.load(std::memory_order_relaxed); }
    ScheduleSettings const& settings() const { return settings_; }
    WakeLatency wake_latency() const {
        return {wake_count_.load(std::memory_order_relaxed), wake_total_.load(std::memory_order_relaxed),
                wake_longest_.load(std::memory_order_relaxed)};
    }

private:
    friend class Scheduler;
    friend struct SchedulerProbe; // tests
    // Throttled: has used up what its cap allows for now. Stopped: will not run again until it is added anew.
    enum class State : u8 { Detached, Asleep, Waiting, Running, Throttled, Stopped };

    void set_weight(u32 weight) {
        settings_.weight = weight;
        pace_ = (u64{ScheduleSettings::max_weight} << pace_shift) / weight;
    }
    static constexpr unsigned pace_shift = 32;

    ScheduleSettings settings_;
    u32 group_;
    u64 pace_ = 0; // virtual time per CPU time, in fixed point: no division at the end of a slice
    // The rest belongs to the lock of the core `home_`.
    State state_ = State::Detached;
    bool wake_pending_ = false;
    std::atomic<u32> home_{0}; // index of the core
    u64 virtual_time_ = 0;
    i64 budget_ = 0;    // ns it may run before it is throttled; only with a cap
    u64 budget_at_ = 0; // when `budget_` was right
    u64 resume_at_ = 0; // Throttled
    u64 woken_at_ = 0;  // 0: it has run since, or was not woken
    std::atomic<u64> used_{0};
    std::atomic<u64> wake_count_{0}, wake_total_{0}, wake_longest_{0};
};

struct Decision {
    static constexpr u64 never = ~u64{0};
    SchedulerEntity* entity; // nullptr: idle
    u64 until;               // ns: decide again no later than this
};

class Scheduler {
public:
    struct Config {
        u64 slice = 5'000'000;          // ns, for the usual weight and above
        u64 shortest_slice = 1'000'000; // for small weights; also how long a running entity is safe from a wake-up
        bool share_cores = false;       // different groups may run on SMT siblings
    };
    // Makes a CPU call pick() soon. Called without locks, also for the calling CPU.
    using Kick = lib::Delegate<void(u32 cpu)>;

    constexpr Scheduler() = default;
    // Once, before anything else. `core_of[cpu]` are any numbers, equal for siblings.
    void start(Config const& config, u32 cpu_count, std::array<u32, max_cpus> const& core_of, Kick kick);

    // Whether different groups may run on SMT siblings at once. Before anything is added.
    void share_cores(bool allowed) { config_.share_cores = allowed; }

    // All of the following with interrupts off. Times are ns of one clock for all CPUs.

    // Adds a sleeping entity. OutOfRange: weight, cap or CPUs make no sense. Busy: its CPUs are all taken by exclusive
    // ones, or it wants to be exclusive and there is no CPU that the others can do without.
    lib::Result<void> add(SchedulerEntity& entity, ScheduleSettings const& settings);
    // Busy while it runs.
    lib::Result<void> remove(SchedulerEntity& entity);
    lib::Result<void> set_affinity(SchedulerEntity& entity, CpuSet const& allowed, u64 now);
    lib::Result<void> set_weight(SchedulerEntity& entity, u32 weight);
    lib::Result<void> set_cap(SchedulerEntity& entity, u32 cap, u64 now);
    lib::Result<void> set_exclusive(SchedulerEntity& entity, bool is_exclusive, u64 now);
    // CPUs that no exclusive entity has.
    CpuSet shared_cpus() const;

    // Decides what `cpu` does next. What it ran until now goes on waiting unless sleep() or stop() was called.
    Decision pick(u32 cpu, u64 now);
    // What `cpu` runs has nothing to do. False: it was woken meanwhile and goes on waiting.
    bool sleep(u32 cpu, u64 now);
    // What `cpu` runs has nothing to do, and nobody waits: true if it may keep the CPU, which halts, until it has
    // something to do or the CPU is kicked. Then end_nap(), and to go on when the answer is not `over`, else to
    // sleep() or to pick().
    bool nap(u32 cpu, u64 now);
    static constexpr u64 over = 0;
    // When the slice ends; `over`: somebody was sent here meanwhile.
    u64 end_nap(u32 cpu, u64 now);
    // What `cpu` runs would let others go first.
    void yield(u32 cpu);
    // CPU time an entity has had up to now, what it runs at this moment among it.
    u64 used(SchedulerEntity& entity, u64 now);
    // What `cpu`, the calling one, did from `begin` to `end` in an interrupt was for `payer`: it pays, whoever runs
    // there.
    void charge_work(u32 cpu, SchedulerEntity& payer, u64 begin, u64 end);
    // Whether `payer` pays for this moment of the calling CPU without that.
    bool is_paying(u32 cpu, SchedulerEntity const& payer) const {
        return cpus_[cpu].current == &payer && !cpus_[cpu].is_napping;
    }
    // Where interrupts on behalf of `entity` should be: `here`, the calling CPU, if its group runs there at this moment
    // or it may run there next, else a CPU that it may use. Never one that another has for itself.
    u32 cpu_for_work(SchedulerEntity& entity, u32 here);
    // What `cpu` runs will not run again; wake() on it does nothing from now on.
    void stop(u32 cpu, u64 now);
    // From any CPU. While the entity runs, its next sleep() is void.
    void wake(SchedulerEntity& entity, u64 now);

private:
    friend struct SchedulerProbe;
    using State = SchedulerEntity::State;
    using Queue = lib::IntrusiveList<SchedulerEntity, QueueTag>;
    static constexpr u32 none = ~u32{0};
    static constexpr u64 any_lag = 4; // steps that an entity's claim outlives a move to another core
    static constexpr u64 cap_period = 10'000'000;
    static constexpr u64 shortest_burst = 500'000;
    static constexpr u32 balance_victims = 2; // cores looked at per slice

    struct alignas(64) Core {
        Spinlock<LockRank::Scheduler> lock;
        u32 index = 0;
        CpuSet cpus;
        bool has_siblings = false;
        Queue waiting;   // by virtual time
        Queue throttled; // by resume time
        u64 virtual_time = 0;
        u64 turn_started = 0;                // when the group that runs here began to
        u64 turn_ended = 0;                  // when it stopped
        u32 turn_group = none;               // which it was
        std::atomic<u32> wanted_group{none}; // the next group; until the others have left nobody starts
        u32 running = 0;
        std::atomic<u32> waiting_count{0}; // how many are in `waiting`; changed under the lock
        std::atomic<u32> running_group{none};
    };
    struct alignas(64) CpuState {
        Core* core = nullptr;
        u32 index = 0;
        u32 victim = 0; // where balancing goes on
        SchedulerEntity* current = nullptr;
        std::atomic<SchedulerEntity*> dedicated{nullptr}; // the exclusive one
        u64 picked_at = 0;
        u64 charged_at = 0;
        u64 slice_end = 0;
        u64 limit = 0;           // when to decide again although nobody waits
        bool is_napping = false; // `current` has the CPU and does not use it
        bool has_yielded = false;
        bool is_alone = false; // `current` has no slice as long as the CPU's bit in `alone_` stands
    };
    // A bit for each CPU or core that others may look at, set and cleared without a lock.
    struct Marks {
        std::array<std::atomic<u64>, max_cpus / 64> words{};
        u64 word(u32 index) const { return words[index].load(std::memory_order_seq_cst); }
        bool has(u32 bit) const { return (word(bit / 64) >> bit % 64 & 1) != 0; }
        void set(u32 bit) { words[bit / 64].fetch_or(u64{1} << bit % 64, std::memory_order_seq_cst); }
        // False: somebody else has taken it.
        bool take(u32 bit) {
            u64 const mask = u64{1} << bit % 64;
            return (words[bit / 64].fetch_and(~mask, std::memory_order_seq_cst) & mask) != 0;
        }
    };
    class CoreLock;
    class PairLock;
    class HomeLock;

    Core& core_of(u32 cpu) { return *cpus_[cpu].core; }
    u64 slice_of(SchedulerEntity const& entity) const;
    static u64 scaled(SchedulerEntity const& entity, u64 nanos) {
        return static_cast<u64>((lib::u128{nanos} * entity.pace_) >> SchedulerEntity::pace_shift);
    }
    u64 step_of(SchedulerEntity const& entity) const { return scaled(entity, slice_of(entity)); }
    static bool is_before(u64 a, u64 b) { return static_cast<i64>(a - b) < 0; }

    bool may_use(SchedulerEntity const& entity, u32 cpu) const;
    bool may_use_core(SchedulerEntity const& entity, Core const& core) const;
    bool group_fits(Core const& core, SchedulerEntity const& entity) const;
    bool is_shared(u32 cpu) const { return (shared_[cpu / 64].load(std::memory_order_relaxed) >> cpu % 64 & 1) != 0; }

    // kernel/src/scheduler.cpp; with the lock of the core(s) held unless said otherwise
    void charge(CpuState& state, u64 now);
    void pay(SchedulerEntity& entity, u64 ran, u64 now) const;
    static void leave(CpuState& state, State next);
    static void note_wake_latency(SchedulerEntity& entity, u64 now);
    void begin(CpuState& state, SchedulerEntity& entity, u64 now);
    void refill(SchedulerEntity& entity, u64 now) const;
    i64 burst_of(SchedulerEntity const& entity) const;
    bool throttle_if_spent(Core& core, SchedulerEntity& entity, u64 now);
    void release_throttled(Core& core, u64 now);
    static void insert_throttled(Core& core, SchedulerEntity& entity);
    static void put_in_order(Core& core, SchedulerEntity& entity);
    void insert_waiting(Core& core, SchedulerEntity& entity);
    void take_out(Core& core, SchedulerEntity& entity);
    void join(Core& core, SchedulerEntity& entity, u64 most_lag_steps);
    SchedulerEntity* first_for(Core& core, u32 cpu);
    SchedulerEntity* preemptor(CpuState const& state);
    SchedulerEntity* choose(Core& core, u32 cpu, u64 now, CpuSet& kicks);
    bool goes_on(CpuState const& state, u64 now);
    u64 first_deadline(CpuState& state, u64 now);
    u64 deadline(CpuState& state, u64 now);
    u64 idle_deadline(Core& core, u32 cpu);
    bool may_nap(CpuState const& state) const;
    // In other queues than this one; no lock needed.
    bool is_anybody_waiting(Core const* but) const {
        for (u32 i = 0; i < word_count_; i++) {
            u64 word = waiting_cores_.word(i);
            if (but != nullptr && but->index / 64 == i) word &= ~(u64{1} << but->index % 64);
            if (word != 0) return true;
        }
        return false;
    }
    void wake_siblings(Core& core, u32 cpu, CpuSet& kicks);
    void tell_idle_siblings(Core& core, SchedulerEntity const& entity, CpuSet& kicks);
    void let_pass(Core& core, u32 cpu, SchedulerEntity& entity);
    SchedulerEntity* pick_dedicated(CpuState& state, u64 now, SchedulerEntity*& evicted, CpuSet& kicks);

    // without locks
    struct Settled {
        Decision decision{nullptr, Decision::never};
        SchedulerEntity* evicted = nullptr; // may not stay on this CPU
        SchedulerEntity* expired = nullptr; // had a whole slice
        bool is_decided = false;
        bool is_offered = false; // what waits here
        bool has_kicks = false;
        bool has_left = false;
        bool is_disturbed = false; // was alone until somebody queued
    };
    void settle(CpuState& state, u64 now, Settled& result, CpuSet& kicks);
    void choose_at_once(CpuState& state, u64 now, Settled& result, CpuSet& kicks); // lock
    Decision choose_or_idle(CpuState& state, u64 now, bool has_left);
    bool goes_alone(CpuState& state);

    // kernel/src/scheduler_balance.cpp; without locks unless said otherwise
    bool steal(u32 cpu, Core& from, bool is_balancing);
    bool steal_any(u32 cpu);
    void balance(u32 cpu);
    void offer_waiting(Core& core);
    bool offer(Core& core, CpuSet& kicks); // lock
    bool is_awaited(SchedulerEntity const& entity) const;
    void offer_one(SchedulerEntity const& entity, Core const& core, CpuSet& kicks);
    u32 claim_idle_cpu(SchedulerEntity const& entity, u32 preferred_core);
    u32 core_for(SchedulerEntity const& entity, u32 preferred_core);
    struct Place {
        Core* core;
        u32 idle_cpu; // that the entity is for; `none`: it queues
    };
    Place find_place(SchedulerEntity& entity, Core& from, CpuSet& kicks);      // lock
    void put_at(Place place, SchedulerEntity& entity, u64 now, CpuSet& kicks); // both locks
    void relocate(SchedulerEntity& entity, u64 now);
    void put_into(Core& core, SchedulerEntity& entity, u64 now, u32 idle_cpu, CpuSet& kicks); // both locks
    void shift_all(Core& core, u64 by);                                                       // lock
    void kick_all(CpuSet const& cpus);

    // kernel/src/scheduler_settings.cpp; with control_lock_ held
    lib::Result<void> check(ScheduleSettings const& settings) const;
    u32 find_cpu_for(SchedulerEntity const& entity, CpuSet const& allowed);
    CpuSet shared_without(u32 extra, SchedulerEntity const* freed = nullptr) const;
    bool can_do_without(SchedulerEntity const& entity, CpuSet const& shared);
    void dedicate(u32 cpu, SchedulerEntity& entity);
    void undedicate(SchedulerEntity& entity);
    void publish_shared(CpuSet const& shared);
    void clear_out(u64 now);
    void settle_exclusive(SchedulerEntity& entity, u64 now);

    Config config_{};
    Kick kick_{};
    u32 cpu_count_ = 0;
    u32 core_count_ = 0;
    u32 word_count_ = 0; // of Marks: cores are no more than CPUs
    std::array<CpuState, max_cpus> cpus_{};
    std::array<Core, max_cpus> cores_{};
    Marks idle_;          // CPUs with nothing to run
    Marks alone_;         // CPUs that run something without a slice
    Marks waiting_cores_; // cores in whose queue somebody waits; changed under the core's lock
    std::array<std::atomic<u64>, max_cpus / 64> shared_{};
    Spinlock<LockRank::SchedulerSettings> control_lock_; // settings and `all_`; taken before a core's lock
    lib::IntrusiveList<SchedulerEntity, AllTag> all_;
};

} // namespace kernel
