// SPDX-License-Identifier: MIT
#pragma once
// Guest instructions that touch devices by memory or string I/O: fetched, decoded and carried out on the guest's
// behalf, on the CPU that runs the vCPU, between an exit and the next entry.
#include <vm/exit.hpp>

namespace vm {

class Vcpu;

// INS and OUTS: at most 512 elements, then the guest comes back for the rest.
Outcome port_string(Vcpu& vcpu, Exit const& exit);

// An access to guest-physical space where no RAM is mapped, or to the APIC page.
Outcome memory_access(Vcpu& vcpu, Exit const& exit);

// SMSW of a guest whose CR0 is not the CPU's: its destination gets what the guest has written.
Outcome store_machine_status(Vcpu& vcpu, Exit const& exit);

// The instruction at RIP, for CPUs that do not say; false: not to be found out.
bool decode_at_rip(Vcpu& vcpu, DecodedInstruction& out);

} // namespace vm
