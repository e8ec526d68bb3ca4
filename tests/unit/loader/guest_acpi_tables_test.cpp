// SPDX-License-Identifier: MIT
#include <loader/guest_acpi_tables.hpp>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <loader/aml.hpp>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

struct AcpiTablesTest : testing::Test {
    std::vector<u8> ram = std::vector<u8>(2 * lib::MiB);
    lib::RamPiece piece{{0}, ram.size(), ram.data()};
    lib::GuestMemory memory{{&piece, 1}};
    u64 rsdp = 0;

    void build(u32 vcpu_count, u64 ram_above_4g = 0, u32 physical_bits = 40) {
        auto const at = loader::write_acpi_tables(memory, {vcpu_count, ram_above_4g, physical_bits});
        ASSERT_TRUE(at);
        rsdp = at->value;
    }
    template <typename T> T get(u64 at) const { return memory.read<T>({at}).value(); }
    std::string text(u64 at, std::size_t size) const {
        return {ram.begin() + static_cast<long>(at), ram.begin() + static_cast<long>(at + size)};
    }
    u8 sum(u64 at, u64 size) const {
        return static_cast<u8>(
            std::accumulate(ram.begin() + static_cast<long>(at), ram.begin() + static_cast<long>(at + size), 0U));
    }
    u64 table(std::string const& signature) const {
        if (signature == "DSDT") return get<u64>(table("FACP") + 140);
        u64 const xsdt = get<u64>(rsdp + 24);
        for (u64 at = xsdt + 36; at < xsdt + get<u32>(xsdt + 4); at += 8)
            if (text(get<u64>(at), 4) == signature) return get<u64>(at);
        ADD_FAILURE() << "no " << signature;
        return 0;
    }
    // What Intel's disassembler makes of a table; fails the test when it complains.
    std::string disassemble(std::string const& signature) const {
        auto const folder = std::filesystem::temp_directory_path() / ("mullion-acpi-" + std::to_string(getpid()));
        std::filesystem::create_directories(folder);
        u64 const at = table(signature);
        std::ofstream(folder / "table.dat", std::ios::binary) << text(at, get<u32>(at + 4));
        std::string const command = "cd '" + folder.string() + "' && iasl -d table.dat >log 2>&1";
        int const status = std::system(command.c_str());
        std::stringstream log, source;
        log << std::ifstream(folder / "log").rdbuf();
        source << std::ifstream(folder / "table.dsl").rdbuf();
        EXPECT_EQ(status, 0) << "iasl (package acpica-tools) failed:\n" << log.str();
        EXPECT_EQ(log.str().find("rror"), std::string::npos) << log.str();
        EXPECT_EQ(log.str().find("arning"), std::string::npos) << log.str();
        std::filesystem::remove_all(folder);
        return source.str();
    }
};

