// SPDX-License-Identifier: MIT
// The scheduler with a real thread for each CPU: what random steps on one thread cannot find.
#include <chrono>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <kernel/cpu.hpp>
#include <kernel/scheduler.hpp>
#include <memory>
#include <thread>
#include <vector>

using namespace kernel;

namespace kernel {
extern thread_local Cpu* hosted_thread_cpu;
}

namespace {

constexpr u32 cpu_count = 4;
constexpr u32 task_count = 10;
constexpr u64 turns_per_task = 3'000;

struct Task {
    explicit Task(u32 group) : entity(group) {}
    SchedulerEntity entity;
    std::atomic<u32> running_on{~0U};
    std::atomic<u32> napping_on{~0U};
    std::atomic<bool> has_work{false}; // what a vCPU's request bits are
    std::atomic<u64> turns{0};
};

class SchedulerThreads : public testing::Test {
public:
    void kick(u32 cpu) { pending[cpu].store(true, std::memory_order_seq_cst); }
    static u64 now() {
        return static_cast<u64>(
            std::chrono::steady_clock::now().time_since_epoch().count()); // only orders, decides nothing
    }
    Task& task_of(SchedulerEntity* entity) {
        for (auto& task : tasks)
            if (&task->entity == entity) return *task;
        std::abort();
    }
    // As vm::Vcpu::post() and kernel::wake() do it; who naps looks for itself.
    void post(Task& task) {
        task.has_work.store(true, std::memory_order_seq_cst);
        u32 const where = task.running_on.load(std::memory_order_seq_cst);
        if (where != ~0U)
            kick(where);
        else if (task.napping_on.load(std::memory_order_seq_cst) == ~0U)
            scheduler->wake(task.entity, now());
    }
    void cpu_loop(u32 index) {
        fakes::Cpu const instructions;
        auto const own = std::make_unique<kernel::Cpu>();
        own->index = index;
        hosted_thread_cpu = own.get();
        u64 random = index + 1;
        while (!is_over.load()) {
            pending[index].exchange(false, std::memory_order_seq_cst);
            auto const decision = scheduler->pick(index, now());
            if (decision.entity == nullptr) {
                // HLT: until a kick; time passes in a machine too.
                u64 const wake_at = decision.until;
                while (!pending[index].load(std::memory_order_seq_cst) && !is_over.load() && now() < wake_at)
                    std::this_thread::yield();
                continue;
            }
            while (run(index, task_of(decision.entity), random)) {
            }
        }
        hosted_thread_cpu = nullptr;
    }
    // As RunLoop::run_one() does it: true when it is to be run again at once.
    bool run(u32 index, Task& task, u64& random) {
        if (task.running_on.exchange(index, std::memory_order_seq_cst) != ~0U) collisions++;
        task.turns++;
        bool const has_work = task.has_work.exchange(false, std::memory_order_seq_cst);
        random = random * 6364136223846793005U + 1442695040888963407U;
        // Whoever runs gives work to another, so that there is always one more wake-up on its way.
        if (has_work) post(*tasks[(random >> 33) % task_count]);
        if (task.running_on.exchange(~0U, std::memory_order_seq_cst) != index) collisions++;
        if ((random >> 20) % 8 == 0) {
            scheduler->yield(index);
            return false;
        }
        if (scheduler->nap(index, now()) && nap(index, task)) return true;
        if (!task.has_work.load(std::memory_order_seq_cst)) scheduler->sleep(index, now());
        return false;
    }
    bool nap(u32 index, Task& task) {
        task.napping_on.store(index, std::memory_order_seq_cst);
        bool is_awake = false;
        while (!pending[index].load(std::memory_order_seq_cst) && !is_over.load()) {
            is_awake = task.has_work.load(std::memory_order_seq_cst);
            if (is_awake) break;
            std::this_thread::yield();
        }
        task.napping_on.store(~0U, std::memory_order_seq_cst);
        naps++;
        return scheduler->end_nap(index, now()) != Scheduler::over && is_awake;
    }

    std::unique_ptr<Scheduler> scheduler = std::make_unique<Scheduler>();
    std::vector<std::unique_ptr<Task>> tasks;
    std::array<std::atomic<bool>, cpu_count> pending{};
    std::atomic<bool> is_over{false};
    std::atomic<u32> collisions{0};
    std::atomic<u64> naps{0};
};

TEST_F(SchedulerThreads, NoWakeUpIsLostAndNothingRunsTwice) {
    fakes::Cpu const instructions;
    std::array<u32, max_cpus> cores{};
    for (u32 i = 0; i < cpu_count; i++)
        cores[i] = i / 2;
    scheduler->start({}, cpu_count, cores, Scheduler::Kick::to<&SchedulerThreads::kick>(*this));
    for (u32 i = 0; i < task_count; i++) {
        tasks.push_back(std::make_unique<Task>(i % 2));
        ScheduleSettings settings{.allowed = CpuSet::first(cpu_count)};
        if (i == 3) settings.allowed = CpuSet::single(1) | CpuSet::single(2);
        ASSERT_TRUE(scheduler->add(tasks.back()->entity, settings));
    }
    for (u32 i = 0; i < 4; i++)
        post(*tasks[i]);
    std::vector<std::thread> threads;
    for (u32 i = 0; i < cpu_count; i++)
        threads.emplace_back([this, i] { cpu_loop(i); });
    // A lost wake-up takes one token of work out of circulation; when all four are lost, nothing moves any more.
    u64 const deadline = now() + 60'000'000'000;
    u64 turns = 0;
    u32 round = 0;
    // On a busy computer it may take long until one CPU finds the queues empty and naps.
    while ((turns < turns_per_task * task_count || naps == 0) && now() < deadline) {
        std::this_thread::yield();
        turns = 0;
        for (auto const& task : tasks)
            turns += task->turns.load();
        if (++round % 64 == 0) {
            auto& entity = tasks[round / 64 % task_count]->entity;
            (void)scheduler->set_affinity(entity, CpuSet::first(1 + round / 640 % cpu_count), now());
            (void)scheduler->set_exclusive(tasks[5]->entity, round / 64 % 2 == 0, now());
        }
    }
    is_over = true;
    for (auto& thread : threads)
        thread.join();
    EXPECT_EQ(collisions, 0U);
    EXPECT_GT(naps, 0U);
    EXPECT_GE(turns, turns_per_task * task_count) << "the machine has come to a standstill";
}

} // namespace
