// SPDX-License-Identifier: MIT
#pragma once
// A vCPU as the run loop sees it.
#include <kernel/run_loop.hpp>
#include <vm/vm.hpp>

namespace manage {

class VcpuRunner final : public kernel::Runnable {
public:
    // While `is_held` it does not run, whatever wakes it, unless the VM is to stop; who lets it go wakes it then.
    // `on_stopped` is called where the vCPU ran last, when it is out of the scheduler for good.
    VcpuRunner(vm::Vcpu& vcpu, lib::u32 group, std::atomic<bool> const& is_held, lib::Delegate<void()> on_stopped)
        : kernel::Runnable(group), vcpu_(vcpu), is_held_(is_held), on_stopped_(on_stopped) {}
    vm::Vcpu& vcpu() { return vcpu_; }

    kernel::RunResult run() override {
        if (is_held()) return kernel::RunResult::Sleep;
        switch (vcpu_.run()) {
        case vm::Leave::Work: return kernel::RunResult::Work;
        case vm::Leave::Sleep: return kernel::RunResult::Sleep;
        case vm::Leave::Yield: return kernel::RunResult::Yield;
        case vm::Leave::Stopped: return kernel::RunResult::Stopped;
        }
        return kernel::RunResult::Stopped;
    }
    void unload() override { vcpu_.unload(); }
    bool has_wake_event() override { return !is_held() && vcpu_.has_wake_event(); }
    void stopped() override { on_stopped_(); }

private:
    // The guest may end itself while it is being paused: it must still come out.
    bool is_held() { return is_held_.load(std::memory_order_seq_cst) && vcpu_.vm().state() == vm::VmState::Running; }

    vm::Vcpu& vcpu_;
    std::atomic<bool> const& is_held_;
    lib::Delegate<void()> on_stopped_;
};

} // namespace manage
