// SPDX-License-Identifier: MIT
#pragma once
// What the monitor may know about and do with VMs and the machine. Everything here is called in the main loop of the
// boot CPU, never in an interrupt.
#include <array>
#include <config/description.hpp>
#include <expected>
#include <kernel/run_loop.hpp>
#include <lib/format.hpp>
#include <lib/types.hpp>
#include <vm/exit_times.hpp>

namespace manage {

using lib::Nanos;
using lib::u32;
using lib::u64;

enum class VmPhase : lib::u8 {
    Off,
    Starting, // its memory is being zeroed
    Running,
    Paused,
    Saving,       // paused, and its snapshot is being taken
    SwitchingOff, // its power button was pressed
    Ending,       // it has ended, or was told to; its memory is on its way back
    Waiting,      // it ended too soon: is started again after a while
    Refused,      // its description has a mistake
};
inline constexpr unsigned vm_phase_count = 9;
constexpr std::string_view name_of(VmPhase phase) {
    constexpr std::string_view names[] = {"off",           "starting", "running", "paused", "saving",
                                          "switching off", "ending",   "waiting", "refused"};
    return names[static_cast<unsigned>(phase)];
}

struct VmStatus {
    std::string_view name;
    VmPhase phase = VmPhase::Off;
    u32 vcpus = 0;
    u64 memory = 0; // bytes
    config::CpuPlacement placement{};
    std::span<config::DiskDescription const> disks;
    std::span<config::NicDescription const> nics;
    // Since its start; 0 while it does not run.
    Nanos run_time{};
    Nanos cpu_time{}; // all vCPUs together
    kernel::WakeLatency wake_ups{};
    std::array<u64, vm::exit_reason_count> exits{};
    bool has_console = false;    // what is typed goes there
    u32 starts = 0;              // how often it has been started
    std::string_view last_end;   // how it ended last; empty: it never did
    std::string_view crash_dump; // registers at the last crash
    u64 snapshot = 0;            // bytes that its snapshot takes; 0: it has none
};

struct CpuStatus {
    u32 index = 0;
    u32 apic_id = 0;
    kernel::RunnableIdentity runs{}; // what it runs, or ran last; no name: nothing yet
    Nanos busy{};                    // not halted, since Mullion started
};

// The error is a sentence without its subject, for a person: "is off; start it first". Then nothing has changed.
using ControlResult = std::expected<void, std::string_view>;

enum class MachineEnd : lib::u8 { PowerOff, Restart };

class VmControl {
public:
    virtual u32 vm_count() const = 0; // all that are described, in the order of the description
    virtual VmStatus vm_status(u32 vm) = 0;
    virtual std::span<config::NetworkDescription const> networks() const = 0; // that are described
    virtual u32 cpu_count() const = 0;
    virtual CpuStatus cpu_status(u32 cpu) = 0;
    virtual void describe(lib::TextSink& sink) const = 0; // the CPU's virtualization, in a few words

    virtual ControlResult start(u32 vm) = 0;
    virtual ControlResult stop(u32 vm) = 0; // power button; a VM that does not react in time is killed
    virtual ControlResult reset(u32 vm) = 0;
    virtual ControlResult pause(u32 vm) = 0;
    virtual ControlResult resume(u32 vm) = 0;
    virtual ControlResult kill(u32 vm) = 0;
    // A snapshot of a paused VM. It takes a while, and the phase is Saving until it is done.
    virtual ControlResult save(u32 vm) = 0;
    virtual ControlResult restore(u32 vm) = 0; // starts it from the snapshot, which stays; it is paused then
    virtual ControlResult discard(u32 vm) = 0; // the snapshot
    virtual ControlResult attach_console(u32 vm) = 0;
    // Other processors and shares: at once if it runs, else from its next start on.
    virtual ControlResult place(u32 vm, config::CpuPlacement const& wanted) = 0;
    // How long its exits take, until it ends: measured from now on, or no longer.
    virtual ControlResult measure_exits(u32 vm, bool on) = 0;
    // What was measured; nullptr: nothing is. Valid until the next call.
    virtual vm::ExitTimes const* exit_times(u32 vm) = 0;
    // After stop() of every VM, or at once.
    virtual void end_machine(MachineEnd end, bool at_once) = 0;
    // Fails as a bug of ours would: the report, then what the option onfailure= says.
    virtual void crash() = 0;

protected:
    ~VmControl() = default;
};

} // namespace manage
