// SPDX-License-Identifier: MIT
#include "kernel/simulated_machine.hpp"

#include <numeric>

using namespace kernel;

namespace {

constexpr u64 ms = 1'000'000;
constexpr u64 second = 1'000 * ms;

u64 used(SimulatedMachine& machine, SimulatedMachine::Task& task) {
    return machine.scheduler->used(task.entity, machine.now);
}

std::vector<double> shares_over(SimulatedMachine& machine, u64 time) {
    std::vector<u64> before;
    for (auto& task : machine.tasks)
        before.push_back(used(machine, *task));
    machine.run_for(time);
    std::vector<double> result;
    for (std::size_t i = 0; i < machine.tasks.size(); i++)
        result.push_back(double(used(machine, *machine.tasks[i]) - before[i]) / double(time));
    return result;
}

// The fair shares when everybody may run everywhere: by weight, nobody more than one CPU or its cap.
std::vector<double> fair_shares(std::vector<ScheduleSettings> const& all, double cpus) {
    std::vector<double> result(all.size(), -1);
    for (bool changed = true; changed;) {
        changed = false;
        double left = cpus, weights = 0;
        for (std::size_t i = 0; i < all.size(); i++) {
            if (result[i] >= 0)
                left -= result[i];
            else
                weights += all[i].weight;
        }
        for (std::size_t i = 0; i < all.size(); i++) {
            if (result[i] >= 0) continue;
            double const limit = all[i].cap == 0 ? 1.0 : all[i].cap / 100.0;
            if (left * all[i].weight / weights >= limit) {
                result[i] = limit;
                changed = true;
                break;
            }
        }
        if (!changed)
            for (std::size_t i = 0; i < all.size(); i++)
                if (result[i] < 0) result[i] = left * all[i].weight / weights;
    }
    return result;
}

} // namespace

TEST(Scheduler, IdlesWithoutWork) {
    SimulatedMachine machine(2);
    auto const decision = machine.scheduler->pick(1, 5);
    EXPECT_EQ(decision.entity, nullptr);
    EXPECT_EQ(decision.until, Decision::never);
}

TEST(Scheduler, RunsWhatIsWokenAtOnceOnAnIdleCpu) {
    SimulatedMachine machine(2);
    auto& a = machine.add({});
    auto& b = machine.add({});
    machine.wake_all();
    EXPECT_EQ(a.longest_wait, 0U);
    EXPECT_EQ(b.longest_wait, 0U);
    EXPECT_TRUE(machine.cpus[0].task != nullptr && machine.cpus[1].task != nullptr);
}

TEST(Scheduler, EqualWeightsShareOneCpuEqually) {
    SimulatedMachine machine(1);
    for (int i = 0; i < 8; i++)
        machine.add({});
    machine.wake_all();
    machine.run_for(100 * ms);
    for (double const got : shares_over(machine, second))
        EXPECT_NEAR(got, 1.0 / 8, 0.006);
}

TEST(Scheduler, NobodyWaitsLongerThanARoundOfSlices) {
    SimulatedMachine machine(1);
    for (int i = 0; i < 8; i++)
        machine.add({});
    machine.wake_all();
    machine.run_for(5 * second);
    for (auto& task : machine.tasks)
        EXPECT_LE(task->longest_wait, 8 * 5 * ms);
}

TEST(Scheduler, WeightsAreHeldWithinTwoPercentOverASecond) {
    std::mt19937_64 random(7);
    for (int round = 0; round < 30; round++) {
        SimulatedMachine machine(1);
        machine.check_always = false;
        std::vector<ScheduleSettings> all;
        auto const count = 2 + random() % 7;
        for (std::size_t i = 0; i < count; i++)
            all.push_back({.weight = static_cast<u32>(1 + random() % 1000)});
        for (auto const& settings : all)
            machine.add(settings);
        machine.wake_all();
        machine.run_for(second);
        auto const expected = fair_shares(all, 1);
        auto const got = shares_over(machine, second);
        for (std::size_t i = 0; i < count; i++)
            EXPECT_NEAR(got[i], expected[i], 0.02) << "round " << round << " weight " << all[i].weight;
    }
}

