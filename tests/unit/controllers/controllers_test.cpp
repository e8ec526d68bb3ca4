// SPDX-License-Identifier: MIT
// What ring 3 gets of the machine's disk controllers, and what it does not.
#include <manage/controllers.hpp>

#include "kernel/kernel_cpu.hpp"
#include "support/machine_memory.hpp"
#include <bit>
#include <fakes/pci.hpp>
#include <memory>

namespace {

namespace service = lib::service;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using manage::Controllers;
using service::Answer;
using service::Call;

constexpr auto done = static_cast<u64>(Answer::Done), refused = static_cast<u64>(Answer::NoSuchDevice);
constexpr u32 COMMAND = 0x04, MSI = 0x50;
constexpr u16 bus_master = 1 << 2, pin_is_off = 1 << 10;

class Line final : public kernel::InterruptSource {
public:
    lib::Result<void> set_target(kernel::InterruptTarget) override { return {}; }
    void set_masked(bool) override {}
    bool is_underway() override { return false; }
    bool keeps_while_masked() const override { return false; }
};
std::vector<u8> asked_lines; // what the machine was asked for
bool has_lines = true;
kernel::InterruptSource* line(u8 irq) {
    static Line source;
    asked_lines.push_back(irq);
    return has_lines ? &source : nullptr;
}
void ignore(u32) {}

class ControllersTest : public KernelCpu {
protected:
    ControllersTest() {
        cpu.tsc_step = 0;
        use_x2apic();
        EXPECT_TRUE(kernel::LocalApic::enable(true));
        support::give_memory();
        support::give_low_memory();
        asked_lines.clear();
        has_lines = true;
    }
    // As firmware left it: decoding nothing, and with bus mastering on.
    static fakes::PciFunction function(u32 id, u32 kind) {
        fakes::PciFunction made(id, kind);
        made.set16(COMMAND, bus_master);
        return made;
    }
    static fakes::PciFunction ide() {
        auto made = function(0x7010'8086, 0x01'0180);
        made.add_bar(0x20, 0xc001, 0xffff'fff0);
        return made;
    }
    static fakes::PciFunction with_messages(u32 id, u32 kind) {
        auto made = function(id, kind);
        made.add_bar(0x10, 0xfe00'0004, 0xffff'c000);
        made.add_bar(0x14, 0, 0xffff'ffff);
        made.add_capability(MSI, 0x05);
        made.set16(MSI + 2, 1 << 7);
        made.allow_writes(MSI + 2, 12);
        return made;
    }
    void find() {
        machine.add_ports();
        ASSERT_TRUE(config.find_ports());
        ASSERT_TRUE(pci.find_functions());
        controllers->find(pci, board);
    }
    u16 command(u8 device) { return machine.at({0, device, 0}).get16(COMMAND); }
    u64 access(Call number, u32 controller, u32 bar, u32 offset, u32 width, u32 value = 0) {
        return controllers->call(number, controller,
                                 std::bit_cast<u64>(service::PortAccess{value, static_cast<u16>(offset),
                                                                        static_cast<u8>(bar), static_cast<u8>(width)}));
    }

    fakes::PciMachine machine{cpu};
    std::unique_ptr<kernel::PciConfig> config_ = std::make_unique<kernel::PciConfig>(kernel::PciConfig::Map{});
    kernel::PciConfig& config = *config_;
    kernel::Pci pci{config};
    std::array<service::ControllerEntry, service::max_controllers> board{};
    // Their interrupts are never disconnected.
    static Controllers* make() {
        static std::vector<std::unique_ptr<Controllers>> all;
        return all
            .emplace_back(new Controllers(lib::Delegate<void(u32)>::to_function<ignore>(),
                                          Controllers::Line::to_function<line>()))
            .get();
    }
    Controllers* const controllers = make();
};

TEST_F(ControllersTest, TakesThoseThatThereAreDriversFor) {
    machine.add({0, 1, 0}, ide());
    machine.add({0, 2, 0}, with_messages(0x0010'1b36, 0x01'0802));
    machine.add({0, 3, 0}, with_messages(0x2922'8086, 0x01'0601));
    machine.add({0, 4, 0}, with_messages(0x1042'1af4, 0x01'8000));
    machine.add({0, 5, 0}, with_messages(0x1001'1af4, 0x01'0000));
    machine.add({0, 6, 0}, with_messages(0x100e'8086, 0x02'0000)); // a network
    machine.add({0, 7, 0}, function(0x0010'1b36, 0x01'0802));      // no messages
    machine.add({0, 8, 0}, function(0x7010'8086, 0x01'018f));      // native mode
    find();
    using service::ControllerKind;
    ASSERT_EQ(controllers->count(), 5U);
    constexpr std::array kinds{ControllerKind::Ide, ControllerKind::Nvme, ControllerKind::Ahci,
                               ControllerKind::VirtioBlk, ControllerKind::VirtioBlk};
    for (u32 i = 0; i < kinds.size(); i++) {
        EXPECT_EQ(board[i].kind, kinds[i]);
        EXPECT_LT(board[i].dma_address + service::dma_size, u64{1} << 32);
        EXPECT_EQ(command(static_cast<u8>(i + 1)) & bus_master, 0);
        EXPECT_NE(command(static_cast<u8>(i + 1)) & pin_is_off, 0);
    }
    EXPECT_STREQ(board[1].name, "00:02.0");
    EXPECT_EQ(board[1].vendor_and_device, 0x0010'1b36U);
    EXPECT_EQ(board[1].bars[0].size, 0x4000U);
    EXPECT_EQ(board[1].bars[0].is_ports, 0U);
    EXPECT_EQ(board[5].kind, ControllerKind::None);
    EXPECT_EQ(asked_lines, (std::vector<u8>{14, 15}));
    EXPECT_NE(command(6) & bus_master, 0) << "not its business";
}

TEST_F(ControllersTest, ANicIsTakenWhenItIsAskedForWithOrWithoutMessages) {
    machine.add({0, 1, 0}, function(0x100e'8086, 0x02'0000));
    machine.add({0, 2, 0}, with_messages(0x10d3'8086, 0x02'0000));
    machine.add({0, 3, 0}, with_messages(0x10c9'8086, 0x02'0000)); // no driver
    find();
    ASSERT_EQ(controllers->count(), 0U);
    EXPECT_TRUE(Controllers::is_nic(*pci.function(0)));
    EXPECT_FALSE(Controllers::is_nic(*pci.function(2)));
    ASSERT_TRUE(controllers->take_nic(pci, *pci.function(1), 3, board));
    ASSERT_TRUE(controllers->take_nic(pci, *pci.function(0), 5, board));
    EXPECT_FALSE(controllers->take_nic(pci, *pci.function(0), 6, board)) << "it has an owner";
    ASSERT_EQ(controllers->count(), 2U);
    EXPECT_EQ(board[0].kind, service::ControllerKind::E1000);
    EXPECT_EQ(board[0].has_interrupt, 1U);
    EXPECT_EQ(board[0].network, 3U);
    EXPECT_STREQ(board[0].name, "00:02.0");
    EXPECT_EQ(board[1].has_interrupt, 0U);
    EXPECT_EQ(board[1].network, 5U);
    for (u8 const device : std::array<u8, 2>{1, 2}) {
        EXPECT_EQ(command(device) & bus_master, 0);
        EXPECT_NE(command(device) & pin_is_off, 0);
    }
}

TEST_F(ControllersTest, IdeWithoutItsInterruptsIsLeftOut) {
    has_lines = false;
    machine.add({0, 1, 0}, ide());
    find();
    EXPECT_EQ(controllers->count(), 0U);
    EXPECT_EQ(board[0].kind, service::ControllerKind::None);
}

TEST_F(ControllersTest, ReachesItsOwnPortsOnly) {
    cpu.add_plain_ports(0x1f0, 8);
    cpu.add_plain_ports(0x170, 8);
    cpu.add_plain_ports(0x3f6, 1);
    cpu.add_plain_ports(0x376, 1);
    cpu.add_plain_ports(0xc000, 16);
    machine.add({0, 1, 0}, ide());
    machine.add({0, 2, 0}, with_messages(0x0010'1b36, 0x01'0802));
    find();
    for (u32 const bar : {0U, 2U, 4U})
        for (u32 const width : {1U, 2U, 4U}) {
            u32 const size = bar == 4 ? 16 : 8;
            for (u32 offset = 0; offset < 40; offset++) {
                bool const is_inside = offset % width == 0 && offset + width <= size;
                EXPECT_EQ(access(Call::WritePort, 0, bar, offset, width, offset + 1), is_inside ? done : refused);
                EXPECT_EQ(access(Call::ReadPort, 0, bar, offset, width), is_inside ? offset + 1 : refused);
            }
        }
    for (u32 const bar : {1U, 3U}) {
        EXPECT_EQ(access(Call::WritePort, 0, bar, 2, 1, 8), done);
        for (u32 offset = 0; offset < 8; offset++)
            for (u32 const width : {1U, 2U, 4U})
                EXPECT_EQ(access(Call::ReadPort, 0, bar, offset, width), offset == 2 && width == 1 ? 8 : refused)
                    << offset << " is the floppy controller's";
    }
    for (u32 const width : {0U, 3U, 8U, 255U})
        EXPECT_EQ(access(Call::ReadPort, 0, 0, 0, width), refused);
    for (u32 const bar : {5U, 6U, 255U})
        EXPECT_EQ(access(Call::ReadPort, 0, bar, 0, 1), refused);
    EXPECT_EQ(access(Call::ReadPort, 0, 0, 0xffff, 1), refused);
    EXPECT_EQ(access(Call::ReadPort, 1, 0, 0, 1), refused) << "that one has memory there";
}

TEST_F(ControllersTest, BusMasteringIsWhatTheDriverAskedForUntilItsServiceHasEnded) {
    machine.add({0, 1, 0}, ide());
    machine.add({0, 2, 0}, with_messages(0x0010'1b36, 0x01'0802));
    find();
    EXPECT_EQ(controllers->call(Call::BusMaster, 1, 1), done);
    EXPECT_EQ(command(1) & bus_master, 0);
    EXPECT_NE(command(2) & bus_master, 0);
    EXPECT_EQ(controllers->call(Call::BusMaster, 0, ~u64{0}), done);
    EXPECT_EQ(controllers->call(Call::BusMaster, 1, 0), done);
    EXPECT_NE(command(1) & bus_master, 0);
    EXPECT_EQ(command(2) & bus_master, 0);
    EXPECT_EQ(controllers->call(Call::BusMaster, 1, 1), done);
    controllers->stop();
    EXPECT_EQ((command(1) | command(2)) & bus_master, 0);
}

TEST_F(ControllersTest, NumbersOutOfRangeAreAnsweredAndNothingElse) {
    machine.add({0, 1, 0}, ide());
    find();
    for (u64 const controller : {u64{1}, u64{7}, u64{8}, u64{1} << 32, ~u64{0}})
        for (Call const number : {Call::BusMaster, Call::ReadPort, Call::WritePort, Call::ReadConfiguration})
            EXPECT_EQ(controllers->call(number, controller, 0), refused);
    EXPECT_EQ(controllers->call(Call::ReadConfiguration, 0, 0), 0x7010'8086U);
    for (u64 const offset : {u64{1}, u64{2}, u64{256}, u64{1} << 32, ~u64{3}})
        EXPECT_EQ(controllers->call(Call::ReadConfiguration, 0, offset), refused);
    EXPECT_EQ(controllers->call(Call::Interrupt, 0, 0), refused) << "not a call about controllers";
}

} // namespace