TEST_F(AcpiTablesTest, RootsAndChecksums) {
    build(4);
    EXPECT_EQ(text(rsdp, 8), "RSD PTR ");
    EXPECT_EQ(rsdp % 16, 0U);
    EXPECT_GE(rsdp, 0xe'0000U);
    EXPECT_EQ(sum(rsdp, 20), 0);
    EXPECT_EQ(sum(rsdp, 36), 0);
    EXPECT_EQ(get<u8>(rsdp + 15), 2);
    u64 const rsdt = get<u32>(rsdp + 16), xsdt = get<u64>(rsdp + 24);
    EXPECT_EQ(get<u32>(rsdt + 36), get<u64>(xsdt + 36));
    EXPECT_EQ(get<u32>(rsdt + 40), get<u64>(xsdt + 44));
    for (u64 const at : {rsdt, xsdt, table("FACP"), table("APIC"), table("HPET"), table("MCFG"), table("DSDT")}) {
        EXPECT_EQ(sum(at, get<u32>(at + 4)), 0) << text(at, 4);
        EXPECT_GE(at, 0xe'0000U);
        EXPECT_LE(at + get<u32>(at + 4), 0xf'0000U);
    }
}

TEST_F(AcpiTablesTest, FadtDescribesTheFixedHardware) {
    build(1);
    u64 const fadt = table("FACP");
    EXPECT_EQ(get<u32>(fadt + 4), 276U);
    EXPECT_EQ(get<u16>(fadt + 46), 9);
    EXPECT_EQ(get<u32>(fadt + 48), 0U);
    EXPECT_EQ(get<u32>(fadt + 56), 0x600U);
    EXPECT_EQ(get<u32>(fadt + 64), 0x604U);
    EXPECT_EQ(get<u32>(fadt + 76), 0x608U);
    EXPECT_EQ(get<u8>(fadt + 108), 0x32);
    EXPECT_EQ(get<u64>(fadt + 120), 0xcf9U);
    EXPECT_EQ(get<u8>(fadt + 128), 6);
    u64 const facs = get<u32>(fadt + 36);
    EXPECT_EQ(text(facs, 4), "FACS");
    EXPECT_EQ(facs % 64, 0U);
    std::string const source = disassemble("FACP");
    EXPECT_NE(source.find("Reset Register Supported (V2) : 1"), std::string::npos);
    EXPECT_NE(source.find("RTC wake not in fixed reg space (V1) : 0"), std::string::npos) << source;
}

TEST_F(AcpiTablesTest, HpetTableSaysWhereItIs) {
    build(1);
    std::string const source = disassemble("HPET");
    for (char const* const expected : {"Hardware Block ID : 8086A201", "Address : 00000000FED00000",
                                       "Sequence Number : 00", "Minimum Clock Ticks : 06B7"})
        EXPECT_NE(source.find(expected), std::string::npos) << expected << " not in\n" << source;
}

TEST_F(AcpiTablesTest, MadtNamesEveryProcessor) {
    build(3);
    std::string const source = disassemble("APIC");
    for (char const* const expected : {"Local Apic ID : 00", "Local Apic ID : 02", "I/O Apic ID : 00", "Source : 00",
                                       "Source : 09", "Interrupt Input LINT : 01"})
        EXPECT_NE(source.find(expected), std::string::npos) << expected << " not in\n" << source;
    EXPECT_EQ(source.find("Local Apic ID : 03"), std::string::npos);
}

TEST_F(AcpiTablesTest, MadtSwitchesToX2ApicEntriesAt255) {
    build(257);
    std::string const source = disassemble("APIC");
    for (char const* const expected :
         {"Local Apic ID : FE", "Processor x2Apic ID : 000000FF", "Processor x2Apic ID : 00000100"})
        EXPECT_NE(source.find(expected), std::string::npos) << expected;
    EXPECT_EQ(source.find("Local Apic ID : FF"), std::string::npos);
}

TEST_F(AcpiTablesTest, DsdtIsValidAml) {
    build(18);
    std::string const source = disassemble("DSDT");
    for (char const* const expected :
         {"Name (\\_S5, Package (0x04)", "Device (COM1)", "EisaId (\"PNP0501\")", "EisaId (\"PNP0B00\")",
          "\"ACPI0007\"", "Device (C000)", "Device (C011)", "0x03F8", "EisaId (\"PNP0103\")", "0xFED00000"})
        EXPECT_NE(source.find(expected), std::string::npos) << expected << " not in\n" << source;
    EXPECT_EQ(source.find("Device (C012)"), std::string::npos);
}

TEST_F(AcpiTablesTest, McfgNamesTheWindowOfBuses0To63) {
    build(1);
    std::string const source = disassemble("MCFG");
    for (char const* const expected : {"Base Address : 00000000E0000000", "Segment Group Number : 0000",
                                       "Start Bus Number : 00", "End Bus Number : 3F"})
        EXPECT_NE(source.find(expected), std::string::npos) << expected << " not in\n" << source;
}

std::string without_blanks(std::string text) {
    std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
    return text;
}

TEST_F(AcpiTablesTest, TheRootOfPciPassesItsWindowsAndRoutesItsPins) {
    build(1, 5 * lib::GiB);
    std::string const source = without_blanks(disassemble("DSDT"));
    for (char const* const expected :
         {"Device(PCI0)", "EisaId(\"PNP0A08\")", "EisaId(\"PNP0A03\")",
          "0xC0000000,//RangeMinimum0xDFFFFFFF,//RangeMaximum", "0x0D00,//RangeMinimum0xFFFF,//RangeMaximum",
          "0x0000000240000000,//RangeMinimum0x000000063FFFFFFF,//RangeMaximum",
          "0x0000,//RangeMinimum0x003F,//RangeMaximum", "Name(_PRT,Package(0x80)",
          "Package(0x04){0x0000FFFF,0x00,0x00,0x10}", "Package(0x04){0x0003FFFF,0x02,0x00,0x11}"})
        EXPECT_NE(source.find(expected), std::string::npos) << expected << " not in\n" << source;
}

// Linux gives up a resource that covers a part only of what a PCI function decodes.
TEST_F(AcpiTablesTest, TheMotherboardHasAllPortsThatTheLpcBridgeDecodesForAcpi) {
    build(1);
    std::string const source = without_blanks(disassemble("DSDT"));
    EXPECT_NE(source.find("IO(Decode16,0x0600,//RangeMinimum0x0600,//RangeMaximum0x01,//Alignment0x80,//Length"),
              std::string::npos)
        << source;
}

TEST_F(AcpiTablesTest, TheHighWindowIsLeftOutWhereAddressesEndBeforeIt) {
    build(1, 56 * lib::GiB, 36);
    std::string const source = disassemble("DSDT");
    EXPECT_NE(source.find("DWordMemory"), std::string::npos);
    EXPECT_EQ(source.find("QWordMemory"), std::string::npos);
}

TEST_F(AcpiTablesTest, RefusesWhatDoesNotFit) {
    EXPECT_EQ(loader::write_acpi_tables(memory, {0, 0, 40}).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(loader::write_acpi_tables(memory, {4096, 0, 40}).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(loader::write_acpi_tables(memory, {~0U, 0, 40}).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(loader::write_acpi_tables(lib::GuestMemory({}), {1, 0, 40}).error(), lib::Errc::BadGuest);
}

TEST(Aml, LengthsGrowWithTheirContents) {
    constexpr auto small = loader::aml::with_length(loader::aml::Bytes<62>{});
    static_assert(small.size() == 63 && small[0] == 63);
    constexpr auto large = loader::aml::with_length(loader::aml::Bytes<63>{});
    static_assert(large.size() == 65 && large[0] == 0x41 && large[1] == 4);
    constexpr auto huge = loader::aml::with_length(loader::aml::Bytes<0x1000>{});
    static_assert(huge.size() == 0x1003 && huge[0] == 0x83 && huge[1] == 0x00 && huge[2] == 0x01);
}

} // namespace