TEST(Scheduler, CapsAreHeldWithinTwoPercentOverASecond) {
    for (u32 cap = 1; cap < 100; cap += 7) {
        SimulatedMachine machine(1);
        machine.add({.cap = cap});
        machine.wake_all();
        EXPECT_NEAR(shares_over(machine, second)[0], cap / 100.0, 0.02) << cap;
        EXPECT_NEAR(shares_over(machine, second)[0], cap / 100.0, 0.005) << cap;
    }
}

TEST(Scheduler, CapLeavesTheRestToOthers) {
    SimulatedMachine machine(1);
    machine.add({.cap = 20});
    machine.add({});
    machine.wake_all();
    auto const got = shares_over(machine, second);
    EXPECT_NEAR(got[0], 0.2, 0.02);
    EXPECT_NEAR(got[1], 0.8, 0.02);
}

TEST(Scheduler, ASleeperGetsNoCreditBeyondItsCap) {
    SimulatedMachine machine(1);
    auto& task = machine.add({.cap = 50});
    machine.run_for(60 * second);
    machine.wake(task);
    EXPECT_NEAR(shares_over(machine, second)[0], 0.5, 0.02);
}

TEST(Scheduler, ThreeShareTwoCpusEqually) {
    SimulatedMachine machine(2);
    for (int i = 0; i < 3; i++)
        machine.add({});
    machine.wake_all();
    machine.run_for(second);
    for (double const got : shares_over(machine, second))
        EXPECT_NEAR(got, 2.0 / 3, 0.02);
}

TEST(Scheduler, WeightsHoldAcrossCpus) {
    std::mt19937_64 random(11);
    for (int round = 0; round < 30; round++) {
        auto const cpus = static_cast<u32>(2 + random() % 3);
        SimulatedMachine machine(cpus);
        machine.check_always = false;
        std::vector<ScheduleSettings> all;
        auto const count = cpus + 1 + random() % 6;
        for (std::size_t i = 0; i < count; i++)
            all.push_back({.weight = static_cast<u32>(50 + random() % 200),
                           .cap = random() % 4 == 0 ? static_cast<u32>(10 + random() % 80) : 0});
        for (auto const& settings : all)
            machine.add(settings);
        machine.wake_all();
        machine.run_for(2 * second);
        auto const expected = fair_shares(all, cpus);
        auto const got = shares_over(machine, second);
        for (std::size_t i = 0; i < count; i++)
            EXPECT_NEAR(got[i], expected[i], 0.02) << "round " << round << " cpus " << cpus << " task " << i
                                                   << " weight " << all[i].weight << " cap " << all[i].cap;
    }
}

TEST(Scheduler, ALongLonelyPastCostsNobodyHisTurn) {
    SimulatedMachine machine(2);
    auto& pinned_a = machine.add({.allowed = CpuSet::single(0)});
    auto& pinned_b = machine.add({.allowed = CpuSet::single(0)});
    auto& lonely = machine.add({});
    machine.wake(pinned_a);
    machine.wake(pinned_b);
    machine.wake(lonely);
    machine.run_for(60 * second); // `lonely` has had twice as much as each of the others
    auto& newcomer = machine.add({.allowed = CpuSet::single(1)});
    machine.wake(newcomer);
    machine.run_for(second);
    auto const got = shares_over(machine, second);
    for (double const one : got)
        EXPECT_GT(one, 0.45) << "everybody gets about half a CPU";
}

TEST(Scheduler, PinnedStaysOnItsCpu) {
    SimulatedMachine machine(3);
    auto& task = machine.add({.allowed = CpuSet::single(2)});
    machine.wake(task);
    EXPECT_EQ(machine.cpus[2].task, &task);
    machine.run_for(100 * ms);
    EXPECT_EQ(machine.cpus[2].task, &task);
}

TEST(Scheduler, AffinityChangeMovesARunningOne) {
    SimulatedMachine machine(3);
    auto& task = machine.add({.allowed = CpuSet::single(2)});
    machine.wake(task);
    ASSERT_TRUE(machine.scheduler->set_affinity(task.entity, CpuSet::single(0), machine.now));
    machine.settle();
    EXPECT_EQ(machine.cpus[0].task, &task);
    EXPECT_EQ(machine.cpus[2].task, nullptr);
}

