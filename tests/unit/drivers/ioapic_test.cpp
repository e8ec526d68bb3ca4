// SPDX-License-Identifier: MIT
#include <drivers/ioapic.hpp>

#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <map>

namespace {

using drivers::IoApic;
using drivers::Redirection;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u64 base = 0xfec0'0000;

struct FakeIoApic {
    fakes::Cpu cpu;
    u8 index = 0;
    std::map<u8, u32> registers;
    bool was_half_written_unmasked = false;
    explicit FakeIoApic(u32 version = 0x0017'0011) {
        registers[1] = version;
        cpu.add_mmio(
            base, 0x20,
            {.load = [this](u64 offset, unsigned) { return offset == 0x10 ? u64{registers[index]} : u64{index}; },
             .store = [this](u64 offset, unsigned, u64 value) { store(offset, static_cast<u32>(value)); },
             .widths = 4});
    }
    void store(u64 offset, u32 value) {
        if (offset == 0) {
            index = static_cast<u8>(value);
            return;
        }
        bool const is_high = index >= 0x11 && index % 2 == 1;
        if (is_high && (registers[static_cast<u8>(index - 1)] & 1U << 16) == 0) was_half_written_unmasked = true;
        registers[index] = value;
    }
};

TEST(IoApic, MasksAllInputsAtStart) {
    FakeIoApic hardware;
    IoApic ioapic(base, 0);
    ASSERT_TRUE(ioapic.start());
    EXPECT_EQ(ioapic.input_count(), 24U);
    for (u32 gsi = 0; gsi < 24; gsi++)
        EXPECT_TRUE(ioapic.entry(gsi).get<Redirection::Masked>());
}

TEST(IoApic, IsNotFoundWhereNothingAnswers) {
    for (u32 const version : {0U, 0xffff'ffffU, 0x00ff'0011U}) {
        FakeIoApic hardware(version);
        EXPECT_EQ(IoApic(base, 0).start().error(), lib::Errc::NotFound) << version;
    }
}

TEST(IoApic, RoutesAGsiOfItsOwn) {
    FakeIoApic hardware;
    IoApic ioapic(base, 24);
    ASSERT_TRUE(ioapic.start());
    hardware.was_half_written_unmasked = false;
    ASSERT_TRUE(ioapic.route(26, {.vector = 0x41, .apic_id = 5}));
    ASSERT_TRUE(ioapic.route(26, {.vector = 0x42, .apic_id = 6, .is_active_low = true, .is_level = true}));
    EXPECT_EQ(hardware.registers[0x14], 0x0000'a042U);
    EXPECT_EQ(hardware.registers[0x15], 0x0600'0000U);
    EXPECT_FALSE(hardware.was_half_written_unmasked);
    EXPECT_EQ(ioapic.route(23, {.vector = 0x41, .apic_id = 0}).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(ioapic.route(48, {.vector = 0x41, .apic_id = 0}).error(), lib::Errc::OutOfRange);
}

TEST(IoApic, RefusesWhatItCannotDeliver) {
    FakeIoApic hardware;
    IoApic ioapic(base, 0);
    ASSERT_TRUE(ioapic.start());
    EXPECT_EQ(ioapic.route(1, {.vector = 15, .apic_id = 0}).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(ioapic.route(1, {.vector = 64, .apic_id = 255}).error(), lib::Errc::Unsupported);
    EXPECT_TRUE(ioapic.route(1, {.vector = 0, .apic_id = 0, .delivery = Redirection::Delivery::Nmi}));
}

TEST(IoApic, MasksWithoutTouchingTheRest) {
    FakeIoApic hardware;
    IoApic ioapic(base, 0);
    ASSERT_TRUE(ioapic.start());
    ASSERT_TRUE(ioapic.route(4, {.vector = 0x50, .apic_id = 3, .is_level = true}));
    auto const before = ioapic.entry(4);
    ioapic.set_masked(4, true);
    EXPECT_EQ(ioapic.entry(4), before.with<Redirection::Masked>(true));
    ioapic.set_masked(4, false);
    EXPECT_EQ(ioapic.entry(4), before);
    ioapic.set_masked(99, true);
    EXPECT_TRUE(ioapic.entry(99).get<Redirection::Masked>());
}

} // namespace
