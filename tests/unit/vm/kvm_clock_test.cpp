// SPDX-License-Identifier: MIT
#include "vm/fake_vcpu.hpp"

#include <vm/kvm_clock.hpp>

namespace {

using lib::u32;
using lib::u64;
using lib::u8;

// What a guest does with the structure. [linux/kvm-msr] MSR_KVM_SYSTEM_TIME_NEW
u64 nanoseconds(vm::KvmClockScale scale, u64 ticks) {
    u64 const shifted = scale.shift < 0 ? ticks >> -scale.shift : ticks << scale.shift;
    return static_cast<u64>(static_cast<unsigned __int128>(shifted) * scale.multiplier >> 32);
}

TEST(KvmClock, AnHourOfTicksIsAnHour) {
    for (u64 const hz :
         {u64{1'000'000}, u64{37'000'000}, u64{100'000'000}, u64{1'000'000'000}, u64{1'000'000'001}, u64{2'000'000'000},
          u64{2'445'402'000}, u64{4'000'000'001}, u64{5'999'999'999}, u64{9'000'000'000}, u64{20'000'000'000}}) {
        auto const scale = vm::KvmClockScale::of(hz);
        EXPECT_GE(scale.multiplier, (1U << 31) - 1) << hz;
        constexpr u64 hour = 3600 * lib::nanos_per_second;
        u64 const told = nanoseconds(scale, hz * 3600);
        EXPECT_LE(told > hour ? told - hour : hour - told, 2'000U) << hz;
        // Linux takes the rate from it: a million kHz shifted by 32, over the multiplier. (pvclock_tsc_khz)
        u64 const quotient = (u64{1'000'000} << 32) / scale.multiplier;
        u64 const khz = scale.shift < 0 ? quotient << -scale.shift : quotient >> scale.shift;
        EXPECT_NEAR(static_cast<double>(khz), static_cast<double>(hz) / 1000, 16) << hz;
    }
    EXPECT_EQ(vm::KvmClockScale::of(0).multiplier, 0U);
}

using KvmClockInMemory = fake::VmTest;

TEST_F(KvmClockInMemory, LiesThereAsKvmWritesIt) {
    u8* const time = vm->ram().pointer(vm::GuestPhys{0x1004}, 32);
    vcpu().publish_time(0x1004, 0);
    EXPECT_EQ(lib::load<u32>(time), 2U);
    EXPECT_EQ(lib::load<u64>(time + 8), 0U);
    EXPECT_EQ(lib::load<u64>(time + 16), 0U);
    auto const crystal = vm->cpuid().crystal();
    auto const scale = vm::KvmClockScale::of(u64{crystal.hz} * crystal.multiplier);
    EXPECT_EQ(lib::load<u32>(time + 24), scale.multiplier);
    EXPECT_EQ(time[28], static_cast<u8>(scale.shift));
    EXPECT_EQ(time[29], 1) << "all vCPUs tell the same time";
    vcpu().publish_time(0x1004, 0x1122'3344'5566'7788);
    EXPECT_EQ(lib::load<u32>(time), 4U);
    EXPECT_EQ(lib::load<u64>(time + 8), 0x1122'3344'5566'7788U);
    EXPECT_EQ(time[29], 0);
    vcpu().publish_wall_clock(0x2000);
    EXPECT_EQ(lib::load<u32>(vm->ram().pointer(vm::GuestPhys{0x2000}, 4)), 6U);
    EXPECT_EQ(lib::load<u32>(vm->ram().pointer(vm::GuestPhys{0x2004}, 4)), vm->wall_clock_at_creation());
}

TEST_F(KvmClockInMemory, IsNotWrittenWhereThereIsNoRoom) {
    u64 const end = 4 * lib::MiB;
    vcpu().publish_time(end - 28, 0);
    vcpu().publish_wall_clock(end - 8);
    vcpu().publish_time(~u64{3}, 0);
    vcpu().publish_wall_clock(~u64{3});
    for (u64 at = end - 32; at < end; at += 4)
        EXPECT_EQ(lib::load<u32>(vm->ram().pointer(vm::GuestPhys{at}, 4)), 0U);
}

} // namespace
