// SPDX-License-Identifier: MIT
#pragma once
// One vCPU on the machine of the fakes, and the entry that follows an exit.
#include "vmx/machine.hpp"

namespace intel_machine {

class VcpuExit : public VmxMachine {
protected:
    void SetUp() override {
        create();
        settle();
        if (HasFatalFailure()) return;
    }
    // One exit, and the entry that followed it.
    EntryRecord after(Exit exit) {
        entries.clear();
        EXPECT_EQ(run({std::move(exit)}), kernel::RunResult::Work) << vm->end_text();
        return entries.back();
    }
    void expect_gp(EntryRecord const& entry, u64 rip) const {
        EXPECT_EQ(entry.interruption, hardware_exception(13, true));
        EXPECT_EQ(entry.error_code, 0U);
        EXPECT_EQ(entry.rip, rip);
    }
    u64 reg(vm::Gpr name) { return vcpu().gpr(name); }
    void set(vm::Gpr name, u64 value) { vcpu().gpr(name) = value; }
};

inline constexpr u64 rip = 0x10'0000;

} // namespace intel_machine
