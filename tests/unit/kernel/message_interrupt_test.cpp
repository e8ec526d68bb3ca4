// SPDX-License-Identifier: MIT
// Claiming functions of the machine, and the messages that they send as interrupts.
#include <kernel/message_interrupt.hpp>

#include "kernel/kernel_cpu.hpp"
#include <fakes/pci.hpp>
#include <memory>

namespace {

using kernel::InterruptTarget;
using kernel::MessageInterrupt;
using kernel::PciCommand;
using kernel::PciOwner;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u32 COMMAND = 0x04, MSI = 0x50, MSIX = 0x60;

class MessageInterruptTest : public KernelCpu {
protected:
    fakes::PciFunction make() {
        fakes::PciFunction function(0x0010'1b36, 0x01'0802);
        function.set16(COMMAND, 1 << 2); // firmware left its bus mastering on
        return function;
    }
    kernel::PciFunction& find(fakes::PciFunction const& function) {
        machine.add({0, 3, 0}, function);
        machine.add_ports();
        EXPECT_TRUE(config.find_ports());
        EXPECT_TRUE(pci.find_functions());
        return *pci.function(0);
    }
    u16 command() { return machine.at({0, 3, 0}).get16(COMMAND); }
    static void add_msi(fakes::PciFunction& function, u16 control, u32 size) {
        function.add_capability(MSI, 0x05);
        function.set16(MSI + 2, control);
        function.allow_writes(MSI + 2, size - 2);
    }

    fakes::PciMachine machine{cpu};
    std::unique_ptr<kernel::PciConfig> config_ = std::make_unique<kernel::PciConfig>(kernel::PciConfig::Map{});
    kernel::PciConfig& config = *config_;
    kernel::Pci pci{config};
};

TEST_F(MessageInterruptTest, AClaimedFunctionDecodesAndIsNoBusMaster) {
    auto function = make();
    function.add_bar(0x10, 0xfe00'0004, 0xffff'c000);
    function.add_bar(0x14, 0, 0xffff'ffff);
    function.add_bar(0x18, 0xc001, 0xffff'fff0);
    kernel::PciFunction& found = find(function);
    ASSERT_TRUE(pci.claim(found, PciOwner::Service));
    EXPECT_EQ(command(), PciCommand::Io::mask | PciCommand::Memory::mask | PciCommand::InterruptDisable::mask);
    EXPECT_EQ(pci.claim(found, PciOwner::Service).error(), lib::Errc::Busy);
    pci.set_bus_master(found, true);
    EXPECT_NE(command() & PciCommand::BusMaster::mask, 0);
    EXPECT_EQ(pci.stop_unowned(), 0U) << "it has an owner";
    pci.set_bus_master(found, false);
    EXPECT_EQ(command() & PciCommand::BusMaster::mask, 0);
}

TEST_F(MessageInterruptTest, OneWithoutMessagesIsRefused) {
    kernel::PciFunction& found = find(make());
    MessageInterrupt source;
    EXPECT_EQ(source.open(pci, found).error(), lib::Errc::Unsupported);
}

TEST_F(MessageInterruptTest, TheShortestMsiSendsOneMessageAndLosesWhatComesWhileItIsMasked) {
    auto function = make();
    add_msi(function, 1 | 2 << 1 | 2 << 4, 10); // on, with four messages
    kernel::PciFunction& found = find(function);
    MessageInterrupt source;
    ASSERT_TRUE(source.open(pci, found));
    auto const& device = machine.at({0, 3, 0});
    EXPECT_EQ(device.get16(MSI + 2), 2 << 1) << "off, and one message";
    EXPECT_FALSE(source.keeps_while_masked());
    source.set_masked(true);
    ASSERT_TRUE(source.set_target({3, 0x41}));
    EXPECT_EQ(device.get32(MSI + 4), 0xfee0'3000U);
    EXPECT_EQ(device.get16(MSI + 8), 0x41);
    source.set_masked(false);
    EXPECT_EQ(device.get16(MSI + 2) & 1, 1);
    source.set_masked(true);
    EXPECT_EQ(device.get16(MSI + 2) & 1, 0);
    EXPECT_FALSE(source.is_underway());
    EXPECT_EQ(source.set_target({255, 0x41}).error(), lib::Errc::Unsupported) << "that is every CPU";
}

TEST_F(MessageInterruptTest, AWideMsiWithMasksStaysOnWhileItIsMasked) {
    auto function = make();
    add_msi(function, 1 << 7 | 1 << 8, 24);
    kernel::PciFunction& found = find(function);
    MessageInterrupt source;
    ASSERT_TRUE(source.open(pci, found));
    auto const& device = machine.at({0, 3, 0});
    EXPECT_TRUE(source.keeps_while_masked());
    source.set_masked(true);
    ASSERT_TRUE(source.set_target({254, 0x50}));
    source.set_masked(false);
    EXPECT_EQ(device.get32(MSI + 4), 0xfeef'e000U);
    EXPECT_EQ(device.get32(MSI + 8), 0U);
    EXPECT_EQ(device.get16(MSI + 12), 0x50);
    EXPECT_EQ(device.get32(MSI + 16), 0U);
    source.set_masked(true);
    EXPECT_EQ(device.get16(MSI + 2) & 1, 1);
    EXPECT_EQ(device.get32(MSI + 16), ~0U);
}

TEST_F(MessageInterruptTest, ATableOutsideOfItsBarIsRefused) {
    auto function = make();
    function.add_bar(0x10, 0xfe00'0000, 0xffff'f000);
    function.add_capability(MSIX, 0x11);
    function.set16(MSIX + 2, 64);        // 65 entries
    function.set32(MSIX + 4, 0xc00 | 0); // of which the last lies beyond 4 KiB
    kernel::PciFunction& found = find(function);
    ASSERT_EQ(found.message_table, 65);
    MessageInterrupt source;
    EXPECT_EQ(source.open(pci, found).error(), lib::Errc::BadFormat);
    machine.at({0, 3, 0}).set32(MSIX + 4, 7);
    EXPECT_EQ(source.open(pci, found).error(), lib::Errc::BadFormat) << "there is no BAR 7";
    machine.at({0, 3, 0}).set32(MSIX + 4, 3);
    EXPECT_EQ(source.open(pci, found).error(), lib::Errc::BadFormat) << "BAR 3 is not there";
}

} // namespace
