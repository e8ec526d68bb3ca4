// SPDX-License-Identifier: MIT
#pragma once
// An AMD machine on the fake CPU, and a VM whose runs are played by the test.
#include "support/device_memory.hpp"
#include "support/machine_memory.hpp"

#include <cstring>
#include <fakes/cpu.hpp>
#include <functional>
#include <gtest/gtest.h>
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/traps.hpp>
#include <lib/x86/registers.hpp>
#include <svm/backend.hpp>
#include <svm/exit_code.hpp>
#include <svm/vcpu.hpp>
#include <vm/vm.hpp>

namespace amd_machine {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
namespace exit_code = svm::exit_code;

// CPUID 8000_000Ah EDX of QEMU's AMD-V, of a Zen 2 (with AVIC), and of a Zen 4 (with x2AVIC).
inline constexpr u32 features_tcg = 1, features_zen2 = 0x0001'bcff, features_zen4 = features_zen2 | 1U << 18;
// CPUID 1 EAX of a Zen 2 and a Zen 4.
inline constexpr u32 signature_zen2 = 0x0080'0f12, signature_zen4 = 0x00a1'0f11;
// A CPU with AMD-V, VM_CR open.
void populate(fakes::Cpu& cpu, u32 features, u32 asids);

class Platform final : public support::DeviceMemory {
public:
    bool pic = false;
    std::vector<u8> ended;

    u64 port_in(u16, u8) override { return 0x1122'3344'5566'7788; }
    void port_out(u16, u8, u64) override {}
    void port_string(u16, u8, bool, std::span<u8>) override {}
    bool has_pic_interrupt() override { return pic; }
    u8 acknowledge_pic() override {
        pic = false;
        return 0x20;
    }
    void end_of_interrupt(u8 vector) override { ended.push_back(vector); }
    std::array<u64, 4> eoi_vectors() override { return {}; }
    void vcpu_stopped() override {}
};

// One exit to come. `before` is what the guest did until then.
struct Exit {
    u32 code;
    u64 info_1 = 0;
    u64 info_2 = 0;
    std::function<void(svm::Vmcb&)> before = {};
};

using Entry = std::function<void()>;
extern Entry on_entry; // what the fake svm_run calls for each VMRUN

class SvmMachine : public ::testing::Test {
public:
    fakes::Cpu cpu;
    Platform platform;

protected:
    explicit SvmMachine(u32 features = features_tcg, u32 asids = 16);
    ~SvmMachine() override;
    void create(svm::Disabled const& disabled = {}, u32 vcpus = 1);
    // A guest in 64-bit mode with interrupts on, its code in a 2 MiB page, its APIC enabled, its
    // I/O and local APICs mapped.
    void settle();
    void write_code(u64 at, std::initializer_list<u8> bytes);
    // Runs the guest: it leaves with `exits` one after the other, then for something that wants the CPU back.
    kernel::RunResult run(std::vector<Exit> exits);

    u32 current = 0; // the vCPU that all this is about
    svm::Vcpu& vcpu() { return static_cast<svm::Vcpu&>(vm->vcpu(current)); }
    svm::Vmcb& vmcb() { return vcpu().vmcb_for_tests(); }

    kernel::Own<svm::Backend> backend;
    kernel::Own<vm::Vm> vm;
    std::vector<svm::Vmcb> entries; // as VMRUN saw them
    bool takes_virtual_interrupts = true;
    bool is_tcg = false; // before create()

private:
    void enter();
    void check_avic(svm::Vmcb const& block);
    void take_virtual_interrupt(svm::Vmcb& block, u32 code);
    std::vector<Exit> script_;
    std::size_t next_ = 0;
};

constexpr u64 event(u8 vector, u8 type) { return 1U << 31 | u64{type} << 8 | vector; }
// Whether the guest would take a virtual interrupt now.
inline bool is_on_offer(svm::Vmcb const& block) {
    return block.control.interrupt_control.get<svm::InterruptControl::VirtualIrq>() &&
           !block.control.intercepts.has(exit_code::VINTR) && (block.save.rflags & 0x200) != 0 &&
           !block.control.interrupt_state.get<svm::InterruptState::Shadow>();
}

} // namespace amd_machine
