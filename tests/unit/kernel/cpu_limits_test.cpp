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

TEST_F(FirmwareLimits, LfenceIsMadeSerialising) {
    use_amd(0x0080'0f12);
    cpu.populate_msr(x86::DE_CFG, 0x40);
    kernel::make_lfence_serialising();
    EXPECT_EQ(cpu.peek_msr(x86::DE_CFG), 0x42U);
    EXPECT_TRUE(kernel::cpu_features().serialising_lfence);
    cpu.msr_writes.clear();
    kernel::make_lfence_serialising();
    EXPECT_TRUE(cpu.msr_writes.empty()) << "firmware, or the first pass, has done it";
}

TEST_F(FirmwareLimits, LfenceIsNotCalledSerialisingWithoutTheMsr) {
    use_amd(0x0004'0f33);
    cpu.remove_msr(x86::DE_CFG);
    kernel::make_lfence_serialising();
    EXPECT_FALSE(kernel::cpu_features().serialising_lfence);
}

TEST_F(FirmwareLimits, LfenceThatIsAlwaysSerialisingNeedsNoMsr) {
    use_amd(0x00a2'0f12);
    cpu.set_cpuid(0x8000'0000, {0x8000'0021, 0, 0, 0});
    cpu.set_cpuid(0x8000'0021, {1U << 2, 0, 0, 0});
    cpu.remove_msr(x86::DE_CFG);
    kernel::make_lfence_serialising();
    EXPECT_TRUE(kernel::cpu_features().serialising_lfence);
}

} // namespace
