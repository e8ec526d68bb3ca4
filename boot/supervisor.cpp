#include <algorithm>
#include <boot/bring_up.hpp>
#include <boot/machine.hpp>
#include <boot/supervisor.hpp>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <kernel/panic.hpp>

namespace boot {
namespace {

constexpr auto is_off = std::unexpected<std::string_view>("is off: start it first");
constexpr auto is_ending = std::unexpected<std::string_view>("is ending: wait a moment");

} // namespace

VmPhase Supervisor::Slot::phase() const {
    if (!is_alive()) return VmPhase::Off;
    if (!machine->is_running()) return VmPhase::Ending;
    if (machine->is_paused()) return VmPhase::Paused;
    return is_switching_off ? VmPhase::SwitchingOff : VmPhase::Running;
}

void Supervisor::Slot::patience_ends() {
    patience_is_over.store(true, std::memory_order_relaxed);
    owner->request_attention();
}

// --- Start

// False when there is nothing to run; the log says why.
bool Supervisor::read_description() {
    auto const* const file = modules_.description();
    if (file == nullptr) {
        std::array<char, 300> names{};
        lib::BufferSink sink(names);
        modules_.list(sink);
        kernel::log_error("no VM description: expected a boot module called vms.toml, found: {}; add \"module2 FILE "
                          "vms.toml\" in grub.cfg",
                          sink.view());
        return false;
    }
    std::string_view const text(reinterpret_cast<char const*>(file->bytes.data()), file->bytes.size());
    if (vmm::parse_description(text, description_, diagnostics_)) {
        if (description_.count > 0) return true;
        kernel::log_error("{}: describes no VM; add a table [vm.NAME]", file->name);
        return false;
    }
    for (u32 i = 0; i < diagnostics_.count; i++) {
        std::array<char, 300> line{};
        lib::BufferSink sink(line);
        vmm::format_diagnostic(sink, file->name, diagnostics_.entries[i]);
        kernel::log_error("{}", sink.view());
    }
    if (diagnostics_.dropped > 0) kernel::log_error("{}: {} more mistakes", file->name, diagnostics_.dropped);
    return false;
}

void Supervisor::start_all() {
    kernel::console().set_monitor(monitor_);
    description_is_bad_ = !read_description();
    bool has_failure = description_is_bad_;
    count_ = description_is_bad_ ? 0 : description_.count;
    for (u32 i = 0; i < count_; i++) {
        Slot& slot = slots_[i];
        slot.owner = this;
        slot.patience.set_callback(kernel::Timer::Callback::to<&Slot::patience_ends>(slot));
        slot.machine =
            kernel::Own<VirtualMachine>(new (std::nothrow) VirtualMachine(description_.vms[i], modules_, backend_));
        if (slot.machine)
            slot.machine->set_on_end(work_);
        else
            kernel::log_error("vm {}: too little memory", description_.vms[i].name);
        if (description_.vms[i].autostart) has_failure |= !start_machine(slot);
    }
    if (anything_ran_) return;
    if (has_failure && on_failure_ == FailureAction::PowerOff) power_off(1);
    if (has_failure && on_failure_ == FailureAction::Reboot) restart();
    kernel::log_info("mullion: nothing runs; Ctrl-A c opens the monitor");
}

bool Supervisor::start_machine(Slot& slot) {
    slot.has_failed = !slot.machine || !slot.machine->start();
    if (slot.has_failed) return false;
    anything_ran_ = true;
    told_to_leave_ = false;
    return true;
}

void Supervisor::manage() {
    monitor_.run_pending();
    for (u32 i = 0; i < count_; i++) {
        Slot& slot = slots_[i];
        if (!slot.is_alive()) continue;
        if (slot.patience_is_over.exchange(false, std::memory_order_relaxed) && slot.is_switching_off)
            slot.machine->end(vm::EndReason::Killed, "did not switch itself off in time");
        if (slot.machine->has_ended()) retire(slot);
    }
    consider_the_end();
    monitor_.run_pending(); // its prompt stands below what was logged
}

// --- The end of a VM

bool Supervisor::wants_restart(Slot const& slot) const {
    auto const reason = slot.machine->vm()->end_reason();
    if (is_ending_ || reason == vm::EndReason::Killed) return false;
    if (slot.starts_again) return true;
    switch (slot.machine->description().restart) {
    case vmm::RestartPolicy::Never: return false;
    case vmm::RestartPolicy::OnFailure: return reason != vm::EndReason::PowerOff;
    case vmm::RestartPolicy::Always: return true;
    }
    return false;
}

void Supervisor::retire(Slot& slot) {
    kernel::cancel_timer(slot.patience);
    VirtualMachine& machine = *slot.machine;
    machine.vm()->set_stopped();
    machine.report_end();
    bool const starts_again = wants_restart(slot);
    slot.has_failed = machine.vm()->end_reason() != vm::EndReason::PowerOff;
    slot.is_switching_off = false;
    slot.patience_is_over.store(false, std::memory_order_relaxed);
    slot.starts_again = false;
    machine.destroy();
    if (starts_again) start_machine(slot);
}

bool Supervisor::is_any_alive() const {
    for (u32 i = 0; i < count_; i++)
        if (slots_[i].is_alive()) return true;
    return false;
}

void Supervisor::consider_the_end() {
    if (is_any_alive()) return;
    if (is_ending_) end_now();
    if (!anything_ran_) return;
    if (!monitor_.is_open()) end_now();
    if (told_to_leave_) return;
    told_to_leave_ = true;
    kernel::log_info("mullion: every VM has ended; the machine switches itself off when you leave the monitor");
}

void Supervisor::end_now() {
    if (end_ == MachineEnd::Restart) restart();
    bool is_orderly = !description_is_bad_;
    for (u32 i = 0; i < count_; i++)
        is_orderly = is_orderly && !slots_[i].has_failed && !slots_[i].is_alive();
    power_off(is_orderly ? 0 : 1);
}

// --- VmControl

VmStatus Supervisor::vm_status(u32 vm) {
    Slot const& slot = slots_[vm];
    auto const& description = description_.vms[vm];
    VmStatus status;
    status.name = description.name;
    status.phase = slot.phase();
    status.vcpus = description.vcpus;
    status.memory = description.memory;
    if (!slot.is_alive()) return status;
    status.run_time = kernel::now() - slot.machine->started_at();
    status.cpu_time = slot.machine->cpu_time();
    status.has_console = kernel::console().is_attached(*slot.machine);
    vm::Vm& machine = *slot.machine->vm();
    for (u32 i = 0; i < machine.vcpu_count(); i++)
        for (unsigned reason = 0; reason < vm::exit_reason_count; reason++)
            status.exits[reason] += machine.vcpu(i).exit_counts()[reason];
    return status;
}

u32 Supervisor::cpu_count() const { return kernel::cpu_count(); }

CpuStatus Supervisor::cpu_status(u32 index) {
    kernel::Cpu& cpu = kernel::cpu(index);
    CpuStatus status;
    status.index = index;
    status.apic_id = cpu.apic_id;
    u64 const now = kernel::now().value;
    u64 idle = cpu.idle_nanos.load(std::memory_order_relaxed);
    // The CPU goes on meanwhile, so this may be off by one nap.
    if (u64 const since = cpu.idle_since.load(std::memory_order_relaxed); since != 0 && since < now)
        idle += now - since;
    status.busy = {now - std::min(idle, now)};
    // Runners are only taken away here, on CPU 0.
    if (auto* const loaded = static_cast<VcpuRunner*>(cpu.loaded.load(std::memory_order_acquire))) {
        status.vm = loaded->vcpu().vm().name();
        status.vcpu = loaded->vcpu().id();
    }
    return status;
}

void Supervisor::describe(lib::TextSink& sink) const {
    lib::format(sink, "{}: ", backend_.name());
    backend_.describe(sink);
}

ControlResult Supervisor::start(u32 vm) {
    Slot& slot = slots_[vm];
    if (slot.is_alive()) return std::unexpected("runs already");
    if (is_ending_) return std::unexpected("is not started while the machine is switched off");
    if (!start_machine(slot)) return std::unexpected("cannot be started; the log says why");
    return {};
}

ControlResult Supervisor::stop(u32 vm) {
    Slot& slot = slots_[vm];
    switch (slot.phase()) {
    case VmPhase::Off: return is_off;
    case VmPhase::Ending: return is_ending;
    case VmPhase::Paused: return std::unexpected("is paused: resume or kill it");
    case VmPhase::SwitchingOff: return std::unexpected("is switching itself off; kill does not wait");
    case VmPhase::Running: break;
    }
    slot.is_switching_off = true;
    slot.patience_is_over.store(false, std::memory_order_relaxed);
    kernel::arm_timer(slot.patience,
                      kernel::tsc_of(kernel::now() + Nanos{seconds_to_switch_off * lib::nanos_per_second}));
    slot.machine->power_button();
    return {};
}

ControlResult Supervisor::reset(u32 vm) {
    Slot& slot = slots_[vm];
    if (!slot.is_alive()) return is_off;
    if (!slot.machine->is_running()) return is_ending;
    slot.starts_again = true;
    slot.machine->end(vm::EndReason::Reset, "by the monitor");
    return {};
}

ControlResult Supervisor::pause(u32 vm) {
    Slot& slot = slots_[vm];
    switch (slot.phase()) {
    case VmPhase::Off: return is_off;
    case VmPhase::Ending: return is_ending;
    case VmPhase::Paused: return std::unexpected("is paused already");
    case VmPhase::SwitchingOff: return std::unexpected("is switching itself off: wait, or kill it");
    case VmPhase::Running: break;
    }
    slot.machine->pause();
    return {};
}

ControlResult Supervisor::resume(u32 vm) {
    Slot& slot = slots_[vm];
    if (slot.phase() == VmPhase::Off) return is_off;
    if (slot.phase() != VmPhase::Paused) return std::unexpected("is not paused");
    slot.machine->resume();
    return {};
}

ControlResult Supervisor::kill(u32 vm) {
    Slot& slot = slots_[vm];
    if (!slot.is_alive()) return is_off;
    if (!slot.machine->is_running()) return is_ending;
    slot.machine->end(vm::EndReason::Killed, "by the monitor");
    return {};
}

ControlResult Supervisor::attach_console(u32 vm) {
    Slot& slot = slots_[vm];
    if (slot.machine && slot.machine->description().console == vmm::ConsoleKind::None)
        return std::unexpected("has no console: its description says console = \"none\"");
    if (!slot.is_alive()) return is_off;
    kernel::console().attach(*slot.machine);
    return {};
}

void Supervisor::end_machine(MachineEnd end, bool at_once) {
    end_ = end;
    is_ending_ = true;
    if (at_once) end_now();
    for (u32 i = 0; i < count_; i++) {
        if (slots_[i].phase() == VmPhase::Paused) (void)resume(i);
        (void)stop(i);
    }
}

void Supervisor::crash() { asm volatile("ud2"); }

void run_virtual_machines(Modules const& modules, vm::Backend& backend, FailureAction on_failure) {
    auto* const supervisor = new (std::nothrow) Supervisor(modules, backend, on_failure);
    if (supervisor == nullptr) kernel::refuse_to_start("there is too little memory", "add memory");
    supervisor->start_all();
    release_cpus(kernel::run_cpu);
    kernel::run_cpu();
}

} // namespace boot
