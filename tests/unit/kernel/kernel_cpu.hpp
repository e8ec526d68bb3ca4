// SPDX-License-Identifier: MIT
#pragma once
// A test on the fake CPU as the kernel's CPU 0.
#include <cstdio>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <kernel/apic.hpp>
#include <kernel/cpus.hpp>
#include <kernel/panic.hpp>
#include <lib/format.hpp>
#include <lib/x86/registers.hpp>

namespace kernel {
extern thread_local Cpu* hosted_thread_cpu;
}

class KernelCpu : public ::testing::Test {
public:
    fakes::Cpu cpu;

protected:
    KernelCpu() {
        if (kernel::cpu_count() == 0) kernel::register_cpu(kernel::this_cpu());
        cpu.set_cpuid(0, {7, 0x756e'6547, 0x6c65'746e, 0x4965'6e69});
        cpu.set_cpuid(0x8000'0000, {0x8000'0008, 0, 0, 0});
    }
    // CPU 1 of the machine. It does what a test makes it do: see as_cpu().
    static kernel::Cpu& second_cpu() {
        static kernel::Cpu second;
        if (kernel::cpu_count() == 1) {
            second.self = &second;
            second.index = 1;
            second.apic_id = 0x31;
            kernel::register_cpu(second);
        }
        return second;
    }
    // The fake CPU as `as` for a moment.
    template <typename Body> static void as_cpu(kernel::Cpu& as, Body body) {
        kernel::hosted_thread_cpu = &as;
        body();
        kernel::hosted_thread_cpu = nullptr;
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

// For tests in which Mullion panics: what it says goes to stderr, where EXPECT_DEATH looks.
class PanicTest : public KernelCpu {
protected:
    void SetUp() override {
        use_x2apic(); // other tests leave a second CPU, which a panic interrupts
        ASSERT_TRUE(kernel::LocalApic::enable(true));
        kernel::set_panic_sink(&sink_);
        kernel::set_panic_end([] { std::_Exit(3); });
        ::testing::GTEST_FLAG(death_test_style) = "fast";
    }
    void TearDown() override { kernel::set_panic_sink(nullptr); }

private:
    class StderrSink final : public lib::TextSink {
    public:
        void write(std::string_view text) override { std::fwrite(text.data(), 1, text.size(), stderr); }
    };
    StderrSink sink_;
};
