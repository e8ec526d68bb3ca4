// SPDX-License-Identifier: MIT
#pragma once
// One vCPU on the machine of the fakes, and what its entries look like after an exit.
#include "svm/machine.hpp"

namespace amd_machine {

inline constexpr u64 rip = 0x10'0000;
inline constexpr u64 gp = event(13, 3) | 1U << 11;

class VcpuTest : public SvmMachine {
protected:
    explicit VcpuTest(u32 features = features_tcg) : SvmMachine(features) {}
    void SetUp() override {
        create();
        settle();
    }
    // One exit, and the VMCB of the entry that followed it.
    svm::Vmcb after(Exit exit) {
        entries.clear();
        EXPECT_EQ(run({std::move(exit)}), kernel::RunResult::Work) << vm->end_text();
        return entries.back();
    }
    // What the guest gets at this entry: by EVENTINJ, or as a virtual interrupt.
    u64 injected(svm::Vmcb const& block) {
        if (block.control.event_injection.raw != 0 || !is_on_offer(block)) return block.control.event_injection.raw;
        return event(block.control.interrupt_control.get<svm::InterruptControl::Vector>(), svm::EventInfo::external);
    }
    static void open(svm::Vmcb& block) { block.save.rflags = 0x202; }
};

} // namespace amd_machine
