// SPDX-License-Identifier: MIT
#include <algorithm>
#include <kernel/log.hpp>
#include <manage/supervisor.hpp>
#include <utility>

namespace manage {
namespace {

constexpr u64 look_again_nanos = 20'000'000;

constexpr Nanos seconds(u64 count) { return {count * lib::nanos_per_second}; }

} // namespace

VmPhase Supervisor::Slot::phase() const {
    if (is_refused) return VmPhase::Refused;
    if (again_at != never) return VmPhase::Waiting;
    if (!exists()) return VmPhase::Off;
    if (is_starting) return VmPhase::Starting;
    if (!machine->is_running()) return VmPhase::Ending;
    if (machine->is_paused()) return is_saving ? VmPhase::Saving : VmPhase::Paused;
    return is_switching_off ? VmPhase::SwitchingOff : VmPhase::Running;
}

// --- Start

void Supervisor::read_description(std::string_view file, std::string_view text) {
    description_is_bad_ = true;
    if (file.empty()) return;
    config::parse_description(text, description_, diagnostics_);
    description_.file = file;
    config::check_placements(description_, host_.cpus(), diagnostics_);
    host_.share_cores(description_.share_cores);
    for (u32 i = 0; i < diagnostics_.count; i++) {
        std::array<char, 300> line{};
        lib::BufferSink sink(line);
        config::format_diagnostic(sink, file, diagnostics_.entries[i]);
        kernel::log_error("{}", sink.view());
    }
    if (diagnostics_.dropped > 0) kernel::log_error("{}: {} more mistakes", file, diagnostics_.dropped);
    description_is_bad_ = !diagnostics_.is_empty();
}

void Supervisor::start_all(std::string_view file, std::string_view text) {
    read_description(file, text);
    count_ = file.empty() ? 0 : description_.count;
    for (u32 i = 0; i < count_; i++) {
        Slot& slot = slots_[i];
        auto const& description = description_.vms[i];
        slot.is_refused = description.is_refused;
        if (slot.is_refused) {
            kernel::log_error("vm {}: is not started: its description has a mistake, see above", description.name);
            continue;
        }
        slot.machine = host_.create(description_, i);
        if (!slot.machine) kernel::log_error("vm {}: too little memory", description.name);
        if (description.autostart) begin_start(slot);
    }
    host_.call_soon();
}

bool Supervisor::begin_start(Slot& slot) {
    slot.again_at = never;
    if (slot.machine && !slot.machine->is_ready()) { // it is asked again
        slot.again_at = {host_.now().value + look_again_nanos};
        host_.call_soon();
        return true;
    }
    return begin_to_live(slot, slot.machine && slot.machine->begin());
}

bool Supervisor::begin_to_live(Slot& slot, bool has_begun) {
    slot.has_failed = !has_begun;
    if (slot.has_failed) return false;
    slot.is_starting = true;
    told_to_leave_ = false;
    host_.call_soon();
    return true;
}

void Supervisor::go_on(u32 vm) {
    Slot& slot = slots_[vm];
    switch (slot.machine->go_on()) {
    case ManagedVm::Progress::More: host_.call_soon(); return;
    case ManagedVm::Progress::Started:
        slot.starts++;
        anything_ran_ = true;
        break;
    case ManagedVm::Progress::Failed:
        slot.has_failed = true;
        console_.detach(slot.machine->console());
        break;
    }
    slot.is_starting = false;
}

void Supervisor::manage() {
    if (is_over_) return;
    for (u32 i = 0; i < count_; i++) {
        Slot& slot = slots_[i];
        if (slot.again_at <= host_.now() && slot.again_at != never) begin_start(slot);
        if (slot.is_starting) {
            go_on(i);
        } else if (slot.exists()) {
            if (slot.patience_until <= host_.now()) {
                slot.patience_until = never;
                slot.machine->end(vm::EndReason::Killed, "did not switch itself off in time");
            }
            if (slot.phase() == VmPhase::Saving) {
                slot.is_saving = !slot.machine->go_on_saving();
                if (slot.is_saving) host_.call_soon();
            }
            if (slot.machine->has_ended()) retire(i);
        }
    }
    give_console();
    set_alarm();
    consider_the_end();
}

void Supervisor::set_alarm() {
    Nanos next = never;
    for (u32 i = 0; i < count_; i++) {
        next = std::min(next, slots_[i].again_at);
        next = std::min(next, slots_[i].patience_until);
    }
    host_.call_at(next);
}

// What there is of the snapshot is of no use.
void Supervisor::stop_saving(Slot& slot) {
    if (std::exchange(slot.is_saving, false)) slot.machine->discard();
}

// --- The end of a VM

bool Supervisor::wants_restart(u32 vm) const {
    Slot const& slot = slots_[vm];
    auto const reason = slot.machine->end_reason();
    if (is_ending_ || slot.stays_down || reason == vm::EndReason::Killed) return false;
    if (slot.starts_again) return true;
    switch (description_.vms[vm].restart) {
    case config::RestartPolicy::Never: return false;
    case config::RestartPolicy::OnReboot: return reason == vm::EndReason::Reset;
    case config::RestartPolicy::OnFailure: return reason != vm::EndReason::PowerOff;
    case config::RestartPolicy::Always: return true;
    }
    return false;
}

void Supervisor::note_end(u32 vm) {
    Slot& slot = slots_[vm];
    lib::BufferSink summary(slot.last_end);
    bool const is_crash = slot.machine->end_reason() == vm::EndReason::Crash;
    if (is_crash) slot.dump.make_room(description_.vms[vm].vcpus);
    lib::BufferSink dump(is_crash ? slot.dump.room() : std::span<char>());
    slot.machine->report_end(summary, dump);
    slot.last_end_size = summary.view().size();
    if (is_crash) slot.dump.keep(dump.view().size());
}

void Supervisor::retire(u32 vm) {
    Slot& slot = slots_[vm];
    note_end(vm);
    Nanos const ran = slot.machine->figures().run_time;
    bool const is_restarted = wants_restart(vm);
    bool const at_once = slot.starts_again;
    slot.has_failed = slot.machine->end_reason() != vm::EndReason::PowerOff;
    slot.had_console = is_restarted && console_.is_attached(slot.machine->console());
    stop_saving(slot);
    slot.is_switching_off = slot.starts_again = slot.stays_down = slot.is_measured = false;
    slot.patience_until = never;
    console_.detach(slot.machine->console());
    slot.machine->destroy();
    if (!is_restarted) {
        slot.quick_ends = 0;
    } else if (at_once) {
        begin_start(slot);
    } else {
        start_again(vm, ran);
    }
}

// One that cannot live shall not keep the machine busy with its births.
void Supervisor::start_again(u32 vm, Nanos ran) {
    Slot& slot = slots_[vm];
    if (ran >= seconds(quick_end_seconds)) {
        slot.quick_ends = 0;
        begin_start(slot);
        return;
    }
    u64 const wait = std::min(u64{1} << std::min(slot.quick_ends, 8U), longest_wait_seconds);
    slot.quick_ends++;
    slot.again_at = host_.now() + seconds(wait);
    kernel::log_warning("vm {}: ended within {} s of its start; is started again in {} s", description_.vms[vm].name,
                        quick_end_seconds, wait);
}

// --- Console

// The line belongs to the first VM that wants it and runs, or will in a moment.
bool Supervisor::give_console_to(u32 vm) {
    Slot& slot = slots_[vm];
    if (description_.vms[vm].console != config::ConsoleKind::Com1) return false;
    bool const waits_until_ready = slot.again_at != never && !slot.machine->is_ready();
    if (slot.is_starting || waits_until_ready) return true;
    if (!slot.exists() || !slot.machine->is_running()) return slot.had_console && slot.is_alive();
    slot.had_console = false;
    console_.attach(slot.machine->console());
    // Nobody has to be told of the first one.
    if (std::exchange(anything_had_console_, true))
        kernel::log_info("mullion: console of {}", description_.vms[vm].name);
    return true;
}

void Supervisor::give_console() {
    if (console_.has_owner()) return;
    for (u32 i = 0; i < count_; i++)
        if (slots_[i].had_console && give_console_to(i)) return;
    for (u32 i = 0; i < count_; i++)
        if (give_console_to(i)) return;
}

// --- The end of the machine

bool Supervisor::is_any_alive() const {
    return std::any_of(slots_.begin(), slots_.begin() + count_, [](Slot const& slot) { return slot.is_alive(); });
}

void Supervisor::consider_the_end() {
    if (is_any_alive()) return;
    if (is_ending_) return end_now();
    if (!anything_ran_) return nothing_runs();
    if (!host_.is_monitor_open()) return end_now();
    if (told_to_leave_) return;
    told_to_leave_ = true;
    kernel::log_info("mullion: every VM has ended; the machine switches itself off when you leave the monitor");
}

void Supervisor::nothing_runs() {
    if (told_that_nothing_runs_) return;
    told_that_nothing_runs_ = true;
    bool has_failure = description_is_bad_;
    for (u32 i = 0; i < count_; i++)
        has_failure = has_failure || slots_[i].has_failed;
    if (has_failure && on_failure_ == config::FailureAction::PowerOff) {
        is_over_ = true;
        return host_.power_off(1);
    }
    if (has_failure && on_failure_ == config::FailureAction::Reboot) {
        is_over_ = true;
        return host_.restart();
    }
    kernel::log_info("mullion: nothing runs; Ctrl-A c opens the monitor");
}

void Supervisor::end_now() {
    is_over_ = true;
    if (end_ == MachineEnd::Restart) return host_.restart();
    bool is_orderly = !description_is_bad_;
    for (u32 i = 0; i < count_; i++)
        is_orderly = is_orderly && !slots_[i].has_failed && !slots_[i].is_alive();
    host_.power_off(is_orderly ? 0 : 1);
}

} // namespace manage