TEST(Scheduler, ExclusiveRunsAloneAndWithoutATick) {
    SimulatedMachine machine(2);
    auto& owner = machine.add({.is_exclusive = true});
    for (int i = 0; i < 4; i++)
        machine.add({});
    machine.wake_all();
    u32 const cpu = machine.cpus[0].task == &owner ? 0 : 1;
    EXPECT_EQ(machine.cpus[cpu].task, &owner);
    EXPECT_EQ(machine.cpus[cpu].until, Decision::never);
    u64 const dispatches = owner.dispatches;
    auto const got = shares_over(machine, second);
    EXPECT_EQ(owner.dispatches, dispatches);
    EXPECT_NEAR(got[0], 1.0, 0.001);
    for (std::size_t i = 1; i < got.size(); i++)
        EXPECT_NEAR(got[i], 0.25, 0.01);
}

TEST(Scheduler, WhoIsAloneHasNoTick) {
    SimulatedMachine machine(2);
    auto& alone = machine.add({.allowed = CpuSet::single(0)});
    machine.add({.allowed = CpuSet::single(1)});
    machine.add({.allowed = CpuSet::single(1)}); // these two wait for each other, but not for CPU 0
    machine.wake_all();
    machine.run_for(6 * ms);
    EXPECT_EQ(machine.cpus[0].task, &alone);
    EXPECT_EQ(machine.cpus[0].until, Decision::never);
    EXPECT_NE(machine.cpus[1].until, Decision::never);
    u64 const picks = machine.cpus[0].picks;
    machine.run_for(10 * second);
    EXPECT_EQ(machine.cpus[0].picks, picks);
}

TEST(Scheduler, ATickEndsALonelyTimeAtOnce) {
    for (u64 const lonely_for : {4 * ms, 7 * ms, 60 * second}) {
        SimulatedMachine machine(1);
        auto& first = machine.add({});
        auto& second_one = machine.add({.weight = 300});
        machine.wake(first);
        machine.run_for(lonely_for);
        machine.wake(second_one);
        EXPECT_NE(machine.cpus[0].until, Decision::never);
        auto const got = shares_over(machine, second);
        EXPECT_NEAR(got[0], 0.25, 0.02) << lonely_for;
        EXPECT_NEAR(got[1], 0.75, 0.02) << lonely_for;
        EXPECT_LE(second_one.longest_wait, 5 * ms) << lonely_for;
        EXPECT_LE(first.longest_wait, 20 * ms) << lonely_for;
    }
}

TEST(Scheduler, WhoIsAloneElsewhereSharesWithNewcomers) {
    SimulatedMachine machine(2);
    machine.add({});
    machine.add({});
    machine.wake_all();
    machine.run_for(10 * second);
    EXPECT_EQ(machine.cpus[0].until, Decision::never);
    EXPECT_EQ(machine.cpus[1].until, Decision::never);
    machine.add({});
    machine.wake_all(); // queues on one core; the other must have ticks too
    machine.run_for(100 * ms);
    for (double const got : shares_over(machine, second))
        EXPECT_NEAR(got, 2.0 / 3, 0.02);
}

