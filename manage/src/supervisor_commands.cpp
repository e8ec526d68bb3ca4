// SPDX-License-Identifier: MIT
// What the operator can ask of VMs in each of their phases. What cannot be done changes nothing.
#include <kernel/log.hpp>
#include <manage/supervisor.hpp>

namespace manage {
namespace {

using Refusal = std::unexpected<std::string_view>;

constexpr Nanos seconds(u64 count) { return {count * lib::nanos_per_second}; }

// For commands that need a VM that runs.
constexpr Refusal not_now(VmPhase phase) {
    switch (phase) {
    case VmPhase::Off: return Refusal("is off: start it first");
    case VmPhase::Starting: return Refusal("is being started: wait a moment, or kill it");
    case VmPhase::Running: return Refusal("runs");
    case VmPhase::Paused: return Refusal("is paused: resume or kill it");
    case VmPhase::Saving: return Refusal("is being saved: wait a moment, or kill it");
    case VmPhase::SwitchingOff: return Refusal("is switching itself off: wait, or kill it");
    case VmPhase::Ending: return Refusal("is ending: wait a moment");
    case VmPhase::Waiting: return Refusal("is off and waits for its next start: start it now, or kill it");
    case VmPhase::Refused: return Refusal("has a mistake in its description: the log says which");
    }
    return Refusal("?");
}

constexpr bool has_vcpus(VmPhase phase) {
    return phase == VmPhase::Running || phase == VmPhase::Paused || phase == VmPhase::Saving ||
           phase == VmPhase::SwitchingOff;
}

} // namespace

VmStatus Supervisor::vm_status(u32 vm) {
    Slot& slot = slots_[vm];
    auto const& description = description_.vms[vm];
    VmStatus status;
    status.name = description.name;
    status.phase = slot.phase();
    status.vcpus = description.vcpus;
    status.memory = description.memory;
    status.placement = description;
    status.disks = description.all_disks();
    status.nics = description.all_nics();
    status.starts = slot.starts;
    status.last_end = {slot.last_end.data(), slot.last_end_size};
    status.crash_dump = slot.dump.text();
    status.snapshot = slot.machine ? slot.machine->snapshot_size() : 0;
    status.has_console = slot.machine && console_.is_attached(slot.machine->console());
    if (!has_vcpus(status.phase) && status.phase != VmPhase::Ending) return status;
    auto const figures = slot.machine->figures();
    status.run_time = figures.run_time;
    status.cpu_time = figures.cpu_time;
    status.wake_ups = figures.wake_ups;
    status.exits = figures.exits;
    return status;
}

ControlResult Supervisor::start(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (phase == VmPhase::Starting) return Refusal("is being started already");
    if (phase == VmPhase::Paused) return Refusal("is paused: resume it");
    if (phase == VmPhase::Saving) return not_now(phase);
    if (has_vcpus(phase)) return Refusal("runs already");
    if (phase != VmPhase::Off && phase != VmPhase::Waiting) return not_now(phase);
    if (is_ending_) return Refusal("is not started while the machine is switched off");
    if (!begin_start(slot)) return Refusal("cannot be started; the log says why");
    return {};
}

ControlResult Supervisor::stop(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (phase == VmPhase::Waiting) return kill(vm);
    if (phase == VmPhase::SwitchingOff) return Refusal("is switching itself off; kill does not wait");
    if (phase != VmPhase::Running) return not_now(phase);
    slot.is_switching_off = true;
    slot.patience_until = host_.now() + seconds(seconds_to_switch_off);
    set_alarm();
    slot.machine->power_button();
    return {};
}

ControlResult Supervisor::reset(u32 vm) {
    Slot& slot = slots_[vm];
    if (VmPhase const phase = slot.phase(); !has_vcpus(phase)) return not_now(phase);
    stop_saving(slot);
    slot.starts_again = true;
    slot.machine->end(vm::EndReason::Reset, "by the monitor");
    return {};
}

ControlResult Supervisor::pause(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (phase == VmPhase::Paused) return Refusal("is paused already");
    if (phase != VmPhase::Running) return not_now(phase);
    if (!slot.machine->pause()) return Refusal("has just ended by itself");
    return {};
}

ControlResult Supervisor::resume(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (phase == VmPhase::Running || phase == VmPhase::SwitchingOff) return Refusal("is not paused");
    if (phase != VmPhase::Paused) return not_now(phase);
    slot.machine->resume();
    return {};
}

ControlResult Supervisor::kill(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (has_vcpus(phase) || phase == VmPhase::Ending) {
        stop_saving(slot);
        slot.stays_down = true;
        slot.machine->end(vm::EndReason::Killed, "by the monitor");
        return {};
    }
    if (phase != VmPhase::Starting && phase != VmPhase::Waiting) return not_now(phase);
    if (phase == VmPhase::Starting) {
        console_.detach(slot.machine->console());
        slot.machine->destroy();
    }
    slot.is_starting = false;
    slot.again_at = never;
    slot.quick_ends = 0;
    slot.had_console = false;
    slot.has_failed = true;
    kernel::log_info("vm {}: its start was called off", description_.vms[vm].name);
    host_.call_soon(); // it may have been the last one
    return {};
}

ControlResult Supervisor::save(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (phase == VmPhase::Saving) return Refusal("is being saved already");
    if (phase == VmPhase::Running) return Refusal("runs: pause it first");
    if (phase != VmPhase::Paused) return not_now(phase);
    if (slot.machine->snapshot_size() != 0) return Refusal("has a snapshot: discard it first");
    if (auto const begun = slot.machine->begin_save(); !begun) return begun;
    slot.is_saving = true;
    host_.call_soon();
    return {};
}

ControlResult Supervisor::restore(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (has_vcpus(phase)) return Refusal("exists: kill it first");
    if (phase != VmPhase::Off && phase != VmPhase::Waiting) return not_now(phase);
    if (is_ending_) return Refusal("is not restored while the machine is switched off");
    if (!slot.machine || slot.machine->snapshot_size() == 0) return Refusal("has no snapshot: pause it, then save it");
    slot.again_at = never;
    if (!begin_to_live(slot, slot.machine->begin_restore())) return Refusal("cannot be restored; the log says why");
    return {};
}

ControlResult Supervisor::discard(u32 vm) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    // Whether it begins from the snapshot at this moment is not worth knowing here.
    if (phase == VmPhase::Saving || phase == VmPhase::Starting) return not_now(phase);
    if (!slot.machine || slot.machine->snapshot_size() == 0) return Refusal("has no snapshot");
    slot.machine->discard();
    return {};
}

