// SPDX-License-Identifier: MIT
#include <loader/linux_loader.hpp>

#include "fake_guest.hpp"
#include <gtest/gtest.h>

namespace {

using namespace loader;
using fakes::store;

constexpr u64 code_offset = 512 * 3;

std::vector<u8> protected_mode_part() {
    std::vector<u8> code(0x1000);
    for (std::size_t i = 0; i < code.size(); ++i)
        code[i] = static_cast<u8>(i * 7);
    return code;
}

// Two setup sectors and 4 KiB of code; the header of protocol 2.15.
std::vector<u8> bzimage() {
    std::vector<u8> file(code_offset);
    store(file, 0x1f1, 2, 1);          // setup_sects
    store(file, 0x1f4, 0x100, 4);      // syssize: 4 KiB
    store(file, 0x1fe, 0xaa55, 2);     // boot_flag
    store(file, 0x200, 0x6aeb, 2);     // jump over the header, to 0x26c
    store(file, 0x202, 0x53726448, 4); // HdrS
    store(file, 0x206, 0x20f, 2);
    store(file, 0x211, 0x21, 1); // loaded high, quiet
    store(file, 0x22c, 0x7fffffff, 4);
    store(file, 0x230, 0x200000, 4); // kernel_alignment
    store(file, 0x234, 1, 1);        // relocatable
    store(file, 0x236, 3, 2);        // 64-bit entry, initrd above 4 GiB
    store(file, 0x238, 2047, 4);     // cmdline_size
    store(file, 0x258, 0x1000000, 8);
    store(file, 0x260, 0x400000, 4);
    std::vector<u8> const code = protected_mode_part();
    file.insert(file.end(), code.begin(), code.end());
    return file;
}

struct LinuxLoader : testing::Test {
    fakes::Guest guest{64 * lib::MiB};
    std::vector<u8> kernel = bzimage();
    std::vector<u8> initrd = std::vector<u8>(5000, 0x5a);
    std::string command_line = "console=ttyS0 root=/dev/vda";

    LoadResult load(BootCopies* copies = nullptr) {
        return load_linux({.kernel = kernel,
                           .initrd = initrd,
                           .command_line = command_line,
                           .memory_map = guest.map,
                           .rsdp = GuestPhys{0xe0000},
                           .copies = copies},
                          guest.memory());
    }
    LoadErrorCode error() {
        auto const result = load();
        EXPECT_FALSE(result);
        return result ? LoadErrorCode::UnknownImage : result.error().code;
    }
};

TEST_F(LinuxLoader, EntersLongModeAtThePreferredAddress) {
    auto const state = load();
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->mode, EntryMode::Long64);
    EXPECT_EQ(state->rip, 0x1000200U);
    EXPECT_EQ(state->code_selector, 0x10);
    EXPECT_EQ(state->data_selector, 0x18);
    EXPECT_EQ(state->gdt_limit, 31);
    EXPECT_TRUE(guest.holds(0x1000000, protected_mode_part()));
}

TEST_F(LinuxLoader, FillsTheZeroPage) {
    auto const state = load();
    ASSERT_TRUE(state);
    u64 const page = state->rsi;
    EXPECT_EQ(guest.get<u32>(page + 0x202), 0x53726448U) << "the header is copied";
    EXPECT_EQ(guest.get<u8>(page + 0x26b), 0) << "and ends where it says";
    EXPECT_EQ(guest.get<u8>(page + 0x210), 0xff);
    EXPECT_EQ(guest.get<u8>(page + 0x211), 1) << "not quiet, no heap";
    EXPECT_EQ(guest.get<u32>(page + 0x214), 0x1000000U);
    EXPECT_EQ(guest.get<u8>(page + 0x1ef), 0) << "sentinel";
    EXPECT_EQ(guest.get<u64>(page + 0x70), 0xe0000U);
    EXPECT_EQ(guest.text(guest.get<u32>(page + 0x228)), command_line);
    EXPECT_EQ(guest.get<u8>(page + 0x1e8), 3);
    EXPECT_EQ(guest.get<u64>(page + 0x2d0 + 20), fakes::Guest::low_end);
    EXPECT_EQ(guest.get<u32>(page + 0x2d0 + 36), e820_reserved);
    EXPECT_EQ(guest.get<u8>(page + 0xfff), 0) << "what is not set is zero";
}

