// SPDX-License-Identifier: MIT
#include <boot/multiboot2.hpp>

#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// Builds boot information the way a loader does.
class Builder {
public:
    template <typename T> Builder& put(T value) {
        for (unsigned i = 0; i < sizeof(T); i++)
            bytes_.push_back(static_cast<u8>(u64{value} >> i * 8));
        return *this;
    }
    Builder& text(std::string const& value) {
        bytes_.insert(bytes_.end(), value.begin(), value.end());
        bytes_.push_back(0);
        return *this;
    }
    Builder& begin(u32 type) {
        close();
        open_ = bytes_.size();
        return put(type).put(u32{0});
    }
    std::vector<u8> finish() {
        begin(0);
        close();
        set32(0, static_cast<u32>(bytes_.size()));
        return bytes_;
    }
    void close() {
        if (open_ == 0) return;
        set32(open_ + 4, static_cast<u32>(bytes_.size() - open_));
        while (bytes_.size() % 8 != 0)
            bytes_.push_back(0xee);
        open_ = 0;
    }

private:
    void set32(std::size_t at, u32 value) {
        for (unsigned i = 0; i < 4; i++)
            bytes_[at + i] = static_cast<u8>(value >> i * 8);
    }
    std::vector<u8> bytes_ = std::vector<u8>(8);
    std::size_t open_ = 0;
};