TEST(Scheduler, WhoIsAloneKeepsItsCapForDays) {
    for (u32 const cap : {30U, 99U, 100U}) {
        SimulatedMachine machine(1);
        auto& task = machine.add({.cap = cap});
        machine.wake(task);
        machine.check_always = false;
        machine.run_for(100 * second);
        EXPECT_NEAR(double(used(machine, task)) / double(machine.now), cap / 100.0, 0.01) << cap;
        if (cap == 100) machine.run_for(3 * 86'400 * second); // not one tick
        EXPECT_NEAR(shares_over(machine, second)[0], cap / 100.0, 0.01) << cap;
    }
}

TEST(Scheduler, WhoIsAloneIsDisturbedOnceInASlice) {
    SimulatedMachine machine(2);
    machine.add({.allowed = CpuSet::single(0)});
    machine.add({.allowed = CpuSet::single(1)});
    auto& guest = machine.add({.allowed = CpuSet::single(0)}); // at home there
    ASSERT_TRUE(machine.scheduler->set_affinity(guest.entity, machine.all_cpus(), machine.now));
    guest.busy_min = guest.busy_max = 20'000;
    guest.sleep_min = guest.sleep_max = 10 * second;
    machine.wake(*machine.tasks[0]);
    machine.wake(*machine.tasks[1]);
    for (int round = 0; round < 3; round++) {
        machine.run_for(12 * ms);
        EXPECT_EQ(machine.cpus[1].until, Decision::never);
        u64 const before = machine.cpus[1].picks;
        machine.wake(guest); // queues for CPU 0; 1 might help
        EXPECT_EQ(machine.cpus[1].picks, before + 1);
        EXPECT_NE(machine.cpus[1].until, Decision::never);
        for (int i = 0; i < 3; i++) {
            machine.run_for(1'200'000);
            EXPECT_FALSE(guest.wants_to_run);
            machine.wake(guest);
        }
        EXPECT_EQ(machine.cpus[1].picks, before + 1);
    }
}

TEST(Scheduler, ExclusiveKeepsItsCpuWhileAsleep) {
    SimulatedMachine machine(2);
    auto& owner = machine.add({.is_exclusive = true});
    owner.busy_min = owner.busy_max = 10 * ms;
    owner.sleep_min = owner.sleep_max = 30 * ms;
    for (int i = 0; i < 3; i++)
        machine.add({});
    machine.wake_all();
    machine.run_for(second);
    EXPECT_EQ(owner.longest_wait, 0U);
}

TEST(Scheduler, LastSharedCpuCannotBeTaken) {
    SimulatedMachine machine(1);
    machine.add({});
    SchedulerEntity greedy;
    auto const result = machine.scheduler->add(greedy, {.allowed = CpuSet::single(0), .is_exclusive = true});
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error(), lib::Errc::Busy);
}

TEST(Scheduler, CpuThatAnotherIsPinnedToCannotBeTaken) {
    SimulatedMachine machine(2);
    machine.add({.allowed = CpuSet::single(1)});
    auto& task = machine.add({});
    ASSERT_TRUE(machine.scheduler->set_exclusive(task.entity, true, machine.now));
    SchedulerEntity second_one;
    EXPECT_EQ(machine.scheduler->add(second_one, {.allowed = machine.all_cpus(), .is_exclusive = true}).error(),
              lib::Errc::Busy);
    EXPECT_EQ(machine.scheduler->set_affinity(task.entity, CpuSet::single(1), machine.now).error(), lib::Errc::Busy);
}

TEST(Scheduler, ExclusiveCanBeGivenUpAgain) {
    SimulatedMachine machine(2);
    auto& task = machine.add({});
    for (int i = 0; i < 3; i++)
        machine.add({});
    machine.wake_all();
    ASSERT_TRUE(machine.scheduler->set_exclusive(task.entity, true, machine.now));
    machine.settle();
    EXPECT_NEAR(shares_over(machine, second)[0], 1.0, 0.01);
    ASSERT_TRUE(machine.scheduler->set_exclusive(task.entity, false, machine.now));
    machine.settle();
    machine.run_for(second);
    for (double const got : shares_over(machine, second))
        EXPECT_NEAR(got, 0.5, 0.02);
}

