// SPDX-License-Identifier: MIT
#include <drivers/power.hpp>

#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <memory>

namespace {

using drivers::AcpiInfo;
using drivers::AcpiRegister;
using lib::u16;
using lib::u32;
using lib::u64;

constexpr AcpiRegister port(u64 address) {
    return {.space = AcpiRegister::Space::SystemIo, .bit_width = 16, .address = address};
}
u64 map_identity(lib::HostPhys at, u64) { return at.value; }
auto const mmio = drivers::MmioMap::to_function<map_identity>();

struct Machine {
    fakes::Cpu cpu;
    std::unique_ptr<AcpiInfo> info = std::make_unique<AcpiInfo>();
    u16 pm1a_control = 1; // SCI_EN
    Machine() {
        cpu.add_plain_ports(0x80, 1);
        cpu.add_plain_ports(0x64, 1);
        cpu.add_plain_ports(0xcf9, 1);
        cpu.add_ports(0xb000, 2, {.in = {}, .out = [](u16, unsigned, u32) {}});
        cpu.add_ports(0xb004, 2,
                      {.in = [this](u16, unsigned) { return u32{pm1a_control}; },
                       .out = [this](u16, unsigned, u32 value) { pm1a_control = static_cast<u16>(value); }});
        info->fadt.pm1a_event = port(0xb000);
        info->fadt.pm1a_control = port(0xb004);
        info->s5 = {5, 6};
    }
};

TEST(Power, GoesToS5InTwoSteps) {
    Machine machine;
    drivers::Power const power(*machine.info, mmio);
    ASSERT_TRUE(power.can_power_off());
    power.power_off();
    std::vector<fakes::PortWrite> const expected = {{0xb000, 2, 0x8000}, {0xb004, 2, 0x1401}, {0xb004, 2, 0x3401}};
    EXPECT_EQ(machine.cpu.port_writes, expected);
}

TEST(Power, WritesPm1bToo) {
    Machine machine;
    machine.info->fadt.pm1b_control = port(0xb00c);
    machine.cpu.add_plain_ports(0xb00c, 2);
    drivers::Power(*machine.info, mmio).power_off();
    EXPECT_EQ(machine.cpu.port_writes.back(), (fakes::PortWrite{0xb00c, 2, 0x3800}));
}

TEST(Power, TakesThePmRegistersFromFirmwareFirst) {
    Machine machine;
    machine.pm1a_control = 0;
    machine.info->fadt.smi_command = 0xb2;
    machine.info->fadt.acpi_enable = 0xf1;
    machine.cpu.add_ports(0xb2, 1, {.in = {}, .out = [&](u16, unsigned, u32) { machine.pm1a_control = 1; }});
    drivers::Power(*machine.info, mmio).power_off();
    EXPECT_EQ(machine.cpu.port_writes.front(), (fakes::PortWrite{0xb2, 1, 0xf1}));
    EXPECT_EQ(machine.pm1a_control, 0x3401);
}

TEST(Power, DoesNotHangOnFirmwareThatKeepsThem) {
    Machine machine;
    machine.pm1a_control = 0;
    machine.info->fadt.smi_command = 0xb2;
    machine.info->fadt.acpi_enable = 0xf1;
    machine.cpu.add_plain_ports(0xb2, 1);
    drivers::Power(*machine.info, mmio).power_off();
    EXPECT_EQ(machine.pm1a_control, 0x3400);
}

TEST(Power, DoesNothingWithoutS5) {
    Machine machine;
    machine.info->s5.reset();
    drivers::Power const power(*machine.info, mmio);
    EXPECT_FALSE(power.can_power_off());
    power.power_off();
    EXPECT_TRUE(machine.cpu.port_writes.empty());
}

TEST(Power, UsesTheSleepRegisterOfAHardwareReducedMachine) {
    Machine machine;
    machine.info->fadt.pm1a_control = {};
    machine.info->fadt.sleep_control = {.space = AcpiRegister::Space::SystemMemory, .address = 0xfed0'1000};
    machine.cpu.add_ram(0xfed0'1000, 4);
    drivers::Power(*machine.info, mmio).power_off();
    ASSERT_EQ(machine.cpu.mmio_writes.size(), 1U);
    EXPECT_EQ(machine.cpu.mmio_writes[0], (fakes::MmioWrite{0xfed0'1000, 1, 5 << 2 | 1 << 5}));
}

TEST(Power, ResetsByEveryMeansInOrder) {
    Machine machine;
    machine.info->fadt.reset = port(0xb010);
    machine.info->fadt.reset_value = 0x42;
    machine.cpu.add_plain_ports(0xb010, 1);
    drivers::Power(*machine.info, mmio).reset();
    std::vector<fakes::PortWrite> const expected = {{0xb010, 1, 0x42}, {0xcf9, 1, 2}, {0xcf9, 1, 6}, {0x64, 1, 0xfe}};
    EXPECT_EQ(machine.cpu.port_writes, expected);
}

TEST(Power, ResetsThroughPciConfigurationSpace) {
    Machine machine;
    machine.info->fadt.reset = {.space = AcpiRegister::Space::PciConfig,
                                .address = u64{0x1f} << 32 | u64{2} << 16 | 0xad};
    machine.cpu.add_plain_ports(0xcf8, 8);
    machine.cpu.add_plain_ports(0xcf9, 1);
    drivers::Power(*machine.info, mmio).reset();
    EXPECT_EQ(machine.cpu.port_writes[0], (fakes::PortWrite{0xcf8, 4, 0x8000'faac}));
    EXPECT_EQ(machine.cpu.port_writes[1], (fakes::PortWrite{0xcfd, 1, 0}));
}

TEST(Power, DoesNotHangOnAStuckKeyboardController) {
    Machine machine;
    machine.cpu.add_ports(0x64, 1, {.in = [](u16, unsigned) { return 0xffU; }, .out = [](u16, unsigned, u32) {}});
    drivers::Power(*machine.info, mmio).reset();
    EXPECT_EQ(machine.cpu.port_writes.back(), (fakes::PortWrite{0x64, 1, 0xfe}));
}

} // namespace
