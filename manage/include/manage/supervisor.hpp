// SPDX-License-Identifier: MIT
#pragma once
// The life of the VMs of the description: starts them, ends them, starts them again, and ends the machine when the last
// one has ended. Decides only: VMs and the machine are behind interfaces. All of it in the run loop of CPU 0.
#include <config/command_line.hpp>
#include <config/cpu_placement.hpp>
#include <config/description.hpp>
#include <kernel/console.hpp>
#include <kernel/heap.hpp>
#include <manage/crash_dump.hpp>
#include <manage/managed_vm.hpp>
#include <manage/vm_control.hpp>

namespace manage {

// The machine around the supervisor.
class SupervisorHost {
public:
    virtual kernel::Own<ManagedVm> create(config::Description const& description, u32 index) = 0; // empty: no memory
    virtual Nanos now() const = 0;
    virtual void call_soon() = 0;         // manage(), in the run loop of CPU 0; from anywhere
    virtual void call_at(Nanos time) = 0; // manage(), no earlier; the last one counts
    virtual config::HostCpus const& cpus() const = 0;
    virtual void share_cores(bool allowed) = 0; // before any VM is created
    virtual CpuStatus cpu_status(u32 cpu) = 0;
    virtual void describe(lib::TextSink& sink) const = 0;
    virtual bool is_monitor_open() const = 0;
    // These do not return, but in tests.
    virtual void power_off(u32 status) = 0;
    virtual void restart() = 0;
    virtual void crash() = 0; // as a bug of ours would

protected:
    ~SupervisorHost() = default;
};

class Supervisor final : public VmControl {
public:
    static constexpr u64 seconds_to_switch_off = 30;
    // A VM that ran for less than this before it is started again waits first: 1 s, then twice as long each time.
    static constexpr u64 quick_end_seconds = 10;
    static constexpr u64 longest_wait_seconds = 60;

    Supervisor(SupervisorHost& host, kernel::Console& console, config::FailureAction on_failure)
        : host_(host), console_(console), on_failure_(on_failure) {}

    // Reads the description and begins to start what is to start by itself. The text must live on. An empty file name:
    // there is none, and the log has said so.
    void start_all(std::string_view file, std::string_view text);
    // Does what there is to do.
    void manage();

    // VmControl
    u32 vm_count() const override { return count_; }
    VmStatus vm_status(u32 vm) override;
    std::span<config::NetworkDescription const> networks() const override { return description_.all_networks(); }
    u32 cpu_count() const override { return host_.cpus().count; }
    CpuStatus cpu_status(u32 cpu) override { return host_.cpu_status(cpu); }
    void describe(lib::TextSink& sink) const override { host_.describe(sink); }
    ControlResult start(u32 vm) override;
    ControlResult stop(u32 vm) override;
    ControlResult reset(u32 vm) override;
    ControlResult pause(u32 vm) override;
    ControlResult resume(u32 vm) override;
    ControlResult kill(u32 vm) override;
    ControlResult save(u32 vm) override;
    ControlResult restore(u32 vm) override;
    ControlResult discard(u32 vm) override;
    ControlResult attach_console(u32 vm) override;
    ControlResult place(u32 vm, config::CpuPlacement const& wanted) override;
    ControlResult measure_exits(u32 vm, bool on) override;
    vm::ExitTimes const* exit_times(u32 vm) override;
    void end_machine(MachineEnd end, bool at_once) override;
    void crash() override;

private:
    static constexpr Nanos never{~u64{0}};

    struct Slot {
        kernel::Own<ManagedVm> machine;
        bool is_refused = false;
        bool is_starting = false;
        bool is_switching_off = false;
        bool is_saving = false;
        Nanos patience_until = never; // Switching off
        Nanos again_at = never;       // Waiting
        u32 quick_ends = 0;           // in a row
        u32 starts = 0;
        bool starts_again = false; // reset by the operator
        bool stays_down = false;   // killed while it was ending
        bool has_failed = false;   // its last start, or the way it ended
        bool had_console = false;  // until it ended, and shall have it back
        bool is_measured = false;
        std::array<char, 160> last_end{};
        std::size_t last_end_size = 0;
        CrashDump dump;

        bool exists() const { return machine && machine->exists(); }
        bool is_alive() const { return exists() || again_at != never; }
        VmPhase phase() const;
    };

    void read_description(std::string_view file, std::string_view text);
    bool begin_start(Slot& slot);
    bool begin_to_live(Slot& slot, bool has_begun);
    static void stop_saving(Slot& slot);
    void go_on(u32 vm);
    void end_start(Slot& slot);
    void retire(u32 vm);
    bool wants_restart(u32 vm) const;
    void start_again(u32 vm, Nanos ran);
    void note_end(u32 vm);
    bool is_any_alive() const;
    void give_console();
    bool give_console_to(u32 vm);
    void consider_the_end();
    void nothing_runs();
    void end_now();
    void set_alarm();

    SupervisorHost& host_;
    kernel::Console& console_;
    config::FailureAction on_failure_;
    config::Description description_;
    config::Diagnostics diagnostics_;
    std::array<Slot, config::max_vms> slots_{};
    u32 count_ = 0;
    bool description_is_bad_ = false;
    bool anything_ran_ = false; // only then does the last VM's end end the machine
    bool anything_had_console_ = false;
    bool told_that_nothing_runs_ = false;
    bool told_to_leave_ = false;
    bool is_ending_ = false;
    bool is_over_ = false;
    MachineEnd end_ = MachineEnd::PowerOff;
    config::PlacementProblem problem_;
    kernel::Own<vm::ExitTimes> times_; // what exit_times() returned
};

} // namespace manage
