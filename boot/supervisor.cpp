#include <boot/bring_up.hpp>
#include <boot/machine.hpp>
#include <boot/supervisor.hpp>
#include <boot/virtual_machine.hpp>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <vmm/description.hpp>

namespace boot {
namespace {

constinit vmm::Description description;
constinit vmm::Diagnostics diagnostics;
constinit std::array<VirtualMachine*, vmm::max_vms> machines{};
constinit u32 machine_count = 0;
constinit bool all_orderly = true; // every VM has ended by switching itself off

// False when there is nothing to run; the log says why.
bool read_description(Modules const& modules) {
    auto const* const file = modules.description();
    if (file == nullptr) {
        std::array<char, 300> names{};
        lib::BufferSink sink(names);
        modules.list(sink);
        kernel::log_error("no VM description: expected a boot module called vms.toml, found: {}; add \"module2 FILE "
                          "vms.toml\" in grub.cfg",
                          sink.view());
        return false;
    }
    std::string_view const text(reinterpret_cast<char const*>(file->bytes.data()), file->bytes.size());
    if (vmm::parse_description(text, description, diagnostics)) {
        if (description.count > 0) return true;
        kernel::log_error("{}: describes no VM; add a table [vm.NAME]", file->name);
        return false;
    }
    for (u32 i = 0; i < diagnostics.count; i++) {
        std::array<char, 300> line{};
        lib::BufferSink sink(line);
        vmm::format_diagnostic(sink, file->name, diagnostics.entries[i]);
        kernel::log_error("{}", sink.view());
    }
    if (diagnostics.dropped > 0) kernel::log_error("{}: {} more mistakes", file->name, diagnostics.dropped);
    return false;
}

extern kernel::DeferredWork end_work;

void start_all(Modules const& modules, vm::Backend& backend) {
    for (u32 i = 0; i < description.count; i++) {
        if (!description.vms[i].autostart) continue;
        kernel::Own<VirtualMachine> machine(new (std::nothrow) VirtualMachine(description.vms[i], modules, backend));
        if (!machine) {
            kernel::log_error("vm {}: too little memory", description.vms[i].name);
            all_orderly = false;
            continue;
        }
        machine->set_on_end(end_work);
        if (!machine->start()) {
            all_orderly = false;
            continue;
        }
        machines[machine_count++] = machine.release();
    }
}

bool wants_restart(VirtualMachine& machine) {
    bool const failed = machine.vm()->end_reason() != vm::EndReason::PowerOff;
    switch (machine.description().restart) {
    case vmm::RestartPolicy::Never: return false;
    case vmm::RestartPolicy::OnFailure: return failed;
    case vmm::RestartPolicy::Always: return machine.vm()->end_reason() != vm::EndReason::Killed;
    }
    return false;
}

void retire(VirtualMachine& machine) {
    machine.vm()->set_stopped();
    machine.report_end();
    bool const restart = wants_restart(machine);
    if (machine.vm()->end_reason() != vm::EndReason::PowerOff && !restart) all_orderly = false;
    machine.destroy();
    if (restart && !machine.start()) all_orderly = false;
}

// In CPU 0's run loop.
void retire_ended() {
    bool is_any_alive = false;
    for (u32 i = 0; i < machine_count; i++) {
        if (machines[i]->has_ended()) retire(*machines[i]);
        is_any_alive |= machines[i]->vm() != nullptr;
    }
    if (!is_any_alive) power_off(all_orderly ? 0 : 1);
}

constinit kernel::DeferredWork end_work{kernel::DeferredWork::Body::to_function<retire_ended>()};

} // namespace

void run_virtual_machines(Modules const& modules, vm::Backend& backend) {
    if (read_description(modules))
        start_all(modules, backend);
    else
        all_orderly = false;
    kernel::defer(0, end_work); // nothing may have started
    release_cpus(kernel::run_cpu);
    kernel::run_cpu();
}

} // namespace boot
