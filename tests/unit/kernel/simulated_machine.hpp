// SPDX-License-Identifier: MIT
#pragma once
// A machine of CPUs that obey a kernel::Scheduler, with vCPUs that compute and sleep by plan; time is a number. Every
// CPU does what kernel/run_loop.hpp does: pick, run until the decision's end, a kick, or the end of the work.
#include <algorithm>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <kernel/scheduler.hpp>
#include <memory>
#include <random>
#include <vector>

namespace kernel {

struct SchedulerProbe {
    using State = SchedulerEntity::State;
    static State state(SchedulerEntity const& entity) { return entity.state_; }
    static bool may_use(Scheduler const& s, SchedulerEntity const& entity, u32 cpu) { return s.may_use(entity, cpu); }
    static bool group_fits(Scheduler& s, SchedulerEntity const& entity, u32 cpu) {
        return s.group_fits(s.core_of(cpu), entity);
    }
    static u32 core(Scheduler const& s, u32 cpu) { return s.cpus_[cpu].core->index; }
    static SchedulerEntity* current(Scheduler const& s, u32 cpu) { return s.cpus_[cpu].current; }
    static bool is_changing_group(Scheduler& s, u32 cpu) { return s.core_of(cpu).wanted_group != Scheduler::none; }
    static std::size_t queued(Scheduler& s, u32 core) {
        std::size_t count = 0;
        auto& queue = s.cores_[core].waiting;
        for (auto* entity = queue.front(); entity != nullptr; entity = queue.next(*entity))
            count++;
        return count;
    }
    static u32 waiting_count(Scheduler& s, u32 core) { return s.cores_[core].waiting_count.load(); }
    static u32 core_count(Scheduler const& s) { return s.core_count_; }
};

struct SimulatedMachine {
    using State = SchedulerProbe::State;
    static constexpr u64 never = Decision::never;

    struct Task {
        explicit Task(u32 group) : entity(group) {}
        SchedulerEntity entity;
        u64 busy_min = never, busy_max = never; // length of a burst of work
        u64 sleep_min = 0, sleep_max = 0;
        u64 work_left = never;
        u64 wakes_at = never; // while asleep
        bool is_added = true;
        bool wants_to_run = false;
        u64 waiting_since = never;
        u64 longest_wait = 0;
        u64 dispatches = 0;
    };
    struct Cpu {
        Task* task = nullptr;
        Task* napping = nullptr; // has the CPU, which halts
        u64 until = 0;
        u64 ran_from = 0;
        u64 picks = 0;
        bool kicked = true;
    };

    explicit SimulatedMachine(u32 cpu_count, Scheduler::Config config = {}, u32 threads_per_core = 1)
        : scheduler(std::make_unique<Scheduler>()), cpus(cpu_count) {
        std::array<u32, max_cpus> core_of{};
        for (u32 i = 0; i < cpu_count; i++)
            core_of[i] = i / threads_per_core;
        scheduler->start(config, cpu_count, core_of, Scheduler::Kick::to<&SimulatedMachine::kick>(*this));
    }
    void kick(u32 cpu) { cpus[cpu].kicked = true; }
    CpuSet all_cpus() const { return CpuSet::first(static_cast<u32>(cpus.size())); }

    // Busy for ever unless told otherwise.
    Task& add(ScheduleSettings settings, u32 group = 0) {
        if (settings.allowed.is_empty()) settings.allowed = all_cpus();
        tasks.push_back(std::make_unique<Task>(group));
        Task& task = *tasks.back();
        auto const added = scheduler->add(task.entity, settings);
        EXPECT_TRUE(added.has_value()) << name_of(added.error());
        return task;
    }
    void wake(Task& task) {
        if (task.wants_to_run) return;
        task.wants_to_run = true;
        task.wakes_at = never;
        task.work_left = task.busy_max == never ? never : between(task.busy_min, task.busy_max);
        task.waiting_since = now;
        if (!wake_in_place(task)) scheduler->wake(task.entity, now);
        settle();
    }
    bool wake_in_place(Task& task) {
        for (u32 i = 0; i < cpus.size(); i++) {
            Cpu& cpu = cpus[i];
            if (cpu.napping != &task) continue;
            u64 const until = scheduler->end_nap(i, now);
            naps++;
            cpu.napping = nullptr;
            cpu.task = &task;
            cpu.ran_from = now;
            cpu.until = until;
            cpu.kicked |= until == Scheduler::over;
            task.waiting_since = never;
            return true;
        }
        return false;
    }
    void wake_all() {
        for (auto& task : tasks)
            wake(*task);
    }
    Task* task_of(SchedulerEntity* entity) {
        for (auto& task : tasks)
            if (&task->entity == entity) return task.get();
        return nullptr;
    }

    // Every kicked CPU decides anew, until nobody is kicked.
    void settle() {
        for (unsigned rounds = 0;; rounds++) {
            ASSERT_LT(rounds, 1000U) << "CPUs kick each other for ever";
            bool any = false;
            for (u32 i = 0; i < cpus.size(); i++) {
                if (!cpus[i].kicked) continue;
                any = true;
                pick(i);
            }
            if (!any) break;
        }
        if (check_always) check();
    }
    void pick(u32 index) {
        Cpu& cpu = cpus[index];
        cpu.kicked = false;
        account(cpu);
        if (cpu.napping != nullptr) {
            (void)scheduler->end_nap(index, now);
            ASSERT_TRUE(scheduler->sleep(index, now));
            cpu.napping = nullptr;
        }
        Task* const before = cpu.task;
        auto const decision = scheduler->pick(index, now);
        picks++;
        cpu.picks++;
        cpu.task = decision.entity == nullptr ? nullptr : task_of(decision.entity);
        cpu.until = decision.until;
        cpu.ran_from = now;
        if (before != nullptr && before != cpu.task && before->wants_to_run && before->waiting_since == never)
            before->waiting_since = now;
        ASSERT_GT(cpu.until, now) << "a decision that ends before it begins";
        if (cpu.task == nullptr) return;
        if (cpu.task != before) cpu.task->dispatches++;
        if (cpu.task->waiting_since != never) {
            cpu.task->longest_wait = std::max(cpu.task->longest_wait, now - cpu.task->waiting_since);
            cpu.task->waiting_since = never;
        }
    }
    void account(Cpu& cpu) {
        if (cpu.task == nullptr) return;
        if (cpu.task->work_left != never) cpu.task->work_left -= std::min(cpu.task->work_left, now - cpu.ran_from);
        cpu.ran_from = now;
    }

