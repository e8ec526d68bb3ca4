// SPDX-License-Identifier: MIT
#pragma once
// A VM with fake vCPUs for a test.
#include "vm/fake_vm.hpp"

#include <gtest/gtest.h>

namespace fake {

class VmTest : public ::testing::Test {
protected:
    explicit VmTest(u32 vcpus = 1) {
        free = support::give_memory();
        if (kernel::cpu_count() == 0) kernel::register_cpu(kernel::this_cpu());
        cpu.set_cpuid(0, {7, 0x756e'6547, 0x6c65'746e, 0x4965'6e69});
        cpu.set_cpuid(0x8000'0000, {0x8000'0008, 0, 0, 0});
        constexpr u32 nx = 1U << 20, pages_1g = 1U << 26, long_mode = 1U << 29;
        cpu.set_cpuid(0x8000'0001, {0, 0, 0, nx | pages_1g | long_mode});
        cpu.set_cpuid(0x8000'0008, {0x3027, 0, 0, 0});
        auto made = vm::Vm::create({.name = "test", .memory = 4 * lib::MiB, .vcpu_count = vcpus}, backend, platform);
        EXPECT_TRUE(made);
        vm = std::move(*made);
        EXPECT_TRUE(vm->ram().scrub(~lib::u64{0}));
        vm->start();
    }
    Vcpu& vcpu(u32 number = 0) { return static_cast<Vcpu&>(vm->vcpu(number)); }
    template <typename T> void put(u64 at, T value) {
        std::memcpy(vm->ram().pointer(vm::GuestPhys{at}, sizeof(T)), &value, sizeof(T));
    }

    u64 free = 0;
    fakes::Cpu cpu;
    Backend backend;
    Platform platform;
    kernel::Own<vm::Vm> vm;
};

} // namespace fake