TEST_F(LinuxLoader, PutsTheInitrdHigh) {
    auto const state = load();
    ASSERT_TRUE(state);
    u32 const at = guest.get<u32>(state->rsi + 0x218);
    EXPECT_EQ(at, 64 * lib::MiB - 2 * lib::page_size);
    EXPECT_EQ(guest.get<u32>(state->rsi + 0x21c), 5000U);
    EXPECT_TRUE(guest.holds(at, initrd));
}

TEST_F(LinuxLoader, LeavesTheLargeCopiesToWhoeverHasTime) {
    BootCopies copies;
    auto const state = load(&copies);
    ASSERT_TRUE(state);
    u32 const at = guest.get<u32>(state->rsi + 0x218);
    std::vector<u8> const code = protected_mode_part();
    EXPECT_FALSE(guest.holds(0x1000000, code));
    EXPECT_FALSE(guest.holds(at, initrd));
    u32 calls = 1;
    while (!copies.go_on(guest.memory(), 1000))
        calls++;
    EXPECT_EQ(calls, (code.size() + initrd.size() + 999) / 1000);
    EXPECT_TRUE(guest.holds(0x1000000, code));
    EXPECT_TRUE(guest.holds(at, initrd));
    EXPECT_TRUE(copies.go_on(guest.memory(), 0)) << "and stays done";
}

TEST_F(LinuxLoader, CopiesThatNobodyTakesAreMadeAtOnce) {
    BootCopies copies;
    std::vector<u8> const others(16, 1);
    for (u64 i = 0; i + 1 < BootCopies::capacity; i++)
        ASSERT_TRUE(copies.add(GuestPhys{0x2000000 + i * 16}, others));
    auto const state = load(&copies);
    ASSERT_TRUE(state);
    EXPECT_TRUE(guest.holds(0x1000000, protected_mode_part())) << "the initrd has the last place";
    while (!copies.go_on(guest.memory(), 1000)) {
    }
    EXPECT_TRUE(guest.holds(guest.get<u32>(state->rsi + 0x218), initrd));
    EXPECT_TRUE(guest.holds(0x2000000, others));
}

TEST_F(LinuxLoader, MapsFourGigabytesOneToOne) {
    auto const state = load();
    ASSERT_TRUE(state);
    for (u64 const address : {u64{0}, u64{0x1000200}, u64{0xfee00000}, 4 * lib::GiB - 1}) {
        u64 const pdpt = guest.get<u64>(state->cr3) & ~u64{0xfff};
        u64 const directory = guest.get<u64>(pdpt + (address >> 30) * 8) & ~u64{0xfff};
        u64 const entry = guest.get<u64>(directory + ((address >> 21) & 511) * 8);
        EXPECT_EQ(entry, (address & ~(2 * lib::MiB - 1)) | 0x83);
    }
    EXPECT_EQ(guest.get<u64>(state->cr3 + 8), 0U);
}

TEST_F(LinuxLoader, MovesARelocatableKernel) {
    store(kernel, 0x258, 0x10000000, 8); // 256 MiB, which is not there
    auto const state = load();
    ASSERT_TRUE(state);
    EXPECT_EQ(state->rip, 0x200200U) << "the lowest aligned place above 1 MiB";
    store(kernel, 0x234, 0, 1);
    EXPECT_EQ(error(), LoadErrorCode::KernelAddressNotFree);
}

TEST_F(LinuxLoader, Enters32BitKernelsInProtectedMode) {
    store(kernel, 0x236, 0, 2);
    auto const state = load();
    ASSERT_TRUE(state);
    EXPECT_EQ(state->mode, EntryMode::Protected32);
    EXPECT_EQ(state->rip, 0x1000000U);
    EXPECT_EQ(state->cr3, 0U);
    EXPECT_EQ(guest.get<u64>(state->gdt_base + 0x10), 0x00cf9b000000ffffU);
}

TEST_F(LinuxLoader, OldProtocolsIgnoreLaterFields) {
    store(kernel, 0x206, 0x206, 2);
    auto const state = load();
    ASSERT_TRUE(state);
    EXPECT_EQ(state->rip, lib::MiB) << "no pref_address, no 64-bit entry in 2.06";
    store(kernel, 0x206, 0x205, 2);
    EXPECT_EQ(error(), LoadErrorCode::LinuxTooOld);
}

