// SPDX-License-Identifier: MIT
#pragma once
// A Zen 4 with AVIC, a VM with several vCPUs, and what the CPU does with the tables of AVIC when a vCPU sends an
// interrupt. [amd/vol2] 15.29.6.1
#include "svm/machine.hpp"

#include <optional>
#include <svm/npt_space.hpp>

namespace kernel {
extern thread_local Cpu* hosted_thread_cpu;
}

namespace amd_machine {

namespace reg = vm::apic_reg;

class AvicMachine : public SvmMachine {
protected:
    static constexpr u32 host_apic_id = 9;
    explicit AvicMachine(u32 features = features_zen4, u32 signature = signature_zen4);
    ~AvicMachine() override;
    void create_several(u32 vcpus, svm::Disabled const& disabled = {});
    // Makes `index` the current vCPU, starts it if it waits for that, and enables its APIC.
    void start(u32 index);

    svm::AvicTables& tables() { return *static_cast<svm::NptSpace&>(vm->space()).avic(); }
    svm::Vcpu& vcpu_at(u32 index) { return static_cast<svm::Vcpu&>(vm->vcpu(index)); }
    vm::ApicPage& page(u32 index) { return vm->vcpu(index).apic().page(); }
    vm::ApicPage& page() { return page(current); }
    svm::PhysicalIdEntry entry(u32 index) { return tables().physical(index); }
    static bool is_valid(svm::PhysicalIdEntry entry) { return entry.get<svm::PhysicalIdEntry::Valid>(); }
    static bool is_running(svm::PhysicalIdEntry entry) { return entry.get<svm::PhysicalIdEntry::IsRunning>(); }
    // How the current vCPU's control block stands.
    svm::AvicMode mode();
    // A write of the guest that exits behind it.
    static Exit trapped(u32 offset, u32 value);
    static Exit before_access(u32 offset, bool is_write);
    // EXITINFO2 of the exit with which the CPU leaves the send to us, if it does; else it has sent it.
    std::optional<u64> send(u64 icr);
    // The machine's other CPU, as whoever calls in here.
    template <typename Body> void on_other_cpu(Body body) {
        kernel::hosted_thread_cpu = other_.get();
        body();
        kernel::hosted_thread_cpu = nullptr;
    }
    std::vector<u64> doorbells();

private:
    std::unique_ptr<kernel::Cpu> other_;
};

} // namespace amd_machine