    void run_for(u64 nanos) { run_until(now + nanos); }
    void run_until(u64 end) {
        while (true) {
            u64 next = end;
            for (auto const& cpu : cpus) {
                next = std::min(next, cpu.until);
                if (cpu.task != nullptr && cpu.task->work_left != never)
                    next = std::min(next, cpu.ran_from + cpu.task->work_left);
            }
            for (auto const& task : tasks)
                next = std::min(next, task->wakes_at);
            now = std::max(now, next);
            if (now >= end) break;
            step();
            if (testing::Test::HasFatalFailure()) return;
        }
        now = end;
    }
    // Everything that is due now.
    void step() {
        steps++;
        for (u32 i = 0; i < cpus.size(); i++) {
            Cpu& cpu = cpus[i];
            account(cpu);
            if (cpu.task != nullptr && cpu.task->work_left == 0)
                finish_burst(i);
            else if (cpu.until <= now)
                cpu.kicked = true;
        }
        for (auto& task : tasks)
            if (task->wakes_at <= now) wake(*task);
        settle();
    }
    void finish_burst(u32 index) {
        Task& task = *cpus[index].task;
        task.wants_to_run = false;
        u64 const pause = between(task.sleep_min, task.sleep_max);
        task.wakes_at = now + pause;
        cpus[index].task = nullptr;
        if (!cpus[index].kicked && scheduler->nap(index, now)) {
            cpus[index].napping = &task;
            cpus[index].until = never;
            return;
        }
        bool const slept = scheduler->sleep(index, now);
        cpus[index].kicked = true;
        ASSERT_TRUE(slept);
    }
    u64 between(u64 low, u64 high) { return std::uniform_int_distribution<u64>(low, high)(random); }

    // What must hold whenever nobody is kicked.
    void check() {
        for (u32 i = 0; i < cpus.size(); i++) {
            SchedulerEntity* const entity = SchedulerProbe::current(*scheduler, i);
            Task const* const has_it = cpus[i].napping != nullptr ? cpus[i].napping : cpus[i].task;
            ASSERT_EQ(entity, has_it == nullptr ? nullptr : &has_it->entity);
            if (entity == nullptr || cpus[i].napping != nullptr) continue;
            ASSERT_TRUE(SchedulerProbe::may_use(*scheduler, *entity, i)) << "CPU " << i << " runs what it may not";
            ASSERT_EQ(SchedulerProbe::state(*entity), State::Running);
            for (u32 other = 0; other < cpus.size(); other++) {
                if (other == i || cpus[other].task == nullptr) continue;
                ASSERT_NE(cpus[other].task, cpus[i].task) << "on two CPUs at once";
                if (!shares_cores && SchedulerProbe::core(*scheduler, other) == SchedulerProbe::core(*scheduler, i)) {
                    ASSERT_EQ(cpus[other].task->entity.group(), entity->group()) << "two VMs on one core";
                }
            }
        }
        for (u32 core = 0; core < SchedulerProbe::core_count(*scheduler); core++)
            ASSERT_EQ(SchedulerProbe::queued(*scheduler, core), SchedulerProbe::waiting_count(*scheduler, core));
        for (auto const& task : tasks) {
            auto const state = SchedulerProbe::state(task->entity);
            if (!task->is_added) continue;
            if (!task->wants_to_run) {
                bool const naps_here =
                    std::ranges::any_of(cpus, [&](Cpu const& cpu) { return cpu.napping == task.get(); });
                ASSERT_EQ(state, naps_here ? State::Running : State::Asleep);
                continue;
            }
            ASSERT_NE(state, State::Asleep) << "lost wake-up";
            if (state == State::Throttled) {
                ASSERT_NE(task->entity.settings().cap, 0U);
            }
            if (state != State::Waiting) continue;
            for (u32 i = 0; i < cpus.size(); i++) {
                bool const fits = SchedulerProbe::may_use(*scheduler, task->entity, i) && cpus[i].task == nullptr &&
                                  (shares_cores || SchedulerProbe::group_fits(*scheduler, task->entity, i)) &&
                                  !SchedulerProbe::is_changing_group(*scheduler, i);
                ASSERT_FALSE(fits) << "CPU " << i << " idles although somebody waits for it";
                bool const competes = SchedulerProbe::may_use(*scheduler, task->entity, i) && cpus[i].task != nullptr &&
                                      !cpus[i].task->entity.settings().is_exclusive;
                ASSERT_FALSE(competes && cpus[i].until == never)
                    << "CPU " << i << " lets nobody else run although somebody waits for it";
            }
        }
    }

    std::unique_ptr<Scheduler> scheduler;
    std::vector<Cpu> cpus;
    std::vector<std::unique_ptr<Task>> tasks;
    std::mt19937_64 random{1};
    u64 now = 1'000;
    u64 steps = 0;
    u64 picks = 0;
    u64 naps = 0;
    bool check_always = true;
    bool shares_cores = false;
};

} // namespace kernel
