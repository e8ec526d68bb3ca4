// SPDX-License-Identifier: MIT
#include <loader/elf.hpp>
#include <loader/image.hpp>
#include <loader/multiboot_loader.hpp>
#include <loader/pvh_loader.hpp>

#include "fake_guest.hpp"
#include <gtest/gtest.h>

namespace {

using namespace loader;
using fakes::store;

constexpr u64 load_address = 0x200000;
constexpr u64 virtual_base = 0xffffffff80000000;
constexpr std::size_t code_at = 0x1000;
constexpr std::size_t note_at = 0x800;

void put_note(std::vector<u8>& file, u32 type, u64 value, std::size_t value_size) {
    store(file, note_at, 4, 4);
    store(file, note_at + 4, value_size, 4);
    store(file, note_at + 8, type, 4);
    store(file, note_at + 12, 0x006e6558, 4); // Xen
    store(file, note_at + 16, value, value_size);
}

// A segment of 0x100 bytes and 0x300 of bss at 2 MiB, linked at virtual_base, and a note segment.
std::vector<u8> elf64() {
    std::vector<u8> file;
    store(file, 0, 0x464c457f, 4);
    store(file, 4, 2, 1);
    store(file, 5, 1, 1);
    store(file, 16, 2, 2);
    store(file, 18, 62, 2);
    store(file, 24, virtual_base + load_address + 0x10, 8); // entry
    store(file, 32, 64, 8);                                 // program headers
    store(file, 54, 56, 2);
    store(file, 56, 2, 2);
    std::size_t at = 64;
    store(file, at, 1, 4);
    store(file, at + 8, code_at, 8);
    store(file, at + 16, virtual_base + load_address, 8);
    store(file, at + 24, load_address, 8);
    store(file, at + 32, 0x100, 8);
    store(file, at + 40, 0x400, 8);
    at += 56;
    store(file, at, 4, 4);
    store(file, at + 8, note_at, 8);
    store(file, at + 32, 24, 8);
    store(file, at + 40, 24, 8);
    put_note(file, 18, load_address + 0x20, 8);
    for (std::size_t i = 0; i < 0x100; ++i)
        store(file, code_at + i, i, 1);
    return file;
}

std::vector<u8> elf32() {
    std::vector<u8> file;
    store(file, 0, 0x464c457f, 4);
    store(file, 4, 1, 1);
    store(file, 5, 1, 1);
    store(file, 16, 2, 2);
    store(file, 18, 3, 2);
    store(file, 24, load_address + 0x10, 4);
    store(file, 28, 52, 4);
    store(file, 42, 32, 2);
    store(file, 44, 1, 2);
    store(file, 52, 1, 4);
    store(file, 56, code_at, 4);
    store(file, 60, load_address, 4);
    store(file, 64, load_address, 4);
    store(file, 68, 0x100, 4);
    store(file, 72, 0x400, 4);
    for (std::size_t i = 0; i < 0x100; ++i)
        store(file, code_at + i, i, 1);
    return file;
}

void put_multiboot1(std::vector<u8>& file, std::size_t at, u32 flags) {
    store(file, at, 0x1badb002, 4);
    store(file, at + 4, flags, 4);
    store(file, at + 8, u32{0} - 0x1badb002U - flags, 4);
}

// An end tag follows.
void put_multiboot2(std::vector<u8>& file, std::size_t at, std::vector<u32> const& tags) {
    u32 const size = static_cast<u32>(16 + tags.size() * 4 + 8);
    store(file, at, 0xe85250d6, 4);
    store(file, at + 4, 0, 4);
    store(file, at + 8, size, 4);
    store(file, at + 12, u32{0} - 0xe85250d6U - size, 4);
    for (std::size_t i = 0; i < tags.size(); ++i)
        store(file, at + 16 + i * 4, tags[i], 4);
    store(file, at + 16 + tags.size() * 4, u64{8} << 32, 8);
}

struct Loading : testing::Test {
    fakes::Guest guest{32 * lib::MiB};
    std::vector<u8> kernel = elf64();
    std::vector<u8> initrd = std::vector<u8>(5000, 0x5a);
    std::string command_line = "quiet";
    GuestPhys rsdp{0};
    std::vector<BootModule> modules;

