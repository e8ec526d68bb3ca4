// SPDX-License-Identifier: MIT
#pragma once
// What every CPU does once the machine is up: deferred work, ask the scheduler, run a vCPU or service, account for it,
// over and over; HLT when there is nothing. Interrupts are off except in HLT and in guests.
#include <kernel/scheduler.hpp>
#include <string_view>

namespace kernel {

// Why a vCPU gave the CPU back.
enum class RunResult : u8 { Work, Sleep, Yield, Stopped };

// Who has a CPU, for people.
struct RunnableIdentity {
    static constexpr u32 no_vcpu = ~u32{0};
    std::string_view name; // of the VM or the service
    u32 vcpu;              // no_vcpu: a service
};

// What the run loop runs: a vCPU or a service.
class Runnable : public SchedulerEntity {
public:
    using SchedulerEntity::SchedulerEntity;
    // Runs on the calling CPU until something wants the CPU back; must look at Cpu::work_pending before each guest
    // entry.
    virtual RunResult run() = 0;
    // Takes its state out of the calling CPU's registers, where it ran last.
    virtual void unload() = 0;
    // After Sleep: something came in while run() was ending.
    virtual bool has_wake_event() = 0;
    virtual RunnableIdentity identity() const = 0;
    // After Stopped: it is unloaded and nothing here will touch it again; it may be taken away.
    virtual void stopped() = 0;

protected:
    ~Runnable() = default;

private:
    friend class RunLoop;
    friend lib::Result<void> remove_runnable(Runnable& runnable);
    friend void unload_runnable(Runnable& runnable);
    friend void wake(Runnable& runnable);
    std::atomic<u32> loaded_on_{~u32{0}};  // the CPU whose registers hold its state
    std::atomic<u32> napping_on_{~u32{0}}; // the CPU that halts in its favour: Scheduler::nap()
};

// Once all CPUs are registered, before any of them enters the loop.
lib::Result<void> start_scheduler(Scheduler::Config const& config);
Scheduler& scheduler();

[[noreturn]] void run_cpu();

// From any CPU and context.
void wake(Runnable& runnable);
// Takes it from the scheduler and out of every CPU. Busy while it runs: make it stop first. From the run loop only,
// with no lock held.
lib::Result<void> remove_runnable(Runnable& runnable);
// Takes its state out of the CPU whose registers hold it. It does not run and will not until the caller lets it. From
// the run loop only, with no lock held.
void unload_runnable(Runnable& runnable);

} // namespace kernel