TEST_F(LinuxLoader, FieldsBehindTheHeadersEndDoNotExist) {
    store(kernel, 0x201, 0x236 - 0x202, 1); // before xloadflags
    auto const state = load();
    ASSERT_TRUE(state);
    EXPECT_EQ(state->mode, EntryMode::Protected32);
}

TEST_F(LinuxLoader, RefusesWhatIsNoBzImage) {
    store(kernel, 0x211, 0, 1);
    EXPECT_EQ(error(), LoadErrorCode::LinuxNotHigh);
    store(kernel, 0x202, 0, 4);
    EXPECT_EQ(error(), LoadErrorCode::NotLinux);
    kernel.resize(100);
    EXPECT_EQ(error(), LoadErrorCode::KernelCut);
}

TEST_F(LinuxLoader, RefusesACutFile) {
    kernel.resize(kernel.size() - 16);
    EXPECT_EQ(error(), LoadErrorCode::KernelCut);
    kernel.resize(code_offset);
    EXPECT_EQ(error(), LoadErrorCode::KernelCut);
}

TEST_F(LinuxLoader, RefusesALongCommandLine) {
    command_line.assign(2047, 'x');
    EXPECT_TRUE(load());
    command_line.assign(2048, 'x');
    EXPECT_EQ(error(), LoadErrorCode::CommandLineTooLong);
    store(kernel, 0x238, 0xffffffff, 4);
    command_line.assign(0x10000, 'x');
    EXPECT_EQ(error(), LoadErrorCode::CommandLineTooLong) << "our area ends too";
}

TEST_F(LinuxLoader, SaysWhatDoesNotFit) {
    initrd.resize(80 * lib::MiB);
    auto const result = load();
    ASSERT_FALSE(result);
    EXPECT_EQ(fakes::text_of(result.error()),
              "initrd: needs 80 MiB in one piece, guest memory has 44 MiB free: raise memory =");
    store(kernel, 0x260, 0x8000000, 4);
    EXPECT_EQ(error(), LoadErrorCode::KernelDoesNotFit);
}

TEST_F(LinuxLoader, InitrdStaysBelowItsLimit) {
    store(kernel, 0x22c, 0x2ffffff, 4);
    auto const state = load();
    ASSERT_TRUE(state);
    EXPECT_EQ(guest.get<u32>(state->rsi + 0x218), 48 * lib::MiB - 2 * lib::page_size);
}

TEST_F(LinuxLoader, AMapThatLiesIsAnError) {
    guest.map[2].size += lib::GiB;
    EXPECT_EQ(error(), LoadErrorCode::MapMismatch);
}

TEST_F(LinuxLoader, NeedsLowMemory) {
    guest.map[0].size = 0x20000;
    EXPECT_EQ(error(), LoadErrorCode::BootAreaMissing);
}

TEST(Placement, NoOverflow) {
    E820Entry const map[] = {{~u64{0} - 0xfff, ~u64{0}, e820_ram}, {0x100000, 0x1000, e820_ram}};
    EXPECT_FALSE(is_ram(map, 0x100800, 0x1000));
    EXPECT_FALSE(is_ram(map, 0x100000, ~u64{0}));
    EXPECT_TRUE(is_ram(map, 0x100000, 0x1000));
    PlacementRequest const request{
        .size = 0x1000, .alignment = 0x200000, .within = {0x100001, ~u64{0}}, .avoid = {0x100000, 0x101000}};
    EXPECT_FALSE(place_low(map, request)) << "aligning must not wrap to 0";
    EXPECT_FALSE(place_high(map, request));
}

TEST(Placement, AroundWhatIsAvoided) {
    E820Entry const map[] = {{0x100000, 0x100000, e820_ram}};
    PlacementRequest const request{
        .size = 0x4000, .alignment = 0x1000, .within = {0, ~u64{0}}, .avoid = {0x102000, 0x1fe000}};
    EXPECT_FALSE(place_low(map, request));
    EXPECT_EQ(largest_free(map, request), 0x2000U);
}

} // namespace
