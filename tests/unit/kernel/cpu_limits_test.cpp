// SPDX-License-Identifier: MIT
// What firmware may have set on a CPU and Mullion takes back.
#include "kernel/kernel_cpu.hpp"

namespace {

using lib::u32;
using lib::u64;
namespace x86 = lib::x86;

class FirmwareLimits : public KernelCpu {
protected:
    void use_amd(u32 signature) {
        cpu.set_cpuid(0, {7, 0x6874'7541, 0x444d'4163, 0x6974'6e65});
        cpu.set_cpuid(1, {signature, 0, 0, 0});
        kernel::detect_cpu_features();
    }
};

TEST_F(FirmwareLimits, CpuidGetsAllItsLeavesBack) {
    kernel::detect_cpu_features();
    cpu.populate_msr(x86::IA32_MISC_ENABLE, 1U << 22 | 1);
    kernel::lift_firmware_limits();
    EXPECT_EQ(cpu.peek_msr(x86::IA32_MISC_ENABLE), 1U);
    cpu.msr_writes.clear();
    kernel::lift_firmware_limits();
    EXPECT_TRUE(cpu.msr_writes.empty());
    cpu.remove_msr(x86::IA32_MISC_ENABLE);
    kernel::lift_firmware_limits();
}

TEST_F(FirmwareLimits, C1eIsTurnedOffWhereItStopsTheTimer) {
    for (u32 const signature : {0x0004'0f33U, 0x0010'0f42U}) { // families 0Fh and 10h
        use_amd(signature);
        EXPECT_TRUE(kernel::cpu_features().c1e_stops_timer);
        cpu.populate_msr(x86::INT_PENDING_MSG, 3U << 27 | 0x1234);
        kernel::lift_firmware_limits();
        EXPECT_EQ(cpu.peek_msr(x86::INT_PENDING_MSG), 0x1234U);
    }
    use_amd(0x0080'0f12); // 17h
    EXPECT_FALSE(kernel::cpu_features().c1e_stops_timer);
    cpu.populate_msr(x86::INT_PENDING_MSG, 3U << 27);
    kernel::lift_firmware_limits();
    EXPECT_EQ(cpu.peek_msr(x86::INT_PENDING_MSG), 3U << 27);
}

} // namespace
