// SPDX-License-Identifier: MIT
#pragma once
// Binds the supervisor and the monitor to this machine.
#include <config/command_line.hpp>
#include <manage/modules.hpp>
#include <vm/backend.hpp>

namespace boot {

// The VMs, the monitor, and the run loop of every CPU.
[[noreturn]] void run_virtual_machines(manage::Modules const& modules, vm::Backend& backend,
                                       config::FailureAction on_failure);

} // namespace boot