ControlResult Supervisor::attach_console(u32 vm) {
    Slot& slot = slots_[vm];
    if (description_.vms[vm].console == config::ConsoleKind::None)
        return Refusal("has no console: its description says console = \"none\"");
    VmPhase const phase = slot.phase();
    if (!slot.exists() || phase == VmPhase::Refused) return not_now(phase);
    console_.attach(slot.machine->console());
    return {};
}

ControlResult Supervisor::place(u32 vm, config::CpuPlacement const& wanted) {
    Slot& slot = slots_[vm];
    VmPhase const phase = slot.phase();
    if (phase == VmPhase::Refused || phase == VmPhase::Ending) return not_now(phase);
    config::CpuPlacement& now = description_.vms[vm];
    bool const is_weighted = wanted.share.cap != 0 || wanted.share.weight != config::CpuShare{}.weight;
    if (wanted.exclusive && is_weighted)
        return Refusal("would be exclusive: expected no cap and weight 100 then, or exclusive=false");
    if (!config::check_placement(description_, vm, wanted, host_.cpus(), problem_)) return Refusal(problem_.message());
    if (has_vcpus(phase) && !slot.machine->place(wanted))
        return Refusal("does not fit there beside the VMs that run; nothing was changed");
    now = wanted;
    return {};
}

ControlResult Supervisor::measure_exits(u32 vm, bool on) {
    Slot& slot = slots_[vm];
    if (VmPhase const phase = slot.phase(); !has_vcpus(phase)) return not_now(phase);
    slot.machine->measure_exits(on);
    slot.is_measured = on;
    return {};
}

vm::ExitTimes const* Supervisor::exit_times(u32 vm) {
    Slot& slot = slots_[vm];
    if (!slot.is_measured) return nullptr;
    if (!times_) times_ = kernel::Own<vm::ExitTimes>(new (std::nothrow) vm::ExitTimes);
    if (!times_) return nullptr;
    times_->clear();
    slot.machine->add_exit_times(*times_);
    return times_.get();
}

void Supervisor::end_machine(MachineEnd end, bool at_once) {
    end_ = end;
    is_ending_ = true;
    if (at_once) return end_now();
    for (u32 i = 0; i < count_; i++) {
        VmPhase const phase = slots_[i].phase();
        if (phase == VmPhase::Starting || phase == VmPhase::Waiting) (void)kill(i);
        if (phase == VmPhase::Saving) stop_saving(slots_[i]);
        if (phase == VmPhase::Paused || phase == VmPhase::Saving) (void)resume(i);
        (void)stop(i);
    }
    host_.call_soon();
}

void Supervisor::crash() { host_.crash(); }

} // namespace manage