    BootInput input() const {
        return {.kernel = kernel,
                .initrd = initrd,
                .command_line = command_line,
                .memory_map = guest.map,
                .rsdp = rsdp,
                .modules = modules};
    }
    LoadResult load(lib::BootKind kind) { return load_guest(kind, input(), guest.memory()); }
    LoadErrorCode error(lib::BootKind kind) {
        auto const result = load(kind);
        EXPECT_FALSE(result);
        return result ? LoadErrorCode::MapMismatch : result.error().code;
    }
    void expect_loaded() const {
        for (u64 i = 0; i < 0x100; ++i)
            ASSERT_EQ(guest.get<u8>(load_address + i), i);
        for (u64 i = 0x100; i < 0x400; ++i)
            ASSERT_EQ(guest.get<u8>(load_address + i), 0) << "bss";
        ASSERT_EQ(guest.get<u8>(load_address + 0x400), 0xcc) << "and nothing behind it";
    }
};

TEST_F(Loading, PvhStartInfo) {
    rsdp = GuestPhys{0xe0000};
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    expect_loaded();
    EXPECT_EQ(state->mode, EntryMode::Protected32);
    EXPECT_EQ(state->rip, load_address + 0x20);
    u64 const info = state->rbx;
    EXPECT_EQ(guest.get<u32>(info), 0x336ec578U);
    EXPECT_EQ(guest.get<u32>(info + 4), 1U);
    EXPECT_EQ(guest.get<u32>(info + 12), 1U);
    u64 const module = guest.get<u64>(info + 16);
    EXPECT_TRUE(guest.holds(guest.get<u64>(module), initrd));
    EXPECT_EQ(guest.get<u64>(module + 8), 5000U);
    EXPECT_EQ(guest.text(guest.get<u64>(info + 24)), "quiet");
    EXPECT_EQ(guest.get<u64>(info + 32), 0xe0000U);
    u64 const map = guest.get<u64>(info + 40);
    EXPECT_EQ(guest.get<u32>(info + 48), 3U);
    EXPECT_EQ(guest.get<u64>(map + 48), lib::MiB);
    EXPECT_EQ(guest.get<u64>(map + 56), 31 * lib::MiB);
    EXPECT_EQ(guest.get<u32>(map + 64), e820_ram);
}

TEST_F(Loading, PvhWithoutModule) {
    initrd.clear();
    auto const state = load(lib::BootKind::Pvh);
    ASSERT_TRUE(state);
    EXPECT_EQ(guest.get<u32>(state->rbx + 12), 0U);
    EXPECT_EQ(guest.get<u64>(state->rbx + 16), 0U);
}

TEST_F(Loading, PvhNotes) {
    put_note(kernel, 17, load_address, 4);
    EXPECT_EQ(error(lib::BootKind::Pvh), LoadErrorCode::NoPvhEntry);
    put_note(kernel, 18, load_address + 4, 4);
    EXPECT_EQ(load(lib::BootKind::Pvh)->rip, load_address + 4);
    put_note(kernel, 18, load_address + 0x400, 4);
    EXPECT_EQ(error(lib::BootKind::Pvh), LoadErrorCode::EntryOutsideImage);
    store(kernel, note_at, 0xffffffff, 4); // a name that is longer than the file
    EXPECT_EQ(error(lib::BootKind::Pvh), LoadErrorCode::NoPvhEntry);
}

TEST_F(Loading, PlainElf64EntersLongMode) {
    auto const state = load(lib::BootKind::Elf);
    ASSERT_TRUE(state);
    EXPECT_EQ(state->mode, EntryMode::Long64);
    EXPECT_EQ(state->rip, load_address + 0x10) << "physical, not virtual";
    EXPECT_EQ(guest.get<u64>(state->cr3) & 1, 1U);
}

TEST_F(Loading, PlainElf32) {
    kernel = elf32();
    EXPECT_EQ(detect_image(kernel), ImageKind::ElfPlain);
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->mode, EntryMode::Protected32);
    EXPECT_EQ(state->rip, load_address + 0x10);
    expect_loaded();
}

