// SPDX-License-Identifier: MIT
// Millions of random steps on machines of several shapes: after each, everything that SimulatedMachine::check() knows.
#include "kernel/simulated_machine.hpp"

using namespace kernel;

namespace {

constexpr u64 ms = 1'000'000;

struct Shape {
    u32 cpus;
    u32 threads;
    bool shares_cores;
    bool changes_settings;
    u64 steps;
};

class SchedulerRandom : public testing::TestWithParam<Shape> {
protected:
    u64 random(u64 below) { return machine->random() % below; }

    CpuSet random_set() {
        CpuSet set;
        auto const cpus = GetParam().cpus;
        for (u32 i = 0; i < cpus; i++)
            if (random(3) != 0) set.add(i);
        return random(3) == 0 ? CpuSet::first(cpus) : set; // empty sets are refused
    }
    ScheduleSettings random_settings() {
        ScheduleSettings settings;
        settings.allowed = random_set();
        settings.weight = random(3) == 0 ? static_cast<u32>(1 + random(1000)) : 100;
        settings.cap = random(4) == 0 ? static_cast<u32>(1 + random(100)) : 0;
        settings.is_exclusive = GetParam().changes_settings && random(8) == 0;
        return settings;
    }
    void give_a_plan(SimulatedMachine::Task& task) {
        task.busy_min = 1 + random(10'000);
        task.busy_max = task.busy_min + random(random(2) == 0 ? 100'000 : 20 * ms);
        task.sleep_min = 1 + random(1'000);
        task.sleep_max = task.sleep_min + random(random(2) == 0 ? 50'000 : 30 * ms);
        if (random(6) == 0) task.busy_max = SimulatedMachine::never;
    }
    void add_one() {
        machine->tasks.push_back(std::make_unique<SimulatedMachine::Task>(static_cast<u32>(random(3))));
        auto& task = *machine->tasks.back();
        task.is_added = machine->scheduler->add(task.entity, random_settings()).has_value();
        machine->settle();
        if (!task.is_added) {
            machine->tasks.pop_back();
            return;
        }
        give_a_plan(task);
        task.wakes_at = machine->now + random(5 * ms);
    }
    void remove_one(std::size_t index) {
        auto& task = *machine->tasks[index];
        bool const runs = SchedulerProbe::state(task.entity) == SimulatedMachine::State::Running;
        ASSERT_EQ(machine->scheduler->remove(task.entity).has_value(), !runs);
        if (runs) return;
        auto const keep = std::move(machine->tasks[index]);
        machine->tasks.erase(machine->tasks.begin() + static_cast<std::ptrdiff_t>(index));
        machine->settle();
    }
    void change_something() {
        auto& tasks = machine->tasks;
        if (tasks.size() < 12 && random(3) == 0) {
            add_one();
            return;
        }
        if (tasks.empty()) return;
        std::size_t const index = random(tasks.size());
        auto& entity = tasks[index]->entity;
        auto& scheduler = *machine->scheduler;
        // Refusals are as good as anything: the machine must stay sound.
        switch (random(6)) {
        case 0: (void)scheduler.set_affinity(entity, random_set(), machine->now); break;
        case 1: (void)scheduler.set_weight(entity, static_cast<u32>(random(1100))); break;
        case 2: (void)scheduler.set_cap(entity, static_cast<u32>(random(110)), machine->now); break;
        case 3: (void)scheduler.set_exclusive(entity, true, machine->now); break;
        case 4: (void)scheduler.set_exclusive(entity, false, machine->now); break;
        default: remove_one(index); break;
        }
        machine->settle();
    }
    void yield_somewhere() {
        auto const cpu = static_cast<u32>(random(GetParam().cpus));
        if (machine->cpus[cpu].task == nullptr) return;
        machine->scheduler->yield(cpu);
        machine->kick(cpu);
        machine->settle();
    }
    void wake_for_nothing() {
        if (machine->tasks.empty()) return;
        auto& task = *machine->tasks[random(machine->tasks.size())];
        // One that runs would not go to sleep afterwards; the machine here expects that it does.
        if (!task.wants_to_run || SchedulerProbe::state(task.entity) == SimulatedMachine::State::Running) return;
        machine->scheduler->wake(task.entity, machine->now);
        machine->settle();
    }

    std::unique_ptr<SimulatedMachine> machine;
};

TEST_P(SchedulerRandom, HoldsItsInvariants) {
    auto const& shape = GetParam();
    machine = std::make_unique<SimulatedMachine>(shape.cpus, Scheduler::Config{.share_cores = shape.shares_cores},
                                                 shape.threads);
    machine->shares_cores = shape.shares_cores;
    for (int i = 0; i < 8; i++)
        add_one();
    u64 longest = 0;
    while (machine->steps < shape.steps) {
        machine->run_for(1 + random(200'000));
        if (shape.changes_settings && random(4) == 0) change_something();
        if (random(16) == 0) yield_somewhere();
        if (random(16) == 0) wake_for_nothing();
        if (random(4) == 0) machine->kick(static_cast<u32>(random(shape.cpus)));
        ASSERT_FALSE(HasFailure()) << "step " << machine->steps << " at " << machine->now;
        for (auto const& task : machine->tasks) {
            if (task->waiting_since == SimulatedMachine::never) continue;
            longest = std::max(longest, machine->now - task->waiting_since);
        }
        // Nobody starves: 12 entities, of which the heaviest weighs 1000 times the lightest and the smallest cap is 1
        // %.
        ASSERT_LT(longest, 12'000 * ms) << "step " << machine->steps;
    }
    RecordProperty("picks", static_cast<int>(machine->picks));
    RecordProperty("longest_wait_us", static_cast<int>(longest / 1000));
}

INSTANTIATE_TEST_SUITE_P(Shapes, SchedulerRandom,
                         testing::Values(Shape{1, 1, false, false, 200'000}, Shape{2, 1, false, false, 300'000},
                                         Shape{4, 1, false, true, 500'000}, Shape{8, 1, false, true, 300'000},
                                         Shape{2, 2, false, true, 300'000}, Shape{4, 2, false, true, 500'000},
                                         Shape{4, 2, true, true, 300'000}, Shape{8, 4, false, true, 200'000}));

} // namespace
