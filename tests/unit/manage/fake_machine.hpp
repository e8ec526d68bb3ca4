// SPDX-License-Identifier: MIT
#pragma once
// VMs and a machine that do what the supervisor tells them, complain when it tells them nonsense, and count memory.
#include <manage/supervisor.hpp>

#include "kernel/kernel_cpu.hpp"
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace supervisor_test {

using lib::Nanos;
using lib::u32;
using lib::u64;
using manage::ManagedVm;
using manage::Supervisor;
using manage::VmPhase;
using vm::EndReason;

class FakeMachine;

class FakeVm final : public ManagedVm, public kernel::ConsoleUser {
public:
    FakeVm(FakeMachine& host, config::VmDescription const& description) : host_(host), description_(description) {}
    ~FakeVm() override;
    bool is_ready() override;
    bool begin() override;
    Progress go_on() override;
    bool exists() const override { return exists_; }
    bool is_running() const override { return is_started_ && reason_ == EndReason::None; }
    bool has_ended() const override {
        EXPECT_TRUE(is_started_);
        return has_ended_;
    }
    bool is_paused() const override { return is_paused_; }
    void power_button() override {
        EXPECT_TRUE(is_running());
        buttons++;
    }
    // The guest, or the supervisor. The vCPUs need a moment to stop: finish().
    void end(EndReason reason, std::string_view) override {
        EXPECT_TRUE(is_started_);
        if (reason_ == EndReason::None) reason_ = reason;
        is_paused_ = false;
    }
    void finish() { has_ended_ = is_started_ && reason_ != EndReason::None; }
    bool pause() override {
        EXPECT_TRUE(is_running() && !is_paused_);
        if (ends_while_pausing != EndReason::None) {
            end(std::exchange(ends_while_pausing, EndReason::None), "");
            return false;
        }
        is_paused_ = true;
        return true;
    }
    void resume() override {
        EXPECT_TRUE(is_running() && is_paused_);
        is_paused_ = false;
    }
    std::expected<void, std::string_view> begin_save() override;
    bool go_on_saving() override {
        EXPECT_TRUE(is_running() && is_paused_ && snapshot_ != 0);
        return ++saved_slices_ == slices_to_start;
    }
    u64 snapshot_size() const override { return snapshot_; }
    void discard() override;
    bool begin_restore() override;
    manage::VmFigures figures() override;
    EndReason end_reason() const override { return reason_; }
    void report_end(lib::TextSink& summary, lib::TextSink& dump) override {
        EXPECT_TRUE(has_ended_);
        summary.write(vm::name_of(reason_));
        if (reason_ == EndReason::Crash) dump.write(dump_text);
    }
    void destroy() override;
    lib::Result<void> place(config::CpuPlacement const& wanted) override {
        EXPECT_TRUE(is_started_);
        if (!may_be_placed) return lib::fail(lib::Errc::Busy);
        placed = wanted;
        return {};
    }
    void measure_exits(bool on) override {
        EXPECT_TRUE(exists_);
        is_measured = on;
    }
    void add_exit_times(vm::ExitTimes& sum) override { sum.add(vm::ExitReason::Cpuid, 100); }
    kernel::ConsoleUser& console() override { return *this; }
    void on_console_input() override {}
    void on_console_space() override {}
    std::string_view console_name() const override { return description_.name; }

    static constexpr u32 slices_to_start = 3;
    bool can_begin = true, can_be_loaded = true, may_be_placed = true, is_measured = false;
    std::string dump_text = "rip 0x1000";
    unsigned buttons = 0, births = 0;
    EndReason ends_while_pausing = EndReason::None; // what the guest does to itself while the next pause() waits for it
    config::CpuPlacement placed{};

private:
    FakeMachine& host_;
    config::VmDescription const& description_;
    u64 snapshot_ = 0;
    u32 saved_slices_ = 0;
    bool is_restoring_ = false;
    bool exists_ = false, is_started_ = false, is_paused_ = false, has_ended_ = false;
    u32 slices_ = 0;
    Nanos started_at_{};
    EndReason reason_ = EndReason::None;
};

class FakeMachine final : public manage::SupervisorHost {
public:
    static constexpr u64 all_memory = 1024 * lib::MiB;
    kernel::Own<ManagedVm> create(config::Description const& description, u32 index) override {
        vms.push_back(new FakeVm(*this, description.vms[index]));
        return kernel::Own<ManagedVm>(vms.back());
    }
    Nanos now() const override { return time; }
    void call_soon() override { is_called = true; }
    void call_at(Nanos at) override { alarm = at; }
    config::HostCpus host_cpus{4};
    bool shares_cores = false, is_ready = true;
    std::string unready; // the name of a VM that is not ready
    config::HostCpus const& cpus() const override { return host_cpus; }
    void share_cores(bool allowed) override { shares_cores = allowed; }
    manage::CpuStatus cpu_status(u32) override { return {}; }
    void describe(lib::TextSink&) const override {}
    bool is_monitor_open() const override { return monitor_is_open; }
    void power_off(u32 status) override {
        EXPECT_EQ(end, "") << "once is enough";
        end = "power-off " + std::to_string(status);
    }
    void restart() override { end = "restart"; }
    void crash() override { end = "crash"; }

    Nanos time{};
    Nanos alarm{~u64{0}};
    bool is_called = false, monitor_is_open = false;
    u64 free = all_memory;
    std::string end;
    std::vector<FakeVm*> vms; // owned by the supervisor
};

inline FakeVm::~FakeVm() = default; // tests end in any state
inline bool FakeVm::is_ready() { return host_.is_ready && description_.name != host_.unready; }
inline bool FakeVm::begin() {
    EXPECT_FALSE(exists_);
    if (!can_begin || description_.memory > host_.free) return false;
    host_.free -= description_.memory;
    exists_ = true;
    slices_ = 0;
    return true;
}
inline ManagedVm::Progress FakeVm::go_on() {
    EXPECT_TRUE(exists_ && !is_started_);
    if (++slices_ < slices_to_start) return Progress::More;
    if (!can_be_loaded) {
        destroy();
        return Progress::Failed;
    }
    is_started_ = true;
    is_paused_ = std::exchange(is_restoring_, false);
    births++;
    started_at_ = host_.time;
    return Progress::Started;
}
inline std::expected<void, std::string_view> FakeVm::begin_save() {
    EXPECT_TRUE(is_running() && is_paused_ && snapshot_ == 0);
    if (description_.memory > host_.free) return std::unexpected("needs memory");
    host_.free -= description_.memory;
    snapshot_ = description_.memory;
    saved_slices_ = 0;
    return {};
}
inline void FakeVm::discard() {
    host_.free += snapshot_;
    snapshot_ = 0;
}
inline bool FakeVm::begin_restore() {
    EXPECT_NE(snapshot_, 0U);
    return is_restoring_ = begin();
}
inline manage::VmFigures FakeVm::figures() {
    EXPECT_TRUE(is_started_);
    return {.run_time = host_.time - started_at_, .cpu_time = {}, .exits = {}};
}
inline void FakeVm::destroy() {
    EXPECT_TRUE(!is_started_ || has_ended_) << "its vCPUs still run";
    if (exists_) host_.free += description_.memory;
    is_restoring_ = false;
    exists_ = is_started_ = is_paused_ = has_ended_ = is_measured = false;
    reason_ = EndReason::None;
    placed = {};
}

class SupervisorTest : public KernelCpu {
protected:
    // What the run loop does, until nothing is to be done.
    void settle() {
        for (int rounds = 0; machine.is_called || machine.alarm <= machine.time; rounds++) {
            if (!machine.end.empty()) return;
            ASSERT_LT(rounds, 100) << "it would be called for ever";
            machine.is_called = false;
            supervisor.manage();
        }
    }
    void pass(u64 seconds) {
        for (u64 i = 0; i < seconds * 10; i++) {
            machine.time = machine.time + Nanos{lib::nanos_per_second / 10};
            settle();
        }
    }
    void begin(std::string text) {
        text_ = std::move(text);
        supervisor.start_all("vms.toml", text_);
    }
    void start(std::string text) {
        begin(std::move(text));
        settle();
    }
    // The guest ends itself.
    void end(u32 vm, EndReason reason) {
        machine.vms[vm]->end(reason, "");
        machine.vms[vm]->finish();
        machine.is_called = true;
        settle();
    }
    // The vCPUs have done what they were told.
    void finish() {
        for (FakeVm* const vm : machine.vms)
            vm->finish();
        machine.is_called = true;
        settle();
    }
    VmPhase phase(u32 vm) { return supervisor.vm_status(vm).phase; }
    static std::string vm(std::string const& name, std::string const& more = "") {
        return "[vm." + name + "]\nmemory = \"64M\"\nkernel = \"k\"\n" + more;
    }

    FakeMachine machine;
    kernel::Console console;
    Supervisor supervisor{machine, console, config::FailureAction::PowerOff};

private:
    std::string text_;
};

} // namespace supervisor_test
