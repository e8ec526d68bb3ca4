#pragma once
// Starts the VMs of the description, runs them, and ends the machine when the last one has ended.
#include <boot/modules.hpp>
#include <vm/backend.hpp>

namespace boot {

[[noreturn]] void run_virtual_machines(Modules const& modules, vm::Backend& backend);

} // namespace boot
