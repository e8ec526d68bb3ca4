// SPDX-License-Identifier: MIT
// PCI for guests: configuration space, BARs and their windows, interrupts by pin and by message.
#include <platform/pci_host.hpp>

#include <fakes/fake_host.hpp>
#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::PciFunction;
using platform::PciHost;
using platform::Space;

constexpr u32 COMMAND = 0x04, BAR0 = 0x10, BAR1 = 0x14, BAR2 = 0x18, BAR3 = 0x1c, IO = 1, MEMORY = 2, BUS_MASTER = 4,
              NO_INTX = 0x400;

// A function with a BAR of each kind, MSI-X in the last, and a pin.
class FakeDevice final : public platform::Device {
public:
    explicit FakeDevice(platform::Host& host, u32 vectors = 4) : msix(host, vectors) {
        function.add_bar(0, PciFunction::BarKind::Io, 0x40);
        function.add_bar(1, PciFunction::BarKind::Memory32, 0x1000);
        function.add_bar(2, PciFunction::BarKind::Memory64, 0x4000);
        function.add_interrupt_pin();
        u8 const vendor_specific[] = {6, 0x12, 0x34, 0x56};
        function.add_capability(0x09, vendor_specific);
        function.add_msix(msix, 2, 0x1000, 0x2000);
    }
    platform::IoReply io(platform::IoRequest const& request) override {
        requests.push_back(request);
        return {0x1111'0000U * request.region + request.offset};
    }
    void on(platform::Event const&) override {}
    void reset() override { function.reset(); }
    platform::MsixTable msix;
    PciFunction function{{0x1af4, 0x1044, 0x0880'00, 1, 0x1af4, 0x44}};
    std::vector<platform::IoRequest> requests;
};

struct PciTest : testing::Test {
    static constexpr u32 slot = 3;
    fakes::FakeHost host;
    std::unique_ptr<PciHost> pci = std::make_unique<PciHost>(host.plug());
    FakeDevice device{host};
    void SetUp() override { ASSERT_TRUE(pci->plug_in(slot, device.function, device)); }

    u32 read(u32 in_slot, u32 offset, u8 size = 4) {
        u64 const data = pci->io({u64{in_slot} << 15 | offset, 0, PciHost::Ecam, size, Op::Read, 0}).data;
        return static_cast<u32>(size == 4 ? data : data & ((1U << size * 8) - 1));
    }
    void write(u32 in_slot, u32 offset, u32 value, u8 size = 4) {
        pci->io({u64{in_slot} << 15 | offset, value, PciHost::Ecam, size, Op::Write, 0});
    }
    u32 get(u32 offset) { return read(slot, offset); }
    void set(u32 offset, u32 value) { write(slot, offset, value); }
    // Whether a read at this address reaches the device.
    bool answers(Space space, u64 address, u8 size = 4) {
        for (platform::Region const& region : pci->regions) {
            if (region.space != space || address - region.base >= region.size) continue;
            std::size_t const before = device.requests.size();
            pci->io({address - region.base, 0, region.number, size, Op::Read, 0});
            if (device.requests.size() != before) return true;
        }
        return false;
    }
};

TEST_F(PciTest, SlotsWithoutAFunctionReadAsOnes) {
    EXPECT_EQ(read(0, 0), 0x29c0'8086U);
    EXPECT_EQ(read(31, 0), 0x2918'8086U);
    for (u32 empty = 0; empty < 32; empty++)
        if (empty != 0 && empty != slot && empty != 31) EXPECT_EQ(read(empty, 0), ~0U) << empty;
    EXPECT_EQ(pci->io({1 << 12, 0, PciHost::Ecam, 4, Op::Read, 0}).data, ~u64{0}) << "function 1";
    EXPECT_EQ(pci->io({1 << 20, 0, PciHost::Ecam, 4, Op::Read, 0}).data, ~u64{0}) << "bus 1";
    write(5, COMMAND, ~0U); // nobody there
    EXPECT_EQ(read(5, COMMAND), ~0U);
}

TEST_F(PciTest, TheBridgesSayWhatQ35Says) {
    EXPECT_EQ(read(0, 8), 0x0600'0002U);
    EXPECT_EQ(read(0, 0x60), 0xe000'0005U) << "64 MiB of configuration space, on";
    EXPECT_EQ(read(31, 8), 0x0601'0002U);
    EXPECT_EQ(read(31, 0x40), 0x601U) << "ACPI registers";
    EXPECT_EQ(read(31, 0x44), 0x80U);
}

TEST_F(PciTest, OnlyWhatIsWritableChanges) {
    std::vector<u32> before;
    for (u32 offset = 0; offset < 0x1000; offset += 4)
        before.push_back(read(0, offset));
    for (u32 offset = 0; offset < 0x1000; offset += 4)
        write(0, offset, ~0U);
    for (u32 offset = 0; offset < 0x1000; offset += 4) {
        u32 const writable = offset == 0x0c || offset == 0x3c ? 0xff : 0; // cache line size, interrupt line
        EXPECT_EQ(read(0, offset), before[offset / 4] | writable) << std::hex << offset;
    }
}

TEST_F(PciTest, BytesAndWordsReachTheirRegisterAlone) {
    write(slot, 0x3c, 0x0b, 1);
    EXPECT_EQ(get(0x3c), 0x010bU);
    write(slot, 0x3d, 0xff, 1); // the pin
    EXPECT_EQ(get(0x3c), 0x010bU);
    write(slot, 0x12, 0xc000, 2); // upper half of BAR 0
    EXPECT_EQ(get(BAR0), 0xc000'0001U);
    // Across two registers, and over the end of the function.
    EXPECT_EQ(read(slot, 0x02), 0x0000'1044U);
    write(slot, 0x0f, 0x1234'5600, 4);
    EXPECT_EQ(get(BAR0), 0xc012'3441U & ~0x3fU | 1) << "three bytes of it";
    EXPECT_EQ(read(slot, 0xffe), 0U);
    write(slot, 0xffe, ~0U);
    EXPECT_EQ(read(4, 0), ~0U);
}

TEST_F(PciTest, OnesWrittenToABarShowItsSize) {
    for (u32 const bar : {BAR0, BAR1, BAR2, BAR3})
        set(bar, ~0U);
    EXPECT_EQ(get(BAR0), 0xffff'ffc1U);
    EXPECT_EQ(get(BAR1), 0xffff'f000U);
    EXPECT_EQ(get(BAR2), 0xffff'c004U);
    EXPECT_EQ(get(BAR3), 0xffff'ffffU);
    set(0x20, ~0U); // no BAR
    EXPECT_EQ(get(0x20), 0U);
    set(0x30, ~0U); // no ROM
    EXPECT_EQ(get(0x30), 0U);
}

TEST_F(PciTest, ABarAnswersWhereItIsAndOnlyWhenTheCommandRegisterLetsIt) {
    set(BAR0, 0xc000);
    set(BAR1, 0xc100'0000);
    set(BAR2, 0x4000'0000);
    set(BAR3, 1); // 5 GiB
    EXPECT_FALSE(answers(Space::Pio, 0xc000));
    set(COMMAND, IO);
    EXPECT_TRUE(answers(Space::Pio, 0xc000));
    EXPECT_TRUE(answers(Space::Pio, 0xc03f, 1));
    EXPECT_FALSE(answers(Space::Pio, 0xc040, 1));
    EXPECT_FALSE(answers(Space::Pio, 0xc03f, 2)) << "over its end";
    EXPECT_FALSE(answers(Space::Mmio, 0xc100'0000));
    set(COMMAND, MEMORY);
    EXPECT_FALSE(answers(Space::Pio, 0xc000));
    EXPECT_TRUE(answers(Space::Mmio, 0xc100'0ffc));
    EXPECT_FALSE(answers(Space::Mmio, 0xc100'1000));
    EXPECT_TRUE(answers(Space::Mmio, 0x1'4000'0000, 8));
    EXPECT_EQ(device.requests.back().region, 2U);
    EXPECT_EQ(device.requests.back().size, 8U);
    set(BAR1, 0xd000'0000);
    EXPECT_FALSE(answers(Space::Mmio, 0xc100'0ffc));
    EXPECT_TRUE(answers(Space::Mmio, 0xd000'0000));
}

TEST_F(PciTest, ABarOutsideOfTheWindowsIsNotDecoded) {
    set(COMMAND, IO | MEMORY);
    // RAM, the end of a window, ECAM, I/O APIC, HPET, local APIC, the top of the address space.
    for (u32 const base :
         {0U, 0x0010'0000U, 0xbfff'f000U, 0xe000'0000U, 0xfec0'0000U, 0xfed0'0000U, 0xfee0'0000U, ~0U}) {
        set(BAR1, base);
        EXPECT_FALSE(answers(Space::Mmio, get(BAR1))) << std::hex << base;
    }
    set(BAR1, 0xdfff'f000);
    EXPECT_TRUE(answers(Space::Mmio, 0xdfff'f000));
    for (auto const& [low, high] : {std::pair{0U, 0U}, {0xffff'c000U, 0U}, {0U, 5U}, {~0U, ~0U}, {0U, 0x80U}}) {
        set(BAR2, low);
        set(BAR3, high);
        EXPECT_FALSE(answers(Space::Mmio, u64{high} << 32 | (low & ~0xfU))) << std::hex << high << ' ' << low;
    }
    for (u32 const port : {0U, 0x600U, 0xcc0U, 0xfc0U, 0x1'0000U}) {
        set(BAR0, port);
        EXPECT_FALSE(answers(Space::Pio, port)) << std::hex << port;
    }
    EXPECT_EQ(pci->io({0, 0, PciHost::LowWindow, 4, Op::Read, 0}).data, ~u64{0});
    EXPECT_EQ(pci->io({0, 0, PciHost::PortWindow, 4, Op::Read, 0}).data, ~u64{0});
    set(BAR0, 0xffc0);
    EXPECT_TRUE(answers(Space::Pio, 0xffc0));
}

TEST_F(PciTest, ThereIsNoHighWindowWhereAddressesEndBeforeIt) {
    EXPECT_EQ(pci->regions.size(), 6U);
    host.facts.physical_address_bits = 36;
    host.facts.ram_above_4g = 56 * lib::GiB;
    EXPECT_EQ(PciHost(host.plug()).regions.size(), 5U);
    for (u64 ram = 0; ram < 20 * lib::GiB; ram += 512 * lib::MiB) {
        auto const window = lib::layout::pci_high_window(ram, 40);
        EXPECT_GE(window.base, 4 * lib::GiB + ram);
        EXPECT_EQ(window.base % lib::GiB, 0U);
    }
}

TEST_F(PciTest, TheLowerSlotWinsWhereBarsOverlap) {
    FakeDevice other{host};
    ASSERT_TRUE(pci->plug_in(4, other.function, other));
    for (u32 const in_slot : {slot, slot + 1}) {
        write(in_slot, BAR1, 0xc000'0000);
        write(in_slot, COMMAND, MEMORY);
    }
    EXPECT_TRUE(answers(Space::Mmio, 0xc000'0000));
    EXPECT_TRUE(other.requests.empty());
    set(COMMAND, 0);
    EXPECT_FALSE(answers(Space::Mmio, 0xc000'0000));
    EXPECT_EQ(other.requests.size(), 1U);
}

TEST_F(PciTest, RefusesATakenSlotAndTooManyBars) {
    FakeDevice other{host};
    EXPECT_EQ(pci->plug_in(slot, other.function, other).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(pci->plug_in(0, other.function, other).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(pci->plug_in(32, other.function, other).error(), lib::Errc::OutOfRange);
    std::vector<std::unique_ptr<FakeDevice>> more;
    auto const plug_in = [&](u32 into) {
        more.push_back(std::make_unique<FakeDevice>(host));
        return pci->plug_in(into, more.back()->function, *more.back());
    };
    for (u32 into = 4; into < 24; into++)
        ASSERT_TRUE(plug_in(into)) << into; // 21 functions with 3 BARs
    EXPECT_EQ(plug_in(24).error(), lib::Errc::NoMemory);
}

TEST_F(PciTest, CapabilitiesAreAList) {
    EXPECT_EQ(get(COMMAND) >> 16, 0x10U);
    u32 at = get(0x34) & 0xff;
    ASSERT_EQ(at, 0x40U);
    EXPECT_EQ(get(at) & 0xff, 0x09U);
    at = get(at) >> 8 & 0xff;
    EXPECT_EQ(get(at), 0x0003'0011U) << "MSI-X, four vectors, the last capability";
    EXPECT_EQ(get(at + 4), 0x1002U);
    EXPECT_EQ(get(at + 8), 0x2002U);
    set(0x40, ~0U);
    EXPECT_EQ(get(0x40), 0x1206'4809U);
}

TEST_F(PciTest, ThePinIsSharedAndCanBeTurnedOff) {
    constexpr u32 gsi = 16 + slot % 4;
    FakeDevice other{host};
    ASSERT_TRUE(pci->plug_in(slot + 4, other.function, other));
    device.function.set_interrupt(true);
    EXPECT_TRUE(host.line(gsi));
    EXPECT_EQ(get(COMMAND) >> 16, 0x18U) << "interrupt status";
    other.function.set_interrupt(true);
    device.function.set_interrupt(false);
    EXPECT_TRUE(host.line(gsi)) << "the other still holds it";
    write(slot + 4, COMMAND, NO_INTX);
    EXPECT_FALSE(host.line(gsi));
    EXPECT_EQ(read(slot + 4, COMMAND) >> 16, 0x18U);
    write(slot + 4, COMMAND, 0);
    EXPECT_TRUE(host.line(gsi));
    other.reset();
    EXPECT_FALSE(host.line(gsi));
}

struct MsixTest : PciTest {
    static constexpr u32 capability = 0x48, ENABLE = 1U << 31, FUNCTION_MASK = 1 << 30;
    void table(u64 offset, u64 value, u8 size = 4) { device.msix.table_io({offset, value, 0, size, Op::Write, 0}); }
    u64 entry(u64 offset, u8 size = 4) { return device.msix.table_io({offset, 0, 0, size, Op::Read, 0}).data; }
    u64 pending() { return device.msix.pending_io({0, 0, 0, 8, Op::Read, 0}).data; }
    void open(u32 vector, u32 data) {
        table(vector * 16, 0xfee0'0000);
        table(vector * 16 + 8, data);
        table(vector * 16 + 12, 0);
    }
};

TEST_F(MsixTest, SendsTheMessageOfAnOpenVector) {
    device.msix.raise(1);
    set(COMMAND, BUS_MASTER);
    set(capability, ENABLE);
    EXPECT_TRUE(host.messages.empty()) << "what was raised while it was off is gone";
    open(1, 0x41);
    device.msix.raise(1);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].address, 0xfee0'0000U);
    EXPECT_EQ(host.messages[0].data, 0x41U);
    device.msix.raise(4); // there is none
    device.msix.raise(~0U);
    EXPECT_EQ(host.messages.size(), 1U);
}

TEST_F(MsixTest, WhatAMaskHoldsBackIsSentOnceWhenItOpens) {
    set(COMMAND, BUS_MASTER);
    set(capability, ENABLE | FUNCTION_MASK);
    open(0, 0x50);
    table(16, 0xfee0'1000);
    table(24, 0x51); // stays masked, as after reset
    for (u32 times = 0; times < 3; times++) {
        device.msix.raise(0);
        device.msix.raise(1);
    }
    EXPECT_EQ(pending(), 3U);
    EXPECT_TRUE(host.messages.empty());
    set(capability, ENABLE);
    ASSERT_EQ(host.messages.size(), 1U);
    EXPECT_EQ(host.messages[0].data, 0x50U);
    EXPECT_EQ(pending(), 2U);
    table(28, 0);
    ASSERT_EQ(host.messages.size(), 2U);
    EXPECT_EQ(host.messages[1].address, 0xfee0'1000U);
    EXPECT_EQ(pending(), 0U);
}

TEST_F(MsixTest, WithoutTheRightToWriteToMemoryAMessageWaits) {
    set(capability, ENABLE);
    open(0, 0x60);
    device.msix.raise(0);
    EXPECT_TRUE(host.messages.empty());
    set(COMMAND, BUS_MASTER);
    EXPECT_EQ(host.messages.size(), 1U);
}

TEST_F(MsixTest, TheTableTakesDwordsAndQuadwordsAndKeepsToItsEnd) {
    table(0, 0x1234'5678'fee0'0003, 8);
    EXPECT_EQ(entry(0, 8), 0x1234'5678'fee0'0000U);
    EXPECT_EQ(static_cast<u32>(entry(4)), 0x1234'5678U);
    table(0, 0xff, 1);
    EXPECT_EQ(entry(0, 8), 0x1234'5678'fee0'0000U);
    EXPECT_EQ(entry(1, 4), ~u64{0});
    table(12, ~0U);
    EXPECT_EQ(entry(12) & 0xffff'ffff, 1U);
    for (u64 const beyond : {u64{64}, u64{60} + 1000, ~u64{0} - 7}) {
        table(beyond, 0, 8);
        EXPECT_EQ(entry(beyond, 8), ~u64{0});
    }
    device.msix.pending_io({0, ~u64{0}, 0, 8, Op::Write, 0});
    EXPECT_EQ(pending(), 0U);
    EXPECT_EQ(device.msix.pending_io({4096, 0, 0, 4, Op::Read, 0}).data, 0U);
}

TEST_F(MsixTest, StateComesBackAndWhatCannotBeIsRefused) {
    set(COMMAND, BUS_MASTER);
    set(capability, ENABLE);
    open(0, 0x70);
    device.msix.raise(2);
    set(BAR1, 0xc123'4000);
    auto const registers = device.function.save();
    auto const vectors = device.msix.save();
    device.reset();
    EXPECT_NE(get(BAR1), 0xc123'4000U);
    ASSERT_TRUE(device.msix.restore(vectors));
    ASSERT_TRUE(device.function.restore(registers));
    EXPECT_EQ(get(BAR1), 0xc123'4000U);
    EXPECT_EQ(pending(), 4U);
    device.msix.raise(0);
    EXPECT_EQ(host.messages.size(), 1U);

    auto other = registers;
    other.registers[0] ^= 1;
    EXPECT_FALSE(device.function.restore(other));
    auto wrong = vectors;
    wrong.pending = 0x10; // of a vector that is not there
    EXPECT_FALSE(device.msix.restore(wrong));
    wrong = vectors;
    wrong.entries[0].control = 2;
    EXPECT_FALSE(device.msix.restore(wrong));
}

} // namespace
