// SPDX-License-Identifier: MIT
#include <drivers/acpi.hpp>

#include "acpi_builder.hpp"

#include <gtest/gtest.h>

namespace {

using namespace drivers_test;
using drivers::AcpiInfo;
using drivers::AcpiRegister;

Bytes aml_s5(Bytes const& package, bool with_root = false) {
    Bytes aml;
    aml.put(u8{0x10}).put(u8{0x05}).put(u32{0x5f53425f}); // something before it
    aml.put(u8{0x08});
    if (with_root) aml.put(u8{'\\'});
    aml.put(u32{0x5f35535f}).put(u8{0x12});
    aml.insert(aml.end(), package.begin(), package.end());
    return aml;
}

Bytes gas(u8 space, u8 width, u64 address) {
    Bytes bytes;
    bytes.put(space).put(width).put(u8{0}).put(u8{0}).put(address);
    return bytes;
}

struct Machine {
    Memory memory;
    std::vector<u64> tables;
    AcpiInfo info;
    void add(char const* signature, u8 revision, Bytes const& body) {
        tables.push_back(memory.add(table(signature, revision, body)));
    }
    lib::Result<void> read() { return drivers::read_acpi(memory.xsdt(tables), memory.map(), info); }
};

TEST(AcpiRsdp, ReadsBothRevisions) {
    auto const old = drivers::parse_rsdp(rsdp_bytes(0, 0x7fe1'0000, 0));
    ASSERT_TRUE(old);
    EXPECT_EQ(old->rsdt, 0x7fe1'0000U);
    EXPECT_EQ(old->xsdt, 0U);
    auto const current = drivers::parse_rsdp(rsdp_bytes(2, 0x7fe1'0000, 0x1'7fe2'0000));
    ASSERT_TRUE(current);
    EXPECT_EQ(current->xsdt, 0x1'7fe2'0000U);
}

TEST(AcpiRsdp, FallsBackToTheRsdtWhenTheSecondHalfIsBroken) {
    auto bytes = rsdp_bytes(2, 0x1000, 0x2000);
    bytes[24] ^= 1;
    EXPECT_EQ(drivers::parse_rsdp(bytes)->xsdt, 0U);
    bytes = rsdp_bytes(2, 0x1000, 0x2000);
    bytes.resize(35);
    EXPECT_EQ(drivers::parse_rsdp(bytes)->xsdt, 0U);
}

TEST(AcpiRsdp, RefusesWhatIsNone) {
    auto bytes = rsdp_bytes(0, 0x1000, 0);
    bytes[16] ^= 1;
    EXPECT_FALSE(drivers::parse_rsdp(bytes));
    bytes = rsdp_bytes(0, 0x1000, 0);
    bytes.resize(19);
    EXPECT_FALSE(drivers::parse_rsdp(bytes));
    EXPECT_FALSE(drivers::parse_rsdp(rsdp_bytes(0, 0, 0)));
}

TEST(AcpiRsdp, IsFoundInTheEbda) {
    Memory memory;
    memory.place(0x40e, Bytes().put(u16{0x9fc0}));
    memory.place(0x9fc00, Bytes(1024));
    auto const rsdp = rsdp_bytes(0, 0x1234'0000, 0);
    std::copy(rsdp.begin(), rsdp.end(), memory.at(0x9fc00).begin() + 0x40);
    EXPECT_EQ(drivers::find_rsdp(memory.map())->rsdt, 0x1234'0000U);
}

TEST(AcpiRsdp, IsFoundInTheBiosAreaOnly16ByteAligned) {
    Memory memory;
    memory.place(0xe0000, Bytes(0x20000));
    auto const wrong = rsdp_bytes(0, 0xbad, 0);
    auto const right = rsdp_bytes(0, 0x600d, 0);
    std::copy(wrong.begin(), wrong.end(), memory.at(0xe0000).begin() + 8);
    std::copy(right.begin(), right.end(), memory.at(0xe0000).begin() + 0x1ffe0);
    EXPECT_EQ(drivers::find_rsdp(memory.map())->rsdt, 0x600dU);
}

TEST(AcpiRsdp, IsNotFoundInUnreadableMemory) {
    Memory memory;
    EXPECT_EQ(drivers::find_rsdp(memory.map()).error(), lib::Errc::NotFound);
}

TEST(Acpi, ReadsAMadt) {
    Machine machine;
    Bytes body;
    body.put(u32{0xfee0'0000}).put(u32{1});
    body.put(u8{0}).put(u8{8}).put(u8{1}).put(u8{0}).put(u32{1});                            // CPU, enabled
    body.put(u8{0}).put(u8{8}).put(u8{2}).put(u8{4}).put(u32{2});                            // CPU, online capable
    body.put(u8{0}).put(u8{8}).put(u8{3}).put(u8{6}).put(u32{0});                            // CPU, disabled
    body.put(u8{9}).put(u8{16}).put(u16{0}).put(u32{0x1'0001}).put(u32{1}).put(u32{77});     // x2APIC CPU
    body.put(u8{9}).put(u8{16}).put(u16{0}).put(u32{4}).put(u32{1}).put(u32{2});             // the second one again
    body.put(u8{1}).put(u8{12}).put(u8{9}).put(u8{0}).put(u32{0xfec0'0000}).put(u32{24});    // IOAPIC
    body.put(u8{2}).put(u8{10}).put(u8{0}).put(u8{0}).put(u32{2}).put(u16{0});               // IRQ 0 on GSI 2
    body.put(u8{2}).put(u8{10}).put(u8{0}).put(u8{9}).put(u32{9}).put(u16{0xf});             // IRQ 9 low, level
    body.put(u8{4}).put(u8{6}).put(u8{0xff}).put(u16{5}).put(u8{1});                         // LINT1 of all is NMI
    body.put(u8{10}).put(u8{12}).put(u16{0}).put(u32{77}).put(u8{0}).put(u8{0}).put(u16{0}); // LINT0 of one is NMI
    body.put(u8{5}).put(u8{12}).put(u16{0}).put(u64{0x1'fee0'0000});                         // local APIC elsewhere
    machine.add("APIC", 3, body);
    ASSERT_TRUE(machine.read());
    auto const& info = machine.info;
    ASSERT_EQ(info.cpus.size(), 3U);
    EXPECT_TRUE(info.cpus[0].is_enabled);
    EXPECT_EQ(info.cpus[1].apic_id, 4U);
    EXPECT_FALSE(info.cpus[1].is_enabled);
    EXPECT_EQ(info.cpus[2].apic_id, 0x1'0001U);
    EXPECT_EQ(info.cpus[2].acpi_uid, 77U);
    EXPECT_EQ(info.cpus[2].domain, drivers::AcpiCpu::no_domain);
    EXPECT_EQ(info.disabled_cpus, 1U);
    ASSERT_EQ(info.ioapics.size(), 1U);
    EXPECT_EQ(info.ioapics[0].id, 9);
    EXPECT_EQ(info.ioapics[0].gsi_base, 24U);
    EXPECT_EQ(info.isa_irq(0).gsi, 2U);
    EXPECT_EQ(info.isa_irq(9).shape, (drivers::InterruptShape{true, true}));
    EXPECT_EQ(info.isa_irq(4).gsi, 4U);
    EXPECT_EQ(info.isa_irq(4).shape, drivers::InterruptShape{});
    EXPECT_EQ(info.local_apic.value, 0x1'fee0'0000U);
    EXPECT_TRUE(info.has_dual_8259);
    EXPECT_TRUE(info.find("APIC"));
    EXPECT_FALSE(info.find("DMAR"));
}

TEST(Acpi, StopsAtAMadtEntryThatIsTooLongOrEmpty) {
    for (u8 const length : {u8{0}, u8{1}, u8{9}}) {
        Machine machine;
        Bytes body;
        body.put(u32{0}).put(u32{0}).put(u8{0}).put(u8{8}).put(u8{1}).put(u8{0}).put(u32{1});
        body.put(u8{0}).put(length).put(u8{2}).put(u8{1}).put(u32{1});
        machine.add("APIC", 1, body);
        ASSERT_TRUE(machine.read());
        EXPECT_EQ(machine.info.cpus.size(), 1U);
    }
}

TEST(Acpi, CountsCpusThatDoNotFit) {
    Machine machine;
    Bytes body;
    body.put(u32{0}).put(u32{0});
    for (u32 i = 0; i < 520; i++)
        body.put(u8{9}).put(u8{16}).put(u16{0}).put(i).put(u32{1}).put(i);
    machine.add("APIC", 4, body);
    ASSERT_TRUE(machine.read());
    EXPECT_EQ(machine.info.cpus.size(), 512U);
    EXPECT_EQ(machine.info.dropped_entries, 8U);
}

// The 116 bytes of ACPI 1.0, as Bochs has it.
Bytes fadt_1(u32 dsdt) {
    Bytes bytes(80);
    auto const set = [&](std::size_t at, auto value) { bytes.set(at - 36, value); };
    set(40, dsdt);
    set(46, u16{9});
    set(48, u32{0xb2});
    set(52, u8{0xf1});
    set(56, u32{0xb000});
    set(64, u32{0xb004});
    set(76, u32{0xb008});
    set(88, u8{4});
    set(89, u8{2});
    set(91, u8{4});
    set(108, u8{0x32});
    return bytes;
}

TEST(Acpi, ReadsAFadtOfAcpi1) {
    Machine machine;
    Bytes const aml = aml_s5(Bytes().put(u8{0x06}).put(u8{4}).put(u32{0}));
    auto const dsdt = static_cast<u32>(machine.memory.add(table("DSDT", 1, aml)));
    machine.tables.push_back(machine.memory.add(table("FACP", 1, fadt_1(dsdt))));
    ASSERT_TRUE(drivers::read_acpi(machine.memory.rsdt(machine.tables), machine.memory.map(), machine.info));
    auto const& fadt = machine.info.fadt;
    EXPECT_TRUE(fadt.is_present);
    EXPECT_EQ(fadt.sci, 9);
    EXPECT_EQ(fadt.smi_command, 0xb2U);
    EXPECT_EQ(fadt.acpi_enable, 0xf1);
    EXPECT_EQ(fadt.pm1a_control.address, 0xb004U);
    EXPECT_EQ(fadt.pm1a_control.bit_width, 16);
    EXPECT_FALSE(fadt.pm1b_control.is_present());
    EXPECT_EQ(fadt.pm_timer.address, 0xb008U);
    EXPECT_FALSE(fadt.pm_timer_is_32_bit);
    EXPECT_FALSE(fadt.reset.is_present());
    EXPECT_EQ(fadt.century_register, 0x32);
    ASSERT_TRUE(machine.info.s5);
    EXPECT_EQ(machine.info.s5->pm1a, 0);
}

TEST(Acpi, PrefersTheExtendedFieldsOfALaterFadt) {
    Machine machine;
    Bytes body = fadt_1(0xdead'0000);
    auto const set = [&](std::size_t at, auto value) { body.set(at - 36, value); };
    auto const set_gas = [&](std::size_t at, Bytes const& value) {
        for (std::size_t i = 0; i < value.size(); i++)
            set(at + i, value[i]);
    };
    set(275, u8{0});
    set(109, u16{0x0024});
    set(112, u32{1U << 8 | 1U << 10});
    set_gas(116, gas(1, 8, 0xcf9));
    set(128, u8{6});
    set(140,
        machine.memory.add(table(
            "DSDT", 2, aml_s5(Bytes().put(u8{0x08}).put(u8{2}).put(u8{0x0a}).put(u8{5}).put(u8{0x0a}).put(u8{7})))));
    set_gas(172, gas(1, 16, 0x1804));
    set_gas(208, gas(0, 32, 0xfed8'0808));
    machine.add("FACP", 6, body);
    ASSERT_TRUE(machine.read());
    auto const& fadt = machine.info.fadt;
    EXPECT_EQ(fadt.pm1a_control.address, 0x1804U);
    EXPECT_EQ(fadt.pm1a_event.address, 0xb000U);
    EXPECT_EQ(fadt.pm_timer.space, AcpiRegister::Space::SystemMemory);
    EXPECT_TRUE(fadt.pm_timer_is_32_bit);
    EXPECT_EQ(fadt.reset.address, 0xcf9U);
    EXPECT_EQ(fadt.reset_value, 6);
    EXPECT_TRUE(fadt.has_no_vga && fadt.has_no_rtc);
    ASSERT_TRUE(machine.info.s5);
    EXPECT_EQ(machine.info.s5->pm1a, 5);
    EXPECT_EQ(machine.info.s5->pm1b, 7);
}

TEST(Acpi, HasNoResetRegisterWithoutItsFlag) {
    Machine machine;
    Bytes body = fadt_1(0);
    body.set(116 - 36, u8{1}).set(120 - 36, u64{0xcf9}).set(132 - 36, u64{0});
    machine.add("FACP", 3, body);
    ASSERT_TRUE(machine.read());
    EXPECT_FALSE(machine.info.fadt.reset.is_present());
}

TEST(Acpi, FindsS5InAnSsdt) {
    Machine machine;
    machine.add("SSDT", 1, Bytes().zeros(20));
    machine.add("SSDT", 1, aml_s5(Bytes().put(u8{0x06}).put(u8{4}).put(u8{1}).put(u8{0}), true));
    ASSERT_TRUE(machine.read());
    ASSERT_TRUE(machine.info.s5);
    EXPECT_EQ(machine.info.s5->pm1a, 1);
    EXPECT_EQ(machine.info.s5->pm1b, 0);
}

TEST(AcpiS5, UnderstandsLongPackageLengthsAndWords) {
    Bytes package;
    package.put(u8{0x4a}).put(u8{0}).put(u8{4}).put(u8{0x0b}).put(u16{3}).put(u8{0x0c}).put(u32{2});
    auto const found = drivers::find_s5(aml_s5(package));
    ASSERT_TRUE(found);
    EXPECT_EQ(found->pm1a, 3);
    EXPECT_EQ(found->pm1b, 2);
}

TEST(AcpiS5, UsesOneElementForBoth) {
    EXPECT_EQ(drivers::find_s5(aml_s5(Bytes().put(u8{4}).put(u8{1}).put(u8{1})))->pm1b, 1);
}

TEST(AcpiS5, RefusesWhatIsNoConstantPackage) {
    EXPECT_FALSE(drivers::find_s5(aml_s5(Bytes().put(u8{4}).put(u8{0}).put(u8{1}))));               // no elements
    EXPECT_FALSE(drivers::find_s5(aml_s5(Bytes().put(u8{4}).put(u8{1}).put(u8{0x0a}).put(u8{8})))); // not three bits
    EXPECT_FALSE(drivers::find_s5(aml_s5(Bytes().put(u8{4}).put(u8{1}).put(u8{0x70}))));            // a method call
    EXPECT_FALSE(drivers::find_s5(aml_s5(Bytes().put(u8{4}).put(u8{1}).put(u8{0x0c}))));            // cut off
    EXPECT_FALSE(drivers::find_s5(Bytes().put(u32{0x5f35535f}).put(u32{0x0104'0612})));             // no NameOp
    EXPECT_FALSE(drivers::find_s5({}));
}

TEST(Acpi, ReadsHpetMcfgAndSpcr) {
    Machine machine;
    Bytes hpet;
    hpet.put(u32{0x8086'a201});
    Bytes const base = gas(0, 64, 0xfed0'0000);
    hpet.insert(hpet.end(), base.begin(), base.end());
    machine.add("HPET", 1, hpet.put(u8{0}).put(u16{0x80}).put(u8{0}));
    Bytes mcfg(8);
    mcfg.put(u64{0xb000'0000}).put(u16{0}).put(u8{0}).put(u8{255}).put(u32{0});
    mcfg.put(u64{0xc000'0000}).put(u16{1}).put(u8{4}).put(u8{3}).put(u32{0}); // last bus before the first
    machine.add("MCFG", 1, mcfg);
    Bytes spcr(4);
    Bytes const uart = gas(1, 8, 0x3f8);
    spcr.insert(spcr.end(), uart.begin(), uart.end());
    machine.add("SPCR", 2, spcr.put(u8{1}).put(u8{4}).put(u32{0}).put(u32{0}));
    ASSERT_TRUE(machine.read());
    EXPECT_EQ(machine.info.hpet.address.value, 0xfed0'0000U);
    EXPECT_EQ(machine.info.hpet.minimum_tick, 0x80);
    ASSERT_EQ(machine.info.ecams.size(), 1U);
    EXPECT_EQ(machine.info.ecams[0].base.value, 0xb000'0000U);
    EXPECT_EQ(machine.info.ecams[0].last_bus, 255);
    ASSERT_TRUE(machine.info.console);
    EXPECT_EQ(machine.info.console->registers.address, 0x3f8U);
    EXPECT_EQ(machine.info.console->irq, 4);
    EXPECT_FALSE(machine.info.opts_out_of_x2apic);
}

TEST(Acpi, ReadsAConsoleInMemoryAndOnlyOnesThatAreUarts) {
    auto const read = [](u8 kind, u8 space, u8 access_size, u64 address, u8 interrupts) {
        Machine machine;
        Bytes spcr(0);
        spcr.put(kind).put(u8{0}).put(u16{0}).put(space).put(u8{32}).put(u8{0}).put(access_size).put(address);
        machine.add("SPCR", 4, spcr.put(interrupts).put(u8{3}).put(u32{40}).put(u32{0}));
        EXPECT_TRUE(machine.read());
        return machine.info.console;
    };
    auto const console = read(0x12, 0, 3, 0xfe03'4000, 2);
    ASSERT_TRUE(console);
    EXPECT_EQ(console->registers.space, drivers::AcpiRegister::Space::SystemMemory);
    EXPECT_EQ(console->stride, 4);
    EXPECT_EQ(console->gsi, 40U);
    EXPECT_EQ(read(0, 0, 1, 0xfe03'4000, 0)->stride, 1);
    EXPECT_FALSE(read(0, 0, 1, 0xfe03'4000, 0)->gsi) << "polled";
    EXPECT_EQ(read(0, 0, 128, 0xfe03'4000, 0)->stride, 4) << "there is no such access size: the width counts";
    EXPECT_EQ(read(1, 1, 1, 0xd080, 1)->irq, 3);
    EXPECT_FALSE(read(3, 0, 3, 0xfe03'4000, 2)) << "a PL011";
    EXPECT_FALSE(read(0, 1, 1, 0x1'0000, 2)) << "no port";
    EXPECT_FALSE(read(0, 0, 1, 0, 2)) << "console redirection is off";
}

TEST(Acpi, ReadsWhetherFirmwareOptsOutOfX2Apic) {
    Machine machine;
    Bytes dmar;
    machine.add("DMAR", 1, dmar.put(u8{38}).put(u8{3}).put(u64{0}).put(u16{0}));
    ASSERT_TRUE(machine.read());
    EXPECT_TRUE(machine.info.opts_out_of_x2apic);
}

TEST(Acpi, GivesCpusAndMemoryTheirDomains) {
    Machine machine;
    Bytes srat(12);
    srat.put(u8{0}).put(u8{16}).put(u8{0x34}).put(u8{2}).put(u32{1}).put(u8{0}).put(u8{0x12}).put(u16{0}).put(u32{0});
    srat.put(u8{2}).put(u8{24}).put(u16{0}).put(u32{7}).put(u32{300}).put(u32{1}).put(u32{0}).put(u32{0});
    srat.put(u8{1})
        .put(u8{40})
        .put(u32{7})
        .put(u16{0})
        .put(u64{0x1'0000'0000})
        .put(u64{0x4000'0000})
        .put(u32{0})
        .put(u32{3})
        .put(u64{0});
    srat.put(u8{1})
        .put(u8{40})
        .put(u32{7})
        .put(u16{0})
        .put(u64{0})
        .put(u64{0x1000})
        .put(u32{0})
        .put(u32{0})
        .put(u64{0}); // not enabled
    machine.add("SRAT", 3, srat);
    Bytes madt(8);
    madt.put(u8{0}).put(u8{8}).put(u8{1}).put(u8{2}).put(u32{1});
    madt.put(u8{9}).put(u8{16}).put(u16{0}).put(u32{300}).put(u32{1}).put(u32{1});
    machine.add("APIC", 3, madt); // behind the SRAT, on purpose
    ASSERT_TRUE(machine.read());
    EXPECT_EQ(machine.info.cpus[0].domain, 0x1234U);
    EXPECT_EQ(machine.info.cpus[1].domain, 7U);
    ASSERT_EQ(machine.info.memory.size(), 1U);
    EXPECT_EQ(machine.info.memory[0].base.value, 0x1'0000'0000U);
    EXPECT_TRUE(machine.info.memory[0].is_hot_pluggable);
}

TEST(Acpi, RejectsTablesThatAreNotSound) {
    Machine machine;
    machine.add("APIC", 1, Bytes(8));
    machine.memory.at(machine.tables.back())[40] ^= 1; // checksum
    machine.add("HPET", 1, Bytes(8));
    machine.memory.at(machine.tables.back()).set(4, u32{35}); // shorter than a header
    machine.add("MCFG", 1, Bytes(8));
    machine.memory.at(machine.tables.back()).set(4, u32{0xffff'ffff});
    machine.tables.push_back(0x1000); // not readable
    machine.tables.push_back(0);      // an empty slot
    ASSERT_TRUE(machine.read());
    EXPECT_EQ(machine.info.rejected_tables, 4U);
    EXPECT_TRUE(machine.info.tables.is_empty());
}

TEST(Acpi, NeedsARootTable) {
    Machine machine;
    EXPECT_EQ(
        drivers::read_acpi({.revision = 2, .rsdt = 0x1000, .xsdt = 0x2000}, machine.memory.map(), machine.info).error(),
        lib::Errc::NotFound);
    u64 const wrong = machine.memory.add(table("XXXX", 1, {}));
    EXPECT_FALSE(drivers::read_acpi({.revision = 2, .rsdt = 0, .xsdt = wrong}, machine.memory.map(), machine.info));
}

TEST(Acpi, FallsBackToTheRsdtWhenTheXsdtIsBroken) {
    Machine machine;
    machine.add("HPET", 1, Bytes(8));
    auto rsdp = machine.memory.rsdt(machine.tables);
    rsdp.xsdt = 0x1000;
    ASSERT_TRUE(drivers::read_acpi(rsdp, machine.memory.map(), machine.info));
    EXPECT_TRUE(machine.info.find("HPET"));
}

TEST(Acpi, ForgetsWhatWasReadBefore) {
    Machine machine;
    machine.info.disabled_cpus = 5;
    ASSERT_TRUE(machine.read());
    EXPECT_EQ(machine.info.disabled_cpus, 0U);
}

} // namespace
