// SPDX-License-Identifier: MIT
#include <kernel/pci.hpp>

#include "kernel/kernel_cpu.hpp"
#include <fakes/pci.hpp>
#include <memory>

namespace {

using fakes::PciId;
using kernel::HostPhys;
using kernel::HostVirt;
using kernel::Pci;
using kernel::PciAddress;
using kernel::PciBar;
using kernel::PciConfig;
using kernel::PciOwner;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u64 ecam_at = 0xe000'0000;
constexpr u64 mapped_at = 0x7000'0000'0000; // where map_bus() puts physical 0

lib::Result<HostVirt> map_bus(HostPhys base, u64 size) {
    EXPECT_EQ(size, 1024U * 1024) << "one bus at a time";
    return HostVirt{mapped_at + base.value};
}
lib::Result<HostVirt> map_nothing(HostPhys, u64) { return lib::fail(lib::Errc::NoMemory); }

class PciTest : public KernelCpu {
protected:
    void find() { ASSERT_TRUE(pci.find_functions()); }
    kernel::PciFunction const* find_at(PciAddress const& at) {
        for (u32 i = 0; auto const* const function = pci.function(i); i++)
            if (function->address == at) return function;
        return nullptr;
    }
    void use_ports() {
        machine.add_ports();
        ASSERT_TRUE(config.find_ports());
    }
    lib::Result<void> use_ecam(u16 segment, u8 first, u8 last, u64 base = ecam_at) {
        machine.add_ecam(mapped_at + base + (u64{first} << 20), segment, first, last);
        return config.add_ecam({HostPhys{base}, segment, first, last});
    }
    // A bridge whose buses are `secondary` to `subordinate`.
    static fakes::PciFunction bridge(u8 secondary, u8 subordinate) {
        fakes::PciFunction function(0x0001'1b36, 0x06'0400, 1);
        function.set8(0x19, secondary);
        function.set8(0x1a, subordinate);
        return function;
    }

    fakes::PciMachine machine{cpu};
    std::unique_ptr<PciConfig> config_ = std::make_unique<PciConfig>(PciConfig::Map::to_function<map_bus>());
    PciConfig& config = *config_;
    Pci pci{config};
};

fakes::PciFunction const host_bridge(0x29c0'8086, 0x06'0000);
fakes::PciFunction const disk(0x0010'1b36, 0x01'0802);

TEST_F(PciTest, AMachineWithoutPciHasNone) {
    cpu.add_ports(0xcf8, 8, {.in = [](u16, unsigned) { return ~0U; }, .out = [](u16, unsigned, u32) {}});
    EXPECT_FALSE(config.find_ports());
    find();
    EXPECT_EQ(pci.count(), 0U);
}

TEST_F(PciTest, FunctionsAreFoundByPorts) {
    machine.add({0, 0, 0}, host_bridge);
    machine.add({0, 3, 0}, disk).set_multifunction();
    machine.add({0, 3, 5}, disk);
    machine.add({0, 4, 0}, disk);
    machine.add({0, 4, 1}, disk); // the first function does not say that there are more
    use_ports();
    find();
    EXPECT_EQ(pci.count(), 4U);
    EXPECT_EQ(pci.bus_count(), 1U);
    auto const* const found = find_at({0, 0, 3, 5});
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->vendor, 0x1b36);
    EXPECT_EQ(found->device, 0x0010);
    EXPECT_EQ(name_of(found->kind), "NVMe controller");
    EXPECT_EQ(find_at({0, 0, 4, 1}), nullptr);
    EXPECT_EQ(config.read32({0, 0, 3, 5}, 256), ~0U) << "the ports do not reach it";
}