TEST(Scheduler, RefusesSettingsThatMakeNoSense) {
    SimulatedMachine machine(2);
    SchedulerEntity entity;
    auto const all = machine.all_cpus();
    for (ScheduleSettings const& bad :
         {ScheduleSettings{.allowed = all, .weight = 0}, ScheduleSettings{.allowed = all, .weight = 10'001},
          ScheduleSettings{.allowed = all, .cap = 101}, ScheduleSettings{.allowed = {}},
          ScheduleSettings{.allowed = CpuSet::single(7)},
          ScheduleSettings{.allowed = all, .cap = 10, .is_exclusive = true}})
        EXPECT_EQ(machine.scheduler->add(entity, bad).error(), lib::Errc::OutOfRange);
    ASSERT_TRUE(machine.scheduler->add(entity, {.allowed = all}));
    EXPECT_EQ(machine.scheduler->add(entity, {.allowed = all}).error(), lib::Errc::BadState);
    EXPECT_EQ(machine.scheduler->set_weight(entity, 0).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(machine.scheduler->set_cap(entity, 200, 0).error(), lib::Errc::OutOfRange);
}

TEST(Scheduler, RemovesOnlyWhatDoesNotRun) {
    SimulatedMachine machine(1);
    auto& task = machine.add({});
    machine.wake(task);
    EXPECT_EQ(machine.scheduler->remove(task.entity).error(), lib::Errc::Busy);
    machine.scheduler->stop(0, machine.now);
    machine.scheduler->wake(task.entity, machine.now); // too late
    EXPECT_EQ(machine.scheduler->pick(0, machine.now).entity, nullptr);
    EXPECT_TRUE(machine.scheduler->remove(task.entity));
}

TEST(Scheduler, WakeUpWhileRunningVoidsTheSleep) {
    SimulatedMachine machine(1);
    auto& task = machine.add({});
    machine.wake(task);
    machine.scheduler->wake(task.entity, machine.now);
    EXPECT_FALSE(machine.scheduler->sleep(0, machine.now));
    EXPECT_EQ(machine.scheduler->pick(0, machine.now).entity, &task.entity);
    EXPECT_TRUE(machine.scheduler->sleep(0, machine.now));
}

TEST(Scheduler, YieldLetsTheOtherGoFirst) {
    SimulatedMachine machine(1);
    auto& a = machine.add({});
    auto& b = machine.add({});
    machine.wake(a);
    machine.wake(b);
    auto* const first = machine.cpus[0].task;
    machine.now += 1000;
    machine.scheduler->yield(0);
    machine.kick(0);
    machine.settle();
    EXPECT_NE(machine.cpus[0].task, first);
}

TEST(Scheduler, RareSleeperRunsWithinAMillisecondAmongBusyOnes) {
    SimulatedMachine machine(1);
    auto& sleeper = machine.add({});
    sleeper.busy_min = sleeper.busy_max = ms / 10;
    sleeper.sleep_min = 20 * ms;
    sleeper.sleep_max = 30 * ms;
    for (int i = 0; i < 8; i++)
        machine.add({});
    machine.wake_all();
    machine.run_for(second);
    sleeper.longest_wait = 0;
    machine.run_for(5 * second);
    EXPECT_LE(sleeper.longest_wait, 2 * ms);
    auto const told = sleeper.entity.wake_latency();
    EXPECT_GT(told.count, 100U);
    EXPECT_LE(told.total / told.count, 2 * ms); // the first second among them
    EXPECT_GE(told.longest, sleeper.longest_wait);
    EXPECT_GT(told.total, 0U);
    EXPECT_LE(told.total, told.count * told.longest);
}

TEST(Scheduler, WakingOftenEarnsNothing) {
    SimulatedMachine machine(1);
    auto& nervous = machine.add({});
    nervous.busy_min = nervous.busy_max = ms / 2;
    nervous.sleep_min = nervous.sleep_max = 1000;
    machine.add({});
    machine.wake_all();
    auto const got = shares_over(machine, second);
    EXPECT_LE(got[0], 0.52);
    EXPECT_GE(got[1], 0.48);
}

TEST(Scheduler, VmsNeverShareACore) {
    SimulatedMachine machine(2, {}, 2);
    machine.add({}, 1);
    machine.add({}, 1);
    machine.add({}, 2);
    machine.add({}, 2);
    machine.wake_all(); // every step checks
    machine.run_for(second);
    for (double const got : shares_over(machine, second))
        EXPECT_NEAR(got, 0.5, 0.03);
}

TEST(Scheduler, SiblingsOfOneVmDoNotStarveAnother) {
    SimulatedMachine machine(2, {}, 2);
    for (int i = 0; i < 4; i++)
        machine.add({}, 1);
    machine.add({}, 2);
    machine.wake_all();
    machine.run_for(second);
    auto const got = shares_over(machine, second);
    EXPECT_GT(got[4], 0.25); // it has the core to itself while it runs
    EXPECT_LT(machine.tasks[4]->longest_wait, 60 * ms);
}

TEST(Scheduler, VmsThatMayUseOneThreadEachTakeTurns) {
    for (u32 const first : {0U, 1U}) { // whichever of the two CPUs looks first at the end of a slice
        SimulatedMachine machine(2, {}, 2);
        machine.add({.allowed = CpuSet::single(first)}, 1);
        machine.add({.allowed = CpuSet::single(1 - first)}, 2);
        machine.wake_all();
        machine.run_for(second);
        for (double const got : shares_over(machine, second))
            EXPECT_NEAR(got, 0.5, 0.03) << first;
    }
}

TEST(Scheduler, WhoComesLateToASiblingHasTurnsToo) {
    for (bool const is_moved : {false, true}) {
        SimulatedMachine machine(4, {}, 2);
        auto& first = machine.add({.allowed = CpuSet::single(0)}, 1);
        auto& late = machine.add({.allowed = CpuSet::single(is_moved ? 2 : 1)}, 2);
        machine.wake(first);
        if (is_moved) machine.wake(late);
        machine.run_for(100 * ms); // the first one has no tick any more
        if (is_moved) {
            ASSERT_TRUE(machine.scheduler->set_affinity(late.entity, CpuSet::single(1), machine.now));
            machine.settle();
        } else {
            machine.wake(late);
        }
        machine.run_for(second);
        for (double const got : shares_over(machine, second))
            EXPECT_NEAR(got, 0.5, 0.03) << is_moved;
    }
}

TEST(Scheduler, VmsShareACoreWhenAllowed) {
    SimulatedMachine machine(2, {.share_cores = true}, 2);
    machine.shares_cores = true;
    machine.add({}, 1);
    machine.add({}, 2);
    machine.wake_all();
    for (double const got : shares_over(machine, second))
        EXPECT_NEAR(got, 1.0, 0.01);
}

TEST(Scheduler, ExclusiveOwnsTheWholeCore) {
    SimulatedMachine machine(4, {}, 2);
    auto& owner = machine.add({.is_exclusive = true}, 1);
    for (int i = 0; i < 3; i++)
        machine.add({}, 2);
    machine.wake_all();
    machine.run_for(100 * ms);
    u32 const core = machine.cpus[0].task == &owner || machine.cpus[1].task == &owner ? 0 : 1;
    EXPECT_TRUE(machine.cpus[core * 2].task == nullptr || machine.cpus[core * 2 + 1].task == nullptr);
    auto& twin = machine.add({.is_exclusive = true}, 1);
    machine.wake(twin);
    EXPECT_TRUE(machine.cpus[core * 2].task != nullptr && machine.cpus[core * 2 + 1].task != nullptr);
}

TEST(Scheduler, ExclusiveCannotBeGivenUpWhereASiblingIsExclusive) {
    SimulatedMachine machine(4, {}, 2);
    auto& first = machine.add({.allowed = CpuSet::single(0), .is_exclusive = true}, 1);
    machine.add({.allowed = CpuSet::single(1), .is_exclusive = true}, 1);
    EXPECT_EQ(machine.scheduler->set_exclusive(first.entity, false, machine.now).error(), lib::Errc::Busy);
}

TEST(Scheduler, ExclusiveThatMovesAwayMeetsTheNextOwnerOfItsCpu) {
    SimulatedMachine machine(3);
    auto& first = machine.add({.allowed = CpuSet::single(0), .is_exclusive = true});
    machine.wake(first);
    machine.run_for(10 * ms);
    // Both before CPU 0 has looked again: it still runs the first.
    ASSERT_TRUE(machine.scheduler->set_affinity(first.entity, CpuSet::single(1), machine.now));
    auto& second_owner = machine.add({.allowed = CpuSet::single(0), .is_exclusive = true});
    machine.wake(second_owner);
    machine.run_for(10 * ms);
    EXPECT_EQ(machine.cpus[0].task, &second_owner);
    EXPECT_EQ(machine.cpus[1].task, &first);
    EXPECT_EQ(SchedulerProbe::waiting_count(*machine.scheduler, 0), 0U);
}

TEST(Scheduler, WorkForAnotherIsPaidByIt) {
    SimulatedMachine machine(1);
    auto& victim = machine.add({}, 1);
    auto& payer = machine.add({}, 2); // sleeps
    machine.wake(victim);
    u64 const begin = machine.now;
    machine.now += ms;
    machine.scheduler->charge_work(0, payer.entity, machine.now - 200'000, machine.now);
    EXPECT_EQ(used(machine, payer), 200'000U);
    EXPECT_EQ(used(machine, victim), machine.now - begin - 200'000);
    machine.run_for(ms);
    EXPECT_EQ(used(machine, payer), 200'000U);
    EXPECT_EQ(used(machine, victim), machine.now - begin - 200'000);
}

TEST(Scheduler, WorkOnAnIdleCpuIsPaidAsWell) {
    SimulatedMachine machine(2);
    auto& payer = machine.add({.allowed = CpuSet::single(1)});
    machine.wake(payer);
    machine.run_for(ms);
    u64 const before = used(machine, payer);
    machine.scheduler->charge_work(0, payer.entity, machine.now - 1'000, machine.now);
    EXPECT_EQ(used(machine, payer), before + 1'000);
}

TEST(Scheduler, WhoPaysWhileItWaitsGoesBackInTheQueue) {
    SimulatedMachine machine(1);
    auto& first = machine.add({});
    auto& payer = machine.add({});
    auto& other = machine.add({});
    machine.wake(first);
    machine.wake(payer);
    machine.wake(other);
    ASSERT_EQ(machine.cpus[0].task, &first);
    machine.run_for(ms);
    machine.scheduler->charge_work(0, payer.entity, machine.now - 900'000, machine.now);
    machine.check();
    machine.run_for(5 * ms);
    EXPECT_EQ(machine.cpus[0].task, &other);
    auto const before = used(machine, payer);
    machine.run_for(10 * ms);
    EXPECT_GT(used(machine, payer), before) << "its turn comes";
}

TEST(Scheduler, WorkCountsAgainstTheCap) {
    SimulatedMachine machine(1);
    auto& victim = machine.add({}, 1);
    auto& payer = machine.add({.cap = 20}, 2);
    machine.wake_all();
    machine.run_for(100 * ms);
    u64 const before = used(machine, payer);
    u64 const begin = machine.now, victim_before = used(machine, victim);
    for (int i = 0; i < 1000; i++) { // a tenth of the CPU is work for the one with the cap
        machine.run_for(ms);
        machine.scheduler->charge_work(0, payer.entity, machine.now - 100'000, machine.now);
    }
    EXPECT_NEAR(double(used(machine, payer) - before) / double(machine.now - begin), 0.2, 0.01);
    EXPECT_NEAR(double(used(machine, victim) - victim_before) / double(machine.now - begin), 0.8, 0.01);
}

TEST(Scheduler, WorkStaysOffCpusThatOthersOwn) {
    SimulatedMachine machine(3);
    auto& sleeper = machine.add({.allowed = CpuSet::single(2)}, 1);
    auto& owner = machine.add({.allowed = CpuSet::single(1)}, 2);
    ASSERT_TRUE(machine.scheduler->set_affinity(sleeper.entity, machine.all_cpus(), machine.now));
    EXPECT_EQ(machine.scheduler->cpu_for_work(sleeper.entity, 2), 2U);
    ASSERT_TRUE(machine.scheduler->set_affinity(owner.entity, CpuSet::single(2), machine.now));
    ASSERT_TRUE(machine.scheduler->set_exclusive(owner.entity, true, machine.now)); // where the other one slept
    machine.wake(owner);
    for (u32 here = 0; here < 3; here++) {
        EXPECT_NE(machine.scheduler->cpu_for_work(sleeper.entity, here), 2U);
        EXPECT_EQ(machine.scheduler->cpu_for_work(owner.entity, here), 2U);
    }
}

TEST(Scheduler, WorkIsWhereTheVmRuns) {
    SimulatedMachine machine(3);
    auto& boot_vcpu = machine.add({.allowed = CpuSet::single(0)}, 1);
    auto& other_vcpu = machine.add({.allowed = CpuSet::single(1)}, 1);
    machine.wake_all();
    EXPECT_EQ(machine.scheduler->cpu_for_work(boot_vcpu.entity, 1), 1U); // its other vCPU is there
    EXPECT_EQ(machine.scheduler->cpu_for_work(boot_vcpu.entity, 2), 0U);
    EXPECT_EQ(machine.scheduler->cpu_for_work(other_vcpu.entity, 2), 1U);
}
