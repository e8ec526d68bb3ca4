#pragma once
// A test on the fake CPU as the kernel's CPU 0.
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <kernel/cpus.hpp>
#include <lib/x86/registers.hpp>

class KernelCpu : public ::testing::Test {
public:
    fakes::Cpu cpu;

protected:
    KernelCpu() {
        if (kernel::cpu_count() == 0) kernel::register_cpu(kernel::this_cpu());
        cpu.set_cpuid(0, {7, 0x756e'6547, 0x6c65'746e, 0x4965'6e69});
        cpu.set_cpuid(0x8000'0000, {0x8000'0008, 0, 0, 0});
    }
    // A CPU with x2APIC and TSC-deadline mode whose registers are plain.
    void use_x2apic(bool tsc_deadline = true) {
        cpu.set_cpuid(1, {0, 0, 1U << 21 | (tsc_deadline ? 1U << 24 : 0), 0});
        kernel::detect_cpu_features();
        cpu.populate_msr(lib::x86::IA32_APIC_BASE, 0xfee0'0900);
        for (lib::u32 i = 0; i < 0x40; i++)
            cpu.populate_msr(lib::x86::IA32_X2APIC_BASE + i, 0);
        cpu.populate_msr(lib::x86::IA32_TSC_DEADLINE, 0);
    }
};