TEST_F(PciTest, EcamReachesFourKilobytesAndOtherSegments) {
    machine.add({0, 0, 0}, host_bridge);
    machine.add({0, 2, 0}, disk).set32(0x100, 0x1234'5678);
    machine.add({8, 1, 0}, disk, 3);
    use_ports();
    ASSERT_TRUE(use_ecam(0, 0, 31));
    ASSERT_TRUE(use_ecam(3, 8, 9, 0x1'0000'0000));
    find();
    EXPECT_EQ(pci.count(), 3U);
    EXPECT_EQ(config.read32({0, 0, 2, 0}, 0x100), 0x1234'5678U);
    EXPECT_EQ(config.read16({0, 0, 2, 0}, 4096), 0xffffU);
    EXPECT_NE(find_at({3, 8, 1, 0}), nullptr);
    EXPECT_EQ(config.add_ecam({HostPhys{ecam_at}, 3, 9, 12}).error(), lib::Errc::Busy);
    EXPECT_EQ(config.add_ecam({HostPhys{ecam_at}, 4, 9, 8}).error(), lib::Errc::OutOfRange);
}

TEST_F(PciTest, AnEcamThatShowsOtherFunctionsThanThePortsIsNotBelieved) {
    machine.add({0, 0, 0}, host_bridge);
    machine.add({0, 0, 0}, disk, 9);
    use_ports();
    machine.add_ecam(mapped_at + ecam_at, 9, 0, 255); // somebody else's memory
    EXPECT_EQ(config.add_ecam({HostPhys{ecam_at}, 0, 0, 255}).error(), lib::Errc::NotFound);
    EXPECT_EQ(config.ecam_count(), 0U);
    find();
    EXPECT_EQ(find_at({})->vendor, 0x8086);
}

TEST_F(PciTest, AnEcamThatCannotBeMappedIsLeftOut) {
    PciConfig unmapped(PciConfig::Map::to_function<map_nothing>());
    EXPECT_EQ(unmapped.add_ecam({HostPhys{ecam_at}, 0, 0, 255}).error(), lib::Errc::NoMemory);
    u16 segment = 0;
    EXPECT_FALSE(unmapped.segment(0, segment));
}

TEST_F(PciTest, BridgesLeadToTheirBuses) {
    machine.add({0, 0, 0}, host_bridge);
    machine.add({0, 1, 0}, bridge(1, 3));
    machine.add({1, 0, 0}, bridge(3, 3));
    machine.add({3, 7, 0}, disk);
    machine.add({0, 2, 0}, bridge(0, 0)); // firmware has not set it up
    machine.add({0, 3, 0}, bridge(5, 4)); // it passes nothing on
    use_ports();
    find();
    EXPECT_EQ(pci.count(), 6U);
    EXPECT_EQ(pci.bus_count(), 3U);
    EXPECT_EQ(find_at({0, 0, 1, 0})->secondary, 1);
    EXPECT_EQ(find_at({0, 0, 1, 0})->subordinate, 3);
    EXPECT_NE(find_at({0, 3, 7, 0}), nullptr);
}

TEST_F(PciTest, LoopsAmongBridgesEnd) {
    machine.add({0, 0, 0}, bridge(1, 255));
    machine.add({1, 0, 0}, bridge(1, 255));
    machine.add({1, 1, 0}, bridge(2, 255));
    machine.add({2, 0, 0}, bridge(1, 255));
    use_ports();
    find();
    EXPECT_EQ(pci.count(), 4U);
}

TEST_F(PciTest, RootBusesThatNoBridgeNamesAreFound) {
    machine.add({0, 0, 0}, host_bridge);
    machine.add({0x40, 0, 0}, host_bridge);
    machine.add({0x40, 5, 0}, bridge(0x41, 0x41));
    machine.add({0x41, 0, 0}, disk);
    use_ports();
    find();
    EXPECT_EQ(pci.count(), 4U);
}

TEST_F(PciTest, AChipsetThatIgnoresTheBusShowsItsFunctionsOnce) {
    machine.add({0, 0, 0}, host_bridge);
    machine.add({0, 1, 0}, disk);
    machine.ignores_bus = true;
    use_ports();
    find();
    EXPECT_EQ(pci.count(), 2U);
}

TEST_F(PciTest, APortHasOneDevice) {
    for (u8 const type : {u8{4}, u8{6}, u8{5}}) {
        auto port = bridge(1, 1);
        port.add_capability(0x40, 0x10);
        port.set16(0x42, static_cast<u16>(type << 4 | 2));
        machine.add({0, 0, 0}, port);
        for (u8 device = 0; device < 32; device++)
            machine.add({1, device, 0}, disk); // it answers for every number
        if (!config.has_ports()) use_ports();
        Pci found(config);
        ASSERT_TRUE(found.find_functions());
        EXPECT_EQ(found.count(), type == 5 ? 33U : 2U) << int{type};
    }
}

TEST_F(PciTest, BarsAreSizedWithDecodingOff) {
    auto device = disk;
    device.set16(0x04, 0x0507);
    device.set16(0x06, 0xf900);                     // errors that firmware left: they stay
    device.add_bar(0x10, 0xfebf'0000, 0xffff'c000); // 16 KiB
    device.add_bar(0x14, 0x0000'c001, 0x0000'ffe0); // 32 ports, the upper half wired to 0
    device.add_bar(0x18, 0x0000'000c, 0x0000'0000); // 64-bit, prefetchable, 8 GiB at 0x38_0000_0000
    device.add_bar(0x1c, 0x0000'0038, 0xffff'fffe);
    device.add_bar(0x30, 0xfeb0'0000, 0xffff'0001);
    machine.add({0, 0, 0}, device);
    use_ports();
    find();
    auto const& bars = find_at({})->bars;
    auto const is = [](PciBar const& bar, PciBar::Kind kind, u64 base, u64 size) {
        return bar.kind == kind && bar.base == base && bar.size == size;
    };
    EXPECT_TRUE(is(bars[0], PciBar::Kind::Memory, 0xfebf'0000, 0x4000));
    EXPECT_TRUE(is(bars[1], PciBar::Kind::Io, 0xc000, 0x20));
    EXPECT_TRUE(is(bars[2], PciBar::Kind::Memory64, 0x38'0000'0000, 0x2'0000'0000));
    EXPECT_TRUE(bars[2].is_prefetchable && !bars[0].is_prefetchable);
    for (unsigned i = 3; i < 6; i++)
        EXPECT_EQ(bars[i].kind, PciBar::Kind::None);
    EXPECT_TRUE(is(bars[6], PciBar::Kind::Rom, 0xfeb0'0000, 0x1'0000));
    auto& now = machine.at({0, 0, 0});
    for (u32 offset = 0; offset < 256; offset += 4)
        EXPECT_EQ(now.get32(offset), device.get32(offset)) << offset << ": everything is as it was";
}

TEST_F(PciTest, BarsOfBridgesAreTwoAndThoseOfHostBridgesAreLeftAlone) {
    auto port = bridge(0, 0);
    port.add_bar(0x10, 0xfea0'0000, 0xffff'f000);
    port.add_bar(0x14, 0xc, 0xffff'0000); // 64-bit without a second half
    port.add_bar(0x38, 0, 0xffff'f801);
    machine.add({0, 1, 0}, port);
    auto host = host_bridge;
    host.set16(0x04, 7);
    host.add_bar(0x10, 0xf000'0000, 0xf000'0000);
    machine.add({0, 0, 0}, host);
    auto card = disk;
    card.set8(0x0e, 2); // CardBus: another header
    machine.add({0, 2, 0}, card);
    use_ports();
    find();
    auto const& bars = find_at({0, 0, 1, 0})->bars;
    EXPECT_EQ(bars[0].size, 0x1000U);
    EXPECT_EQ(bars[1].size, 0x1'0000U);
    EXPECT_EQ(bars[1].kind, PciBar::Kind::Memory);
    EXPECT_EQ(bars[6].size, 0x800U);
    EXPECT_EQ(bars[6].base, 0U);
    EXPECT_EQ(machine.at({0, 0, 0}).writes, 0U);
    EXPECT_EQ(machine.at({0, 2, 0}).writes, 0U);
}

TEST_F(PciTest, CapabilitiesAreReadHoweverTheyAreChained) {
    auto device = disk;
    device.add_capability(0x50, 0x05);
    device.set16(0x52, 5 << 1 | 1 << 7); // 32 messages
    device.add_capability(0x40, 0x11);
    device.set16(0x42, 64);
    device.add_capability(0x60, 0x10);
    device.set32(0x64, 1U << 28);
    machine.add({0, 0, 0}, device);
    auto looping = disk;
    looping.add_capability(0xfc, 0x10); // its second half lies beyond the end
    looping.add_capability(0x40, 0x05);
    looping.set16(0x42, 7 << 1); // reserved
    looping.set8(0xfd, 0x40);
    machine.add({0, 1, 0}, looping);
    auto wild = disk;
    wild.add_capability(0x40, 0x13);
    wild.set8(0x43, 2);
    wild.set8(0x41, 0x13); // into its own header
    machine.add({0, 2, 0}, wild);
    auto none = device;
    none.set16(0x06, 0); // the status says that there is no list
    machine.add({0, 3, 0}, none);
    use_ports();
    find();
    auto const* found = find_at({});
    EXPECT_EQ(found->messages, 32);
    EXPECT_EQ(found->message_table, 65);
    EXPECT_TRUE(found->has_function_reset);
    found = find_at({0, 0, 1, 0});
    EXPECT_EQ(found->messages, 0);
    EXPECT_TRUE(find_at({0, 0, 2, 0})->has_function_reset);
    found = find_at({0, 0, 3, 0});
    EXPECT_TRUE(found->messages == 0 && found->message_table == 0 && !found->has_function_reset);
}

TEST_F(PciTest, WhatNobodyOwnsIsStopped) {
    auto running = disk;
    running.set16(0x04, 0x0507);
    running.set16(0x06, 0xf910);
    machine.add({0, 1, 0}, running);
    machine.add({0, 2, 0}, disk); // is not running
    auto host = host_bridge;
    host.set16(0x04, 6);
    machine.add({0, 0, 0}, host);
    fakes::PciFunction screen(0x1111'1234, 0x03'0000);
    screen.set16(0x04, 7);
    machine.add({0, 3, 0}, screen);
    auto port = bridge(1, 1);
    port.set16(0x04, 7);
    machine.add({0, 4, 0}, port);
    use_ports();
    find();
    EXPECT_EQ(pci.stop_unowned(), 1U);
    EXPECT_EQ(machine.at({0, 1, 0}).get32(0x04), 0xf910'0503U);
    EXPECT_EQ(machine.at({0, 0, 0}).get16(0x04), 6);
    EXPECT_EQ(machine.at({0, 3, 0}).get16(0x04), 7);
    EXPECT_EQ(machine.at({0, 4, 0}).get16(0x04), 7);
    EXPECT_TRUE(find_at({0, 0, 1, 0})->was_stopped);
    EXPECT_FALSE(find_at({0, 0, 2, 0})->was_stopped);
    EXPECT_EQ(find_at({0, 0, 3, 0})->owner, PciOwner::Kernel);
    EXPECT_EQ(pci.stop_unowned(), 0U);
}

TEST_F(PciTest, ThereIsAnEndToFunctionsAndToMemory) {
    for (unsigned bus = 0; bus < 5; bus++)
        for (u8 device = 0; device < 32; device++)
            for (u8 function = 0; function < 8; function++) {
                auto one = disk;
                one.set_multifunction();
                one.set16(2, static_cast<u16>(bus));
                machine.add({static_cast<u8>(bus), device, function}, one);
            }
    use_ports();
    EXPECT_EQ(pci.find_functions().error(), lib::Errc::OutOfRange);
    EXPECT_EQ(pci.count(), Pci::most_functions);
    EXPECT_EQ(pci.function(Pci::most_functions), nullptr);
}

TEST_F(PciTest, AddressesAndClassesHaveNames) {
    std::array<char, 40> text{};
    lib::BufferSink sink(text);
    print(sink, PciAddress{0, 0x3a, 0x1f, 7});
    sink.write(" ");
    print(sink, PciAddress{2, 0, 0, 0});
    EXPECT_EQ(sink.view(), "3a:1f.7 0002:00:00.0");
    EXPECT_EQ(kernel::name_of({0x01, 0x06, 0x01}), "SATA controller");
    EXPECT_EQ(kernel::name_of({0x01, 0x55, 0}), "storage controller");
    EXPECT_EQ(kernel::name_of({0x77, 0, 0}), "device of an unknown class");
    EXPECT_EQ(kernel::name_of({0x12, 0, 0}), "processing accelerator");
}

} // namespace