Builder with_framebuffer(u8 kind, u8 bits, u32 pitch, u32 width, u8 blue_position = 0) {
    Builder builder;
    builder.begin(8).put(u64{0xfd00'0000}).put(pitch).put(width).put(u32{768}).put(bits).put(kind).put(u16{0});
    builder.put(u8{16}).put(u8{8}).put(u8{8}).put(u8{8}).put(blue_position).put(u8{8});
    return builder;
}

TEST(Multiboot2, ReadsWhatALoaderWrites) {
    Builder builder;
    builder.begin(1).text("console=com1 loglevel=debug");
    builder.begin(2).text("GRUB 2.06");
    builder.begin(3).put(u32{0x10'0000}).put(u32{0x18'0000}).text("linux root=/dev/vda");
    builder.begin(3).put(u32{0x20'0000}).put(u32{0x20'0001}).text("");
    builder.begin(4).put(u32{639}).put(u32{129920});
    builder.begin(12).put(u64{0x7fee'0018});
    builder.begin(13).put(u8{3}).put(u8{0}).put(u32{0}).put(u16{0}).text("_SM3_");
    builder.begin(17).put(u32{48}).put(u32{1});
    auto const bytes = builder.finish();
    auto const info = boot::Multiboot2::parse(bytes);
    ASSERT_TRUE(info);
    EXPECT_TRUE(info->is_complete());
    EXPECT_EQ(info->command_line(), "console=com1 loglevel=debug");
    EXPECT_EQ(info->loader_name(), "GRUB 2.06");
    ASSERT_EQ(info->module_count(), 2U);
    EXPECT_EQ(info->module(0)->start.value, 0x10'0000U);
    EXPECT_EQ(info->module(0)->size(), 0x8'0000U);
    EXPECT_EQ(info->module(0)->string, "linux root=/dev/vda");
    EXPECT_EQ(info->module(1)->string, "");
    EXPECT_FALSE(info->module(2));
    EXPECT_EQ(info->basic_memory()->lower, 639U);
    EXPECT_EQ(info->basic_memory()->upper, 129920U);
    EXPECT_EQ(info->efi_system_table64(), 0x7fee'0018U);
    EXPECT_EQ(info->smbios().size(), 6U);
    EXPECT_TRUE(info->has_efi_memory_map());
    EXPECT_FALSE(info->has_efi_boot_services());
    EXPECT_FALSE(info->framebuffer());
}

TEST(Multiboot2, KeepsToTheEntrySizeOfTheMemoryMap) {
    Builder builder;
    builder.begin(6).put(u32{32}).put(u32{0});
    builder.put(u64{0}).put(u64{0x9fc00}).put(u32{1}).put(u32{0}).put(u64{0xffff'ffff'ffff'ffff});
    builder.put(u64{0x10'0000}).put(u64{0x7ef0'0000}).put(u32{3}).put(u32{0}).put(u64{0});
    auto const bytes = builder.finish();
    auto const info = boot::Multiboot2::parse(bytes);
    ASSERT_EQ(info->memory_range_count(), 2U);
    EXPECT_EQ(info->memory_range(0)->size, 0x9fc00U);
    EXPECT_TRUE(info->memory_range(0)->is_available());
    EXPECT_EQ(info->memory_range(1)->base.value, 0x10'0000U);
    EXPECT_EQ(info->memory_range(1)->type, boot::MemoryType::AcpiReclaimable);
    EXPECT_FALSE(info->memory_range(2));
}

TEST(Multiboot2, RefusesMemoryRangesThatCannotBe) {
    Builder builder;
    builder.begin(6).put(u32{24}).put(u32{0});
    builder.put(u64{0xffff'ffff'ffff'f000}).put(u64{0x2000}).put(u32{1}).put(u32{0});
    builder.put(u64{0x1000}).put(u64{0}).put(u32{1}).put(u32{0});
    auto const bytes = builder.finish();
    auto const info = boot::Multiboot2::parse(bytes);
    EXPECT_EQ(info->memory_range_count(), 2U);
    EXPECT_FALSE(info->memory_range(0));
    EXPECT_FALSE(info->memory_range(1));
}

TEST(Multiboot2, HasNoMemoryMapWithAnImpossibleEntrySize) {
    for (u32 const entry_size : {0U, 8U, 19U}) {
        Builder builder;
        builder.begin(6).put(entry_size).put(u32{0}).put(u64{0}).put(u64{0x1000}).put(u32{1}).put(u32{0});
        auto const bytes = builder.finish();
        EXPECT_EQ(boot::Multiboot2::parse(bytes)->memory_range_count(), 0U) << entry_size;
    }
}

TEST(Multiboot2, ReadsAnRgbFramebuffer) {
    auto const bytes = with_framebuffer(1, 32, 4096, 1024).finish();
    auto const info = boot::Multiboot2::parse(bytes);
    auto const screen = info->framebuffer();
    ASSERT_TRUE(screen);
    EXPECT_EQ(screen->address.value, 0xfd00'0000U);
    EXPECT_EQ(screen->kind, boot::Framebuffer::Kind::Rgb);
    EXPECT_EQ(screen->width, 1024U);
    EXPECT_EQ(screen->height, 768U);
    EXPECT_EQ(screen->red.position, 16);
    EXPECT_EQ(screen->green.position, 8);
    EXPECT_EQ(screen->blue.width, 8);
}

TEST(Multiboot2, RefusesAFramebufferWhoseLinesOverlap) {
    auto const bytes = with_framebuffer(1, 32, 4095, 1024).finish();
    EXPECT_FALSE(boot::Multiboot2::parse(bytes)->framebuffer());
}

TEST(Multiboot2, RefusesAColourOutsideThePixel) {
    auto const bytes = with_framebuffer(1, 24, 4096, 1024, 17).finish();
    EXPECT_FALSE(boot::Multiboot2::parse(bytes)->framebuffer());
}

TEST(Multiboot2, CountsTwoBytesPerCellOfATextScreen) {
    auto const good = with_framebuffer(2, 16, 160, 80).finish();
    auto const bad = with_framebuffer(2, 0, 159, 80).finish();
    EXPECT_TRUE(boot::Multiboot2::parse(good)->framebuffer());
    EXPECT_FALSE(boot::Multiboot2::parse(bad)->framebuffer());
}

TEST(Multiboot2, GivesBothCopiesOfTheRsdp) {
    Builder builder;
    builder.begin(14).text("RSD PTR old.........");
    builder.begin(15).text("RSD PTR new.........................");
    auto const bytes = builder.finish();
    auto const info = boot::Multiboot2::parse(bytes);
    EXPECT_EQ(info->rsdp_old().size(), 21U);
    EXPECT_EQ(info->rsdp_new().size(), 37U);
    EXPECT_EQ(info->rsdp_new()[8], 'n');
}

TEST(Multiboot2, StopsAtABrokenTagButKeepsWhatCameBefore) {
    for (u32 const broken_size : {0U, 7U, 0x7fff'ffffU, 0xffff'fff9U}) {
        Builder builder;
        builder.begin(1).text("first");
        builder.begin(2).text("second!");
        auto bytes = builder.finish();
        std::size_t const second = 8 + 16;
        for (unsigned i = 0; i < 4; i++)
            bytes[second + 4 + i] = static_cast<u8>(broken_size >> i * 8);
        auto const info = boot::Multiboot2::parse(bytes);
        ASSERT_TRUE(info);
        EXPECT_FALSE(info->is_complete());
        EXPECT_EQ(info->command_line(), "first");
        EXPECT_EQ(info->loader_name(), "");
    }
}

TEST(Multiboot2, IsIncompleteWithoutAnEndTag) {
    Builder builder;
    builder.begin(1).text("first");
    auto bytes = builder.finish();
    bytes.resize(bytes.size() - 8);
    auto const info = boot::Multiboot2::parse(bytes);
    ASSERT_TRUE(info);
    EXPECT_FALSE(info->is_complete());
    EXPECT_EQ(info->command_line(), "first");
}

TEST(Multiboot2, EndsATextWithItsTagEvenWithoutANul) {
    Builder builder;
    builder.begin(1).put(u8{'a'}).put(u8{'b'});
    builder.begin(3).put(u32{0}).put(u32{1}).put(u8{'m'});
    auto const bytes = builder.finish();
    auto const info = boot::Multiboot2::parse(bytes);
    EXPECT_EQ(info->command_line(), "ab");
    EXPECT_EQ(info->module(0)->string, "m");
}

TEST(Multiboot2, DoesNotCountAModuleThatEndsBeforeItStarts) {
    Builder builder;
    builder.begin(3).put(u32{0x2000}).put(u32{0x1fff}).text("bad");
    builder.begin(3).put(u32{0x2000}).put(u32{0x2000}).text("empty");
    auto const bytes = builder.finish();
    auto const info = boot::Multiboot2::parse(bytes);
    ASSERT_EQ(info->module_count(), 1U);
    EXPECT_EQ(info->module(0)->string, "empty");
}

TEST(Multiboot2, RefusesImpossibleTotalSizes) {
    for (u32 const size : {0U, 8U, 15U, 0xffff'ffffU}) {
        std::vector<u8> bytes(16);
        for (unsigned i = 0; i < 4; i++)
            bytes[i] = static_cast<u8>(size >> i * 8);
        EXPECT_FALSE(boot::Multiboot2::parse(bytes)) << size;
        EXPECT_FALSE(boot::Multiboot2::total_size(bytes)) << size;
    }
    EXPECT_FALSE(boot::Multiboot2::parse({}));
}

} // namespace
