#pragma once
// Binds the supervisor and the monitor to this machine.
#include <boot/command_line.hpp>
#include <boot/modules.hpp>
#include <vm/backend.hpp>

namespace boot {

// The VMs, the monitor, and the run loop of every CPU.
[[noreturn]] void run_virtual_machines(Modules const& modules, vm::Backend& backend, FailureAction on_failure);

} // namespace boot
