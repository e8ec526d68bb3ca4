#pragma once
// The life of the VMs of the description: starts them, ends them, starts them again, and ends the machine when the last
// one has ended. All of it in the run loop of CPU 0, as work that others defer to it.
#include <atomic>
#include <boot/command_line.hpp>
#include <boot/modules.hpp>
#include <boot/monitor.hpp>
#include <boot/virtual_machine.hpp>
#include <boot/vm_control.hpp>
#include <kernel/calls.hpp>
#include <vm/backend.hpp>
#include <vmm/description.hpp>

namespace boot {

class Supervisor final : public VmControl {
public:
    static constexpr u64 seconds_to_switch_off = 30;

    Supervisor(Modules const& modules, vm::Backend& backend, FailureAction on_failure)
        : modules_(modules), backend_(backend), on_failure_(on_failure) {}

    // Puts the monitor on the console, reads the description and starts what is to start by itself.
    void start_all();

    // VmControl
    u32 vm_count() const override { return count_; }
    VmStatus vm_status(u32 vm) override;
    u32 cpu_count() const override;
    CpuStatus cpu_status(u32 cpu) override;
    void describe(lib::TextSink& sink) const override;
    ControlResult start(u32 vm) override;
    ControlResult stop(u32 vm) override;
    ControlResult reset(u32 vm) override;
    ControlResult pause(u32 vm) override;
    ControlResult resume(u32 vm) override;
    ControlResult kill(u32 vm) override;
    ControlResult attach_console(u32 vm) override;
    void end_machine(MachineEnd end, bool at_once) override;
    void crash() override;

private:
    struct Slot {
        Supervisor* owner = nullptr;
        kernel::Own<VirtualMachine> machine;
        kernel::Timer patience; // runs while the guest switches itself off
        bool is_switching_off = false;
        std::atomic<bool> patience_is_over{false};
        bool starts_again = false; // reset by the operator
        bool has_failed = false;   // its last start, or the way it ended

        bool is_alive() const { return machine && machine->vm() != nullptr; }
        VmPhase phase() const;
        void patience_ends();
    };

    bool read_description();
    bool start_machine(Slot& slot);
    void request_attention() { kernel::defer(0, work_); }
    // What work_ does.
    void manage();
    bool is_any_alive() const;
    void retire(Slot& slot);
    bool wants_restart(Slot const& slot) const;
    void consider_the_end();
    [[noreturn]] void end_now();

    Modules const& modules_;
    vm::Backend& backend_;
    FailureAction on_failure_;
    vmm::Description description_;
    vmm::Diagnostics diagnostics_;
    std::array<Slot, vmm::max_vms> slots_{};
    u32 count_ = 0;
    bool description_is_bad_ = false;
    bool anything_ran_ = false; // only then does the last VM's end end the machine
    bool told_to_leave_ = false;
    bool is_ending_ = false;
    MachineEnd end_ = MachineEnd::PowerOff;
    kernel::DeferredWork work_{kernel::DeferredWork::Body::to<&Supervisor::manage>(*this)};
    Monitor monitor_{*this, kernel::console(), lib::Delegate<void()>::to<&Supervisor::request_attention>(*this)};
};

// The VMs, the monitor, and the run loop of every CPU.
[[noreturn]] void run_virtual_machines(Modules const& modules, vm::Backend& backend, FailureAction on_failure);

} // namespace boot