TEST_F(Loading, AnElfEntryMayBeAPhysicalAddress) {
    kernel = elf32();
    store(kernel, 60, 0xc010'0000, 4); // linked high, starts low: xv6 does this
    auto const state = load(lib::BootKind::Elf);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->rip, load_address + 0x10);
    store(kernel, 24, load_address + 0x400, 4);
    EXPECT_EQ(error(lib::BootKind::Elf), LoadErrorCode::EntryOutsideImage);
}

// As many segments as there may be, all over the same memory: nobody zeroes that 128 times.
TEST_F(Loading, ElfSegmentsThatOverlapAreRefused) {
    constexpr u64 headers = 0x2000, count = 128;
    for (auto const& plain : {elf64(), elf32()}) {
        bool const is_64 = plain[4] == 2;
        std::size_t const size = is_64 ? 56 : 32;
        auto const with_segments = [&](u64 used, u64 step) {
            kernel = plain;
            store(kernel, is_64 ? 32 : 28, headers, is_64 ? 8 : 4);
            store(kernel, is_64 ? 56 : 44, used, 2);
            for (u64 i = 0; i < used; i++) {
                std::vector<u8> header(plain.begin() + (is_64 ? 64 : 52),
                                       plain.begin() + static_cast<std::ptrdiff_t>((is_64 ? 64 : 52) + size));
                store(header, is_64 ? 24 : 12, load_address + i * step, is_64 ? 8 : 4);
                for (std::size_t at = 0; at < size; at++)
                    store(kernel, headers + i * size + at, header[at], 1);
            }
        };
        for (u64 const step : {u64{0}, u64{0x100}, u64{0x3ff}}) {
            with_segments(count, step);
            EXPECT_EQ(error(lib::BootKind::Elf), LoadErrorCode::BadElf) << step;
        }
        with_segments(count, 0x400); // side by side
        auto const state = load(lib::BootKind::Elf);
        ASSERT_TRUE(state) << fakes::text_of(state.error());
    }
}

