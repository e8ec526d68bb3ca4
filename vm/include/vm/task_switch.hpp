// SPDX-License-Identifier: MIT
#pragma once
// Hardware task switches, which VT-x leaves to its hypervisor: the old task's state goes to its TSS and the new one's
// comes from there, with the CPU's checks and faults in their order. [intel/vol3] 8.3
// Not modelled: data breakpoints that the CPU's own accesses hit.
#include <vm/vcpu.hpp>

namespace vm {

enum class TaskSwitchResult : u8 {
    Done,
    Raised, // the vCPU holds an exception, of the old task or, where the switch was complete already, of the new one
    TripleFault, // the exception that was being delivered was a double fault
};

// `length` is that of the instruction that switches, 0 when a hardware event does. The CPU has found that the old task
// may use the gate or the TSS, and is not in long mode. At most 25 short accesses to the guest's memory.
TaskSwitchResult switch_task(Vcpu& vcpu, TaskSwitch const& request, u8 length);

// What the guest gets when `second` strikes while the exception `first` is delivered; nullopt: a triple fault.
// [intel/vol3] table 6-5
std::optional<Exception> exception_during(u8 first, Exception const& second);

} // namespace vm
