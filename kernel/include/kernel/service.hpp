// SPDX-License-Identifier: MIT
#pragma once
// One instance of a service: a program in ring 3 with an address space of its own, scheduled as a vCPU is. Nothing that
// it does reaches more than itself: it ends with a line in the log, and kernel/services.hpp starts the next instance.
#include <atomic>
#include <expected>
#include <kernel/heap.hpp>
#include <kernel/run_loop.hpp>
#include <kernel/service_host.hpp>
#include <kernel/service_image.hpp>
#include <kernel/time.hpp>
#include <kernel/user_context.hpp>
#include <kernel/user_space.hpp>
#include <lib/format.hpp>
#include <optional>

namespace kernel {

class Service final : public Runnable {
public:
    static constexpr u64 heap_size = 256 * lib::KiB;
    // CPU time that a handler may take. A driver's takes microseconds.
    static constexpr u64 handler_milliseconds = 250;
    static constexpr u32 log_burst = 20;        // lines at once,
    static constexpr u64 log_milliseconds = 50; // and one more in this time

    // `changed` is called when it has been parked, and is the last thing that it does on any CPU. The name and the
    // host, which may be nullptr, live as long.
    static lib::Result<Own<Service>> create(std::string_view name, ServiceImage const& image, u32 instance,
                                            ServiceHost* host, lib::Delegate<void()> changed);
    // It is out of the scheduler and of every CPU. From the run loop, with no lock held.
    virtual ~Service();

    // From any CPU and context. What waits for one of these events goes on.
    void post(u64 events);
    // Ends it wherever it is, soon.
    void kill();
    bool has_ended() const { return has_ended_.load(std::memory_order_acquire); }
    bool was_killed() const { return is_killed_.load(std::memory_order_relaxed); }
    // Parks it: the next time that it waits, it stays there until release(), whatever comes.
    void park();
    bool is_parked() const { return is_to_park_ && is_parked_; }
    void release();
    // Memory of others in its address space. Before its first instruction, or while it is parked.
    lib::Result<void> map(Mapping<lib::HostVirt> const& mapping) { return space_.map(mapping); }
    lib::Result<void> unmap(u64 at, u64 size) { return space_.unmap(at, size); }
    // How it ended, for people; once it has.
    std::string_view end() const { return {end_.data(), end_size_}; }
    u64 memory() const { return space_.bytes(); }

    RunResult run() override;
    void unload() override;
    bool has_wake_event() override;
    void stopped() override;
    RunnableIdentity identity() const override { return {name_, RunnableIdentity::no_vcpu}; }

private:
    static constexpr u32 nowhere = ~u32{0};

    Service(std::string_view name, ServiceHost* host, lib::Delegate<void()> changed)
        : name_(name), host_(host), changed_(changed) {}
    lib::Result<void> build(ServiceImage const& image, u32 instance);
    lib::Result<void> add_manifest(u32 instance);
    RunResult go_on();
    std::optional<RunResult> handle_trap();
    std::optional<RunResult> system_call();
    std::optional<RunResult> wait(u64 mask, u64 deadline);
    bool end_wait();
    RunResult sleep();
    lib::service::Answer log_line(u64 at, u64 size);
    RunResult stop(u64 at, u64 size);
    bool may_log();
    RunResult fault(u64 cr2);
    std::optional<RunResult> machine_check();
    RunResult die();
    void log_registers() const;
    void log_backtrace() const;
    void arm_watchdog();
    void watchdog_rang() { is_watchdog_armed_.store(false, std::memory_order_relaxed); }
    void deadline_passed() { wake(*this); }

    Own<UserContext> context_;
    UserSpace space_;
    std::string_view name_;
    ServiceHost* host_;
    lib::Delegate<void()> changed_;
    std::atomic<u64> events_{0};
    std::atomic<u64> waiting_for_{0}; // the mask of wait(); 0: it does not wait for an event
    std::atomic<u32> running_on_{nowhere};
    std::atomic<bool> is_killed_{false};
    std::atomic<bool> is_to_park_{false};
    std::atomic<bool> is_parked_{false};
    std::atomic<bool> has_ended_{false};
    bool is_waiting_ = false;
    u64 wait_mask_ = 0;
    u64 deadline_ = lib::service::no_deadline;
    u64 handler_limit_ = 0;
    u64 handler_ticks_ = 0; // in ring 3 since wait() returned
    std::atomic<bool> is_watchdog_armed_{false};
    Timer watchdog_;
    Timer deadline_timer_;
    u64 log_credit_ = 0; // ticks
    u64 log_credit_at_ = 0;
    u64 dropped_lines_ = 0;
    std::array<char, 200> end_{};
    std::size_t end_size_ = 0;
};

} // namespace kernel