TEST_F(Loading, AnElfKernelIsWrittenBitByBit) {
    store(kernel, 64 + 40, 0x10'0000, 8); // a MiB, most of it zeroes
    BootCopies copies;
    auto wanted = input();
    wanted.copies = &copies;
    auto const state = load_guest(lib::BootKind::Elf, wanted, guest.memory());
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(guest.get<u8>(load_address + 0x10), 0xcc) << "nothing is written by the loader itself";
    u32 steps = 1;
    while (!copies.go_on(guest.memory(), 0x1000)) {
        ASSERT_EQ(guest.get<u8>(load_address + u64{0x1000} * steps), 0xcc) << "no step writes more than it may";
        steps++;
    }
    EXPECT_EQ(steps, (0x10'0000 + initrd.size() + 0xfff) / 0x1000);
    for (u64 i = 0; i < 0x100; i++)
        ASSERT_EQ(guest.get<u8>(load_address + i), i);
    for (u64 i = 0x100; i < 0x10'0000; i++)
        ASSERT_EQ(guest.get<u8>(load_address + i), 0);
    EXPECT_EQ(guest.get<u8>(load_address + 0x10'0000), 0xcc);
}

TEST_F(Loading, MemoryThatIsZeroIsNotZeroedAgainButBelow1MiB) {
    store(kernel, 64 + 40, 0x1000, 8); // bytes of the segment in memory
    auto const byte_after_file = [&](bool is_memory_zero, u64 at) {
        store(kernel, 64 + 24, at, 8);
        guest.memory().write(GuestPhys{at + 0x800}, u8{0xcc}).value();
        auto wanted = input();
        wanted.is_memory_zero = is_memory_zero;
        EXPECT_TRUE(load_guest(lib::BootKind::Elf, wanted, guest.memory()));
        EXPECT_EQ(guest.get<u8>(at + 0xff), 0xff);
        return guest.get<u8>(at + 0x800);
    };
    EXPECT_EQ(byte_after_file(false, load_address), 0);
    EXPECT_EQ(byte_after_file(true, load_address), 0xcc);
    EXPECT_EQ(byte_after_file(true, 0x8000), 0) << "firmware's tables may lie there";
}

TEST_F(Loading, BadElfFiles) {
    struct Change {
        std::size_t at;
        u64 value;
        std::size_t size;
        LoadErrorCode error;
    };
    for (Change const& change : {Change{0, 0, 4, LoadErrorCode::BadElf},
                                 {4, 3, 1, LoadErrorCode::BadElf},
                                 {5, 2, 1, LoadErrorCode::BadElf},
                                 {18, 183, 2, LoadErrorCode::ElfMachine},
                                 {32, ~u64{0} - 10, 8, LoadErrorCode::BadElf},
                                 {54, 8, 2, LoadErrorCode::BadElf},
                                 {56, 0, 2, LoadErrorCode::BadElf},
                                 {56, 0xffff, 2, LoadErrorCode::BadElf},
                                 {64 + 8, ~u64{0}, 8, LoadErrorCode::BadElf},
                                 {64 + 32, 0x401, 8, LoadErrorCode::BadElf},
                                 {64 + 32, ~u64{0}, 8, LoadErrorCode::BadElf},
                                 {64 + 40, ~u64{0}, 8, LoadErrorCode::KernelAddressNotFree},
                                 {64 + 24, 0x9f000, 8, LoadErrorCode::EntryOutsideImage},
                                 {64 + 24, 0x9fb00, 8, LoadErrorCode::KernelAddressNotFree},
                                 {64 + 24, 0x2fff0, 8, LoadErrorCode::KernelAddressNotFree},
                                 {64 + 24, ~u64{0} - 4, 8, LoadErrorCode::KernelAddressNotFree}}) {
        kernel = elf64();
        store(kernel, change.at, change.value, change.size);
        EXPECT_EQ(error(lib::BootKind::Pvh), change.error) << change.at << " = " << change.value;
    }
}

TEST_F(Loading, Multiboot1Elf) {
    kernel = elf32();
    put_multiboot1(kernel, 0x200, 3);
    EXPECT_EQ(detect_image(kernel), ImageKind::Multiboot1);
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->rip, load_address + 0x10);
    EXPECT_EQ(state->rax, 0x2badb002U);
    u64 const info = state->rbx;
    EXPECT_EQ(guest.get<u32>(info), 0x24dU);
    EXPECT_EQ(guest.get<u32>(info + 4), 639U);
    EXPECT_EQ(guest.get<u32>(info + 8), 31U * 1024);
    EXPECT_EQ(guest.text(guest.get<u32>(info + 16)), "quiet");
    EXPECT_EQ(guest.get<u32>(info + 20), 1U);
    u64 const module = guest.get<u32>(info + 24);
    EXPECT_TRUE(guest.holds(guest.get<u32>(module), initrd));
    EXPECT_EQ(guest.get<u32>(module + 4) - guest.get<u32>(module), 5000U);
    EXPECT_EQ(guest.text(guest.get<u32>(module + 8)), "");
    EXPECT_EQ(guest.get<u32>(info + 44), 72U);
    u64 const map = guest.get<u32>(info + 48);
    EXPECT_EQ(guest.get<u32>(map + 48), 20U);
    EXPECT_EQ(guest.get<u64>(map + 52), lib::MiB);
    EXPECT_EQ(guest.text(guest.get<u32>(info + 64)), "Mullion");
}

struct LoadingModules : Loading {
    struct Module {
        u64 begin, end;
        std::string text;
    };
    std::vector<std::vector<u8>> contents{std::vector<u8>(5000, 0x11), {}, std::vector<u8>(4096, 0x33)};
    LoadingModules() {
        modules = {{contents[0], "dom0.gz console=hvc0"}, {contents[1], "empty"}, {contents[2], ""}};
        kernel = elf32();
    }
    void expect_all(std::vector<Module> const& found) {
        ASSERT_EQ(found.size(), 4U);
        EXPECT_EQ(found[0].text, "") << "the initrd comes first";
        EXPECT_TRUE(guest.holds(found[0].begin, initrd));
        for (std::size_t i = 0; i < 3; ++i) {
            EXPECT_EQ(found[i + 1].text, modules[i].text);
            EXPECT_EQ(found[i + 1].end - found[i + 1].begin, contents[i].size());
            EXPECT_TRUE(guest.holds(found[i + 1].begin, contents[i]));
        }
        expect_loaded(); // and nothing lies on the kernel
    }
};

TEST_F(LoadingModules, ByMultiboot1) {
    put_multiboot1(kernel, 0x200, 3);
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    std::vector<Module> found;
    u64 at = guest.get<u32>(state->rbx + 24);
    for (u32 left = guest.get<u32>(state->rbx + 20); left != 0; --left, at += 16)
        found.push_back({guest.get<u32>(at), guest.get<u32>(at + 4), guest.text(guest.get<u32>(at + 8))});
    kernel = elf32();
    expect_all(found);
    EXPECT_EQ(guest.text(guest.get<u32>(state->rbx + 64)), "Mullion");
}

TEST_F(LoadingModules, ByMultiboot2) {
    put_multiboot2(kernel, 0x200, {});
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    std::vector<Module> found;
    for (u64 at = state->rbx + 8; guest.get<u32>(at) != 0; at += lib::align_up(guest.get<u32>(at + 4), 8))
        if (guest.get<u32>(at) == 3)
            found.push_back({guest.get<u32>(at + 8), guest.get<u32>(at + 12), guest.text(at + 16)});
    expect_all(found);
}

TEST_F(LoadingModules, AreCopiedLaterWithTheRest) {
    put_multiboot1(kernel, 0x200, 0);
    BootCopies copies;
    BootInput later = input();
    later.copies = &copies;
    auto const state = load_guest(lib::BootKind::Auto, later, guest.memory());
    ASSERT_TRUE(state);
    u64 const list = guest.get<u32>(state->rbx + 24);
    EXPECT_FALSE(guest.holds(guest.get<u32>(list + 16), contents[0]));
    while (!copies.go_on(guest.memory(), 1000)) {
    }
    EXPECT_TRUE(guest.holds(guest.get<u32>(list + 16), contents[0]));
    EXPECT_TRUE(guest.holds(guest.get<u32>(list + 48), contents[2]));
}

TEST_F(LoadingModules, WhatDoesNotFitIsTold) {
    put_multiboot1(kernel, 0x200, 0);
    contents[0].assign(20 * lib::MiB, 1);
    contents[2].assign(20 * lib::MiB, 1);
    modules[0].bytes = contents[0];
    modules[2].bytes = contents[2];
    EXPECT_EQ(error(lib::BootKind::Auto), LoadErrorCode::ModuleDoesNotFit);
    modules.resize(1);
    EXPECT_TRUE(load(lib::BootKind::Auto));
    std::string const text(0x6000, 'x');
    modules[0] = {contents[1], text};
    EXPECT_EQ(error(lib::BootKind::Auto), LoadErrorCode::ModuleTextTooLong);
    modules[0].text = std::string_view(text).substr(1);
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state);
    EXPECT_EQ(guest.text(guest.get<u32>(state->rbx + 16)), "quiet")
        << "the texts of the modules leave the command line alone";
    modules.assign(max_boot_modules + 1, {});
    EXPECT_FALSE(load(lib::BootKind::Auto));
}

TEST_F(LoadingModules, AutoPrefersAMultibootHeaderToAPvhEntry) {
    kernel = elf64();
    put_multiboot2(kernel, 0x200, {3, 12, static_cast<u32>(load_address) + 0x44, 0});
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->rax, 0x36d76289U);
    modules.clear();
    EXPECT_EQ(load(lib::BootKind::Auto)->rax, 0U);
}

TEST_F(LoadingModules, OnlyMultibootKernelsTakeThem) {
    kernel = elf64();
    EXPECT_EQ(error(lib::BootKind::Auto), LoadErrorCode::ModulesNotTaken);
    for (auto const kind : {lib::BootKind::Pvh, lib::BootKind::Elf, lib::BootKind::Linux})
        EXPECT_EQ(error(kind), LoadErrorCode::ModulesNotTaken);
}

TEST_F(Loading, Multiboot1Addresses) {
    kernel.assign(0x300, 0x77);
    put_multiboot1(kernel, 0x40, 1U << 16);
    store(kernel, 0x40 + 12, load_address + 0x20, 4); // header
    store(kernel, 0x40 + 16, load_address, 4);        // load: file offset 0x20
    store(kernel, 0x40 + 20, load_address + 0x100, 4);
    store(kernel, 0x40 + 24, load_address + 0x200, 4);
    store(kernel, 0x40 + 28, load_address + 0x80, 4);
    auto const state = load(lib::BootKind::Multiboot1);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->rip, load_address + 0x80);
    EXPECT_EQ(guest.get<u32>(load_address + 0x20), 0x1badb002U);
    EXPECT_EQ(guest.get<u8>(load_address + 0xff), 0x77);
    EXPECT_EQ(guest.get<u8>(load_address + 0x1ff), 0);
    store(kernel, 0x40 + 20, 0, 4); // to the end of the file
    store(kernel, 0x40 + 24, 0, 4);
    ASSERT_TRUE(load(lib::BootKind::Multiboot1));
    EXPECT_EQ(guest.get<u8>(load_address + 0x2df), 0x77);
    store(kernel, 0x40 + 20, load_address + 0x2e1, 4);
    EXPECT_EQ(error(lib::BootKind::Multiboot1), LoadErrorCode::KernelCut);
    store(kernel, 0x40 + 12, load_address + 0x41, 4);
    EXPECT_EQ(error(lib::BootKind::Multiboot1), LoadErrorCode::BadMultiboot) << "would start before the file";
    store(kernel, 0x40 + 12, load_address - 1, 4);
    EXPECT_EQ(error(lib::BootKind::Multiboot1), LoadErrorCode::BadMultiboot);
}

TEST_F(Loading, Multiboot1Headers) {
    kernel = elf32();
    EXPECT_FALSE(find_multiboot1_header(kernel));
    put_multiboot1(kernel, 0x204, 4);
    EXPECT_TRUE(load(lib::BootKind::Multiboot1)) << "a video mode, which GRUB does not insist on either";
    put_multiboot1(kernel, 0x204, 8);
    EXPECT_EQ(error(lib::BootKind::Multiboot1), LoadErrorCode::MultibootFeature) << "a flag that nobody knows";
    store(kernel, 0x20c, 0, 4);
    EXPECT_FALSE(find_multiboot1_header(kernel)) << "checksum";
    kernel.resize(9000);
    put_multiboot1(kernel, 8192 - 8, 0);
    EXPECT_FALSE(find_multiboot1_header(kernel)) << "must lie within 8 KiB";
}

TEST_F(Loading, Multiboot2Information) {
    kernel = elf32();
    put_multiboot2(kernel, 0x200, {1, 12, 5, 0});
    rsdp = GuestPhys{0x9f000};
    std::array<u8, 36> table{};
    table[0] = 'R';
    table[15] = 2;
    ASSERT_TRUE(guest.memory().write(rsdp, table));
    EXPECT_EQ(detect_image(kernel), ImageKind::Multiboot2);
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->rax, 0x36d76289U);
    EXPECT_EQ(state->rip, load_address + 0x10);
    std::vector<u32> types;
    u64 at = state->rbx + 8;
    u64 const end = state->rbx + guest.get<u32>(state->rbx);
    while (at < end) {
        u32 const type = guest.get<u32>(at);
        u32 const size = guest.get<u32>(at + 4);
        ASSERT_GE(size, 8U);
        types.push_back(type);
        if (type == 1) EXPECT_EQ(guest.text(at + 8), "quiet");
        if (type == 3) EXPECT_TRUE(guest.holds(guest.get<u32>(at + 8), initrd));
        if (type == 6) EXPECT_EQ(size, 16 + 3 * 24U);
        if (type == 15) EXPECT_EQ(guest.get<u8>(at + 8), 'R');
        at += lib::align_up(size, 8);
    }
    EXPECT_EQ(types, (std::vector<u32>{1, 2, 3, 4, 6, 15, 0}));
}

TEST_F(Loading, AutoTakesTheOtherMultibootHeaderWhenOneCannotBeServed) {
    kernel = elf32();
    put_multiboot2(kernel, 0x200, {0x55, 8});
    EXPECT_EQ(error(lib::BootKind::Auto), LoadErrorCode::MultibootFeature) << "there is no other";
    put_multiboot1(kernel, 0x280, 0);
    auto const state = load(lib::BootKind::Auto);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(state->rax, 0x2badb002U);
    EXPECT_EQ(error(lib::BootKind::Multiboot2), LoadErrorCode::MultibootFeature) << "who names one means it";
    put_multiboot1(kernel, 0x280, 8);
    EXPECT_EQ(error(lib::BootKind::Auto), LoadErrorCode::MultibootFeature) << "neither";
}

TEST_F(Loading, Multiboot2Tags) {
    kernel = elf32();
    put_multiboot2(kernel, 0x200, {3, 12, static_cast<u32>(load_address) + 0x44, 0});
    EXPECT_EQ(load(lib::BootKind::Multiboot2)->rip, load_address + 0x44);
    for (u32 const tag : {5U, 0x10005U}) {
        put_multiboot2(kernel, 0x200, {tag, 20, 0, 0, 0, 0});
        EXPECT_TRUE(load(lib::BootKind::Multiboot2)) << "a framebuffer, which GRUB does not insist on either";
    }
    put_multiboot2(kernel, 0x200, {0x10055, 8});
    EXPECT_TRUE(load(lib::BootKind::Multiboot2)) << "an optional tag that nobody knows";
    put_multiboot2(kernel, 0x200, {0x55, 8});
    EXPECT_EQ(error(lib::BootKind::Multiboot2), LoadErrorCode::MultibootFeature) << "a required one";
    put_multiboot2(kernel, 0x200, {1, 0, 0, 0});
    EXPECT_EQ(error(lib::BootKind::Multiboot2), LoadErrorCode::BadMultiboot) << "a tag of size 0";
    put_multiboot2(kernel, 0x200,
                   {2, 24, static_cast<u32>(load_address), static_cast<u32>(load_address), 0, 0, 3, 12,
                    static_cast<u32>(load_address) + 8, 0});
    auto const state = load(lib::BootKind::Multiboot2);
    ASSERT_TRUE(state) << fakes::text_of(state.error());
    EXPECT_EQ(guest.get<u32>(load_address), 0xe85250d6U) << "by addresses, not by ELF";
}

TEST_F(Loading, UnknownFiles) {
    kernel.assign(100, 0);
    EXPECT_EQ(error(lib::BootKind::Auto), LoadErrorCode::UnknownImage);
    kernel.clear();
    for (lib::BootKind const kind : {lib::BootKind::Auto, lib::BootKind::Linux, lib::BootKind::Pvh, lib::BootKind::Elf,
                                     lib::BootKind::Multiboot1, lib::BootKind::Multiboot2})
        EXPECT_FALSE(load(kind));
}

TEST(LoadError, EveryCodeHasItsSentence) {
    for (u8 code = 0; code <= static_cast<u8>(LoadErrorCode::ModulesNotTaken); ++code) {
        std::string const text = fakes::text_of({static_cast<LoadErrorCode>(code), 300 * lib::MiB, 256 * lib::MiB});
        EXPECT_NE(text.find(": "), std::string::npos) << text;
        EXPECT_LT(text.size(), 160U) << text;
    }
    EXPECT_EQ(fakes::text_of({LoadErrorCode::InitrdDoesNotFit, 300 * lib::MiB, 256 * lib::MiB}),
              "initrd: needs 300 MiB in one piece, guest memory has 256 MiB free: raise memory =");
}

} // namespace
