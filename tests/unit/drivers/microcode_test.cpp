// SPDX-License-Identifier: MIT
#include <cstring>
#include <drivers/microcode.hpp>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>

namespace {

using drivers::find_microcode;
using drivers::MicrocodeTarget;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u32 skylake = 0x0005'0654, zen2 = 0x0083'0f10;
constexpr MicrocodeTarget intel_cpu{.signature = skylake, .platform_flags = 1U << 7, .revision = 0x10};
constexpr MicrocodeTarget amd_cpu{.is_amd = true, .signature = zen2, .revision = 0x0830'1000};

// 32-bit words that lie at a multiple of 16.
struct alignas(16) Words {
    u32 word[4];
};
class File {
public:
    File& add(std::vector<u32> const& words) {
        words_.insert(words_.end(), words.begin(), words.end());
        blocks_.resize((words_.size() + 3) / 4);
        std::memcpy(blocks_.data(), words_.data(), words_.size() * 4);
        return *this;
    }
    std::span<u8 const> bytes() const { return {reinterpret_cast<u8 const*>(blocks_.data()), words_.size() * 4}; }
    std::span<u8 const> bytes(std::size_t count) const { return bytes().first(count); }

private:
    std::vector<u32> words_;
    std::vector<Words> blocks_;
};

void balance(std::vector<u32>& words, std::size_t at, std::size_t begin, std::size_t end) {
    words[at] = 0;
    u32 sum = 0;
    for (std::size_t i = begin; i < end; i++)
        sum += words[i];
    words[at] = 0 - sum;
}

// [intel/vol3] table 10-7, with 16 bytes of data; `more`: an extended table of {signature, flags}.
std::vector<u32> update(u32 revision, u32 signature, u32 flags, std::vector<std::pair<u32, u32>> const& more = {}) {
    std::vector<u32> words{1, revision, 0x0101'2024, signature, 0, 1, flags, 16, 0, 0, 0, 0, 11, 22, 33, 44};
    if (!more.empty()) {
        std::size_t const table = words.size();
        words.insert(words.end(), {static_cast<u32>(more.size()), 0, 0, 0, 0});
        for (auto const& [extra, extra_flags] : more)
            words.insert(words.end(), {extra, extra_flags, 0});
        balance(words, table + 1, table, words.size());
        while (words.size() % 4 != 0)
            words.push_back(0);
    }
    words[8] = static_cast<u32>(words.size() * 4);
    balance(words, 4, 0, 16);
    return words;
}

std::vector<u32> container(std::vector<std::pair<u32, u32>> const& equivalents) {
    std::vector<u32> words{0x0041'4d44, 0, static_cast<u32>((equivalents.size() + 1) * 16)};
    for (auto const& [signature, equivalent] : equivalents)
        words.insert(words.end(), {signature, 0, 0, equivalent});
    words.insert(words.end(), {0, 0, 0, 0});
    return words;
}
std::vector<u32> patch(u32 revision, u32 equivalent, u32 chipset = 0) {
    std::vector<u32> words(2 + 16 + 4);
    words[0] = 1;
    words[1] = static_cast<u32>((words.size() - 2) * 4);
    words[2 + 1] = revision;
    words[2 + 4] = chipset;
    words[2 + 6] = equivalent;
    return words;
}

TEST(Microcode, TheNewestUpdateForThisIntelCpuIsFound) {
    File file;
    file.add(update(0x20, 0x0005'0653, 0x80)).add(update(0x11, skylake, 0x80)).add(update(0x12, skylake, 0xff));
    file.add(update(0x30, skylake, 0x01)); // another socket
    auto const found = find_microcode(file.bytes(), intel_cpu);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->revision, 0x12U);
    EXPECT_EQ(found->bytes.size(), 16U);
    EXPECT_EQ(found->bytes[0], 11);
    MicrocodeTarget current = intel_cpu;
    current.revision = 0x12;
    EXPECT_FALSE(find_microcode(file.bytes(), current)) << "not newer";
    current.revision = 0x8000'0001; // pre-production: older than any other
    EXPECT_TRUE(find_microcode(file.bytes(), current));
}

TEST(Microcode, CpusOfTheExtendedTableCount) {
    File file;
    file.add(update(0x20, 0x0005'0653, 0x80, {{0x0005'0652, 0x80}, {skylake, 0x80}}));
    ASSERT_TRUE(find_microcode(file.bytes(), intel_cpu));
    auto words = update(0x20, 0x0005'0653, 0x80, {{skylake, 0x80}});
    words[21]++; // the extended table's sum is wrong
    EXPECT_FALSE(find_microcode(File().add(words).bytes(), intel_cpu));
}

TEST(Microcode, DamagedIntelFilesHaveNothing) {
    auto const good = update(0x20, skylake, 0x80);
    for (std::size_t size = 0; size < good.size() * 4; size++)
        EXPECT_FALSE(find_microcode(File().add(good).bytes(size), intel_cpu)) << size;
    for (std::size_t i = 0; i < good.size(); i++) {
        auto bad = good;
        bad[i] ^= 1;
        EXPECT_FALSE(find_microcode(File().add(bad).bytes(), intel_cpu)) << i;
    }
    for (u32 const size : {0U, 3U, 47U, 60U, 0xffff'fffcU}) {
        auto bad = good;
        bad[8] = size; // the total size
        balance(bad, 4, 0, 16);
        EXPECT_FALSE(find_microcode(File().add(bad).bytes(), intel_cpu)) << size;
    }
    auto endless = update(0x20, 0x0005'0653, 0x80, {{skylake, 0x80}});
    endless[16] = 0xffff'ffff; // the number of extended entries
    EXPECT_FALSE(find_microcode(File().add(endless).bytes(), intel_cpu));
}

TEST(Microcode, TheNewestPatchForThisAmdCpuIsFound) {
    File file;
    file.add(container({{0x0087'0f10, 0x8710}})).add(patch(0x0870'1021, 0x8710));
    file.add(container({{0x0080'0f12, 0x8012}, {zen2, 0x8310}}));
    file.add(patch(0x0830'1030, 0x8310)).add(patch(0x0830'1055, 0x8310)).add(patch(0x0830'1099, 0x8012));
    file.add(patch(0x0830'1088, 0x8310, 0x1022)); // a chipset's
    auto const found = find_microcode(file.bytes(), amd_cpu);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->revision, 0x0830'1055U);
    EXPECT_EQ(found->bytes.size(), 80U);
    MicrocodeTarget other = amd_cpu;
    other.signature = 0x0010'0f00;
    EXPECT_FALSE(find_microcode(file.bytes(), other));
}

TEST(Microcode, DamagedAmdFilesHaveNothing) {
    File good;
    good.add(container({{zen2, 0x8310}})).add(patch(0x0830'1055, 0x8310));
    for (std::size_t size = 0; size < good.bytes().size(); size++)
        EXPECT_FALSE(find_microcode(good.bytes(size), amd_cpu)) << size;
    auto short_patch = patch(0x0830'1055, 0x8310);
    short_patch[1] = 40;
    short_patch.resize(12);
    EXPECT_FALSE(find_microcode(File().add(container({{zen2, 0x8310}})).add(short_patch).bytes(), amd_cpu));
    EXPECT_FALSE(find_microcode(File().add(patch(0x0830'1055, 0x8310)).bytes(), amd_cpu)) << "without equivalents";
    EXPECT_FALSE(find_microcode(File().add({0x0041'4d44, 7, 0, 0, 0}).bytes(), amd_cpu));
}

class OnACpu : public ::testing::Test {
protected:
    fakes::Cpu cpu;
    u32 revision = 0x10;
    u64 loaded = 0;
    bool takes_it = true;
    void make_intel() {
        cpu.set_cpuid(1, {skylake, 0, 0, 0});
        cpu.populate_read_only_msr(0x17, u64{7} << 50);
        // CPUID writes the revision where software wrote 0.
        cpu.hook_msr(0x8b, [this] { return u64{revision} << 32; }, [](u64 value) { return value == 0; });
        cpu.hook_msr(0x79, {}, [this](u64 address) {
            if (address % 16 != 0) return false;
            loaded = address;
            if (takes_it) std::memcpy(&revision, reinterpret_cast<u8 const*>(address) - 44, 4);
            return true;
        });
    }
    void make_amd() {
        revision = 0x0830'1000;
        cpu.set_cpuid(1, {zen2, 0, 0, 0});
        cpu.hook_msr(0x8b, [this] { return u64{revision}; }, [](u64) { return false; });
        cpu.hook_msr(0xc001'0020, {}, [this](u64 address) {
            loaded = address;
            std::memcpy(&revision, reinterpret_cast<u8 const*>(address) + 4, 4);
            return true;
        });
    }
};

TEST_F(OnACpu, IntelsIsLoadedFromTheFileThatHasTheNewest) {
    make_intel();
    File old, newer;
    old.add(update(0x11, skylake, 0x80));
    newer.add(update(0x15, skylake, 0x80));
    std::span<u8 const> const files[] = {newer.bytes(), old.bytes()};
    auto const result = drivers::update_microcode(files, false);
    EXPECT_EQ(result.before, 0x10U);
    EXPECT_EQ(result.after, 0x15U);
    EXPECT_FALSE(result.was_refused);
    EXPECT_EQ(loaded, reinterpret_cast<u64>(newer.bytes().data()) + 48);
    loaded = 0;
    EXPECT_EQ(drivers::update_microcode(files, false).after, 0x15U);
    EXPECT_EQ(loaded, 0U) << "a second thread of the core has it already";
}

TEST_F(OnACpu, WhatTheCpuDoesNotTakeIsTold) {
    make_intel();
    takes_it = false;
    File file;
    file.add(update(0x15, skylake, 0x80));
    std::span<u8 const> const files[] = {file.bytes()};
    EXPECT_TRUE(drivers::update_microcode(files, false).was_refused);
    cpu.remove_msr(0x79);
    EXPECT_TRUE(drivers::update_microcode(files, false).was_refused) << "#GP";
}

TEST_F(OnACpu, AmdsIsLoadedAndItsMappingForgotten) {
    make_amd();
    File file;
    file.add(container({{zen2, 0x8310}})).add(patch(0x0830'1055, 0x8310));
    std::span<u8 const> const files[] = {file.bytes()};
    auto const result = drivers::update_microcode(files, true);
    EXPECT_EQ(result.after, 0x0830'1055U);
    ASSERT_EQ(cpu.invlpg_addresses.size(), 2U);
    EXPECT_EQ(cpu.invlpg_addresses[0], loaded);
}

TEST_F(OnACpu, NothingIsLoadedInAVirtualMachine) {
    make_intel();
    cpu.set_cpuid(1, {skylake, 0, 1U << 31, 0});
    File file;
    file.add(update(0x15, skylake, 0x80));
    std::span<u8 const> const files[] = {file.bytes()};
    EXPECT_EQ(drivers::update_microcode(files, false).after, 0x10U);
    EXPECT_EQ(loaded, 0U);
}

TEST_F(OnACpu, CpusWithoutTheRegistersAreLeftAlone) {
    cpu.set_cpuid(1, {skylake, 0, 0, 0});
    EXPECT_EQ(drivers::microcode_revision(false), 0U);
    EXPECT_EQ(drivers::microcode_revision(true), 0U);
    EXPECT_EQ(drivers::update_microcode({}, false).after, 0U);
}

} // namespace
