// SPDX-License-Identifier: MIT
#include <algorithm>
#include <gtest/gtest.h>
#include <manage/disk_catalogue.hpp>
#include <memory>
#include <random>
#include <string>

namespace {

namespace service = lib::service;
using config::DiskDescription;
using config::DiskKind;
using lib::u32;
using lib::u64;
using manage::DiskCatalogue;
using manage::MachinePart;

template <std::size_t Size> void put(char (&to)[Size], std::string_view text) { text.copy(to, Size - 1); }

class DiskCatalogueTest : public testing::Test {
protected:
    service::DiskEntry& add_disk(std::string_view serial, u64 sectors = 1000, u32 sector_size = 512) {
        service::DiskEntry& disk = said->disks[said->disk_count];
        disk = {.controller = 1,
                .unit = said->disk_count,
                .state = service::DiskState::Ready,
                .sector_size = sector_size,
                .sectors = sectors,
                .is_read_only = 0,
                .first_partition = said->partition_count,
                .partition_count = 0,
                .serial = {},
                .model = {},
                .note = {}};
        put(disk.serial, serial);
        put(disk.model, "Disk");
        said->disk_count++;
        return disk;
    }
    service::PartitionEntry& add_partition(std::string_view label, u64 first, u64 size) {
        service::PartitionEntry& part = said->partitions[said->partition_count++];
        part = {.first = first, .size = size, .label = {}, .guid = {}, .note = {}};
        put(part.label, label);
        put(part.guid, "01234567-89ab-cdef-0123-00000000000" + std::to_string(said->partition_count));
        said->disks[said->disk_count - 1].partition_count++;
        return part;
    }
    std::string find(DiskKind kind, std::string_view name, bool is_read_only = false) {
        said->is_complete = 1;
        known->take(*said);
        DiskDescription wanted;
        wanted.kind = kind;
        wanted.name = name;
        wanted.is_read_only = is_read_only;
        std::array<char, 400> text{};
        auto const found = known->find(wanted, text);
        if (!found) return std::string(found.error());
        return std::to_string(found->controller) + "." + std::to_string(found->unit) + " " +
               std::to_string(found->begin) + "+" + std::to_string(found->size);
    }

    std::unique_ptr<service::Catalogue> said = std::make_unique<service::Catalogue>();
    std::unique_ptr<DiskCatalogue> known = std::make_unique<DiskCatalogue>();
};

TEST_F(DiskCatalogueTest, PartitionsAreFoundByLabelAndByGuid) {
    add_disk("A");
    add_partition("root", 512, 1024);
    add_disk("B", 100, 4096);
    add_partition("data", 8192, 4096);
    EXPECT_EQ(find(DiskKind::Partition, "root"), "1.0 512+1024");
    EXPECT_EQ(find(DiskKind::Partition, "data"), "1.1 8192+4096");
    EXPECT_EQ(find(DiskKind::Partition, "01234567-89AB-CDEF-0123-000000000002"), "1.1 8192+4096");
    EXPECT_EQ(find(DiskKind::Disk, "B"), "1.1 0+409600");
}

TEST_F(DiskCatalogueTest, WhatIsNotThereIsToldWithWhatIs) {
    EXPECT_EQ(find(DiskKind::Partition, "root"), "no partition of the machine has the label or GUID \"root\"; the "
                                                 "machine has no disk that Mullion can use");
    add_disk("A");
    EXPECT_EQ(find(DiskKind::Partition, "root"),
              "no partition of the machine has the label or GUID \"root\"; disks: A (Disk)");
    add_partition("efi", 512, 512);
    add_partition("", 1024, 512);
    EXPECT_EQ(find(DiskKind::Partition, "root"),
              "no partition of the machine has the label or GUID \"root\"; partitions: efi, "
              "01234567-89ab-cdef-0123-000000000002");
    EXPECT_EQ(find(DiskKind::Disk, "C"), "no disk of the machine has the serial number \"C\"; disks: A (Disk)");
}

TEST_F(DiskCatalogueTest, AmbiguousNamesAreRefused) {
    add_disk("A");
    add_partition("root", 512, 512);
    add_disk("A");
    add_partition("root", 512, 512);
    EXPECT_TRUE(find(DiskKind::Partition, "root").starts_with("2 partitions have the label \"root\"; name one"));
    EXPECT_TRUE(find(DiskKind::Disk, "A").starts_with("2 disks have the serial number \"A\""));
}

TEST_F(DiskCatalogueTest, WhatBelongsToOthersIsOnlyRead) {
    add_disk("A");
    put(add_partition("md", 512, 512).note, "member of /dev/md");
    EXPECT_EQ(find(DiskKind::Partition, "md"), "the partition \"md\" cannot be written to: member of /dev/md; use "
                                               "readonly = true or another one");
    EXPECT_EQ(find(DiskKind::Partition, "md", true), "1.0 512+512");
    EXPECT_TRUE(find(DiskKind::Disk, "A").starts_with("the disk \"A\" cannot be written to: others use"));
    put(add_disk("B").note, "member of LVM2");
    EXPECT_EQ(find(DiskKind::Disk, "B"), "the disk \"B\" cannot be written to: member of LVM2; use readonly = true or "
                                         "another one");
    EXPECT_EQ(find(DiskKind::Disk, "B", true), "1.1 0+512000");
}

TEST_F(DiskCatalogueTest, DisksThatCannotBeWrittenToAreOnlyRead) {
    add_disk("A").is_read_only = 1;
    add_partition("root", 512, 512);
    EXPECT_TRUE(find(DiskKind::Disk, "A").starts_with("the disk \"A\" cannot be written to: it is read-only"));
    EXPECT_TRUE(find(DiskKind::Partition, "root").find("its disk is read-only") != std::string::npos);
    EXPECT_EQ(find(DiskKind::Partition, "root", true), "1.0 512+512");
}

TEST_F(DiskCatalogueTest, PartitionsOutsideOfTheirDiskAreLeftOut) {
    add_disk("A");
    add_partition("beyond", 512'000, 512);
    add_partition("long", 512, 512'000);
    add_partition("wraps", 512, ~u64{0} - 511);
    add_partition("empty", 512, 0);
    add_partition("odd", 100, 512);
    add_partition("good", 511'488, 512);
    EXPECT_EQ(find(DiskKind::Partition, "none"),
              "no partition of the machine has the label or GUID \"none\"; partitions: good");
}

TEST_F(DiskCatalogueTest, TwoPartsOverlapOnlyOnOneDisk) {
    MachinePart const part{1, 0, 512, 1024};
    EXPECT_TRUE(part.overlaps({1, 0, 1024, 4096}));
    EXPECT_TRUE(part.overlaps({1, 0, 0, 4096}));
    EXPECT_FALSE(part.overlaps({1, 0, 1536, 512}));
    EXPECT_FALSE(part.overlaps({1, 0, 0, 512}));
    EXPECT_FALSE(part.overlaps({1, 1, 512, 1024}));
    EXPECT_FALSE(part.overlaps({0, 0, 512, 1024}));
    EXPECT_FALSE(MachinePart{}.overlaps(MachinePart{})) << "disks in memory";
}

// Whatever the service says, what is kept lies inside of its disk and can be printed.
TEST_F(DiskCatalogueTest, NonsenseIsHarmless) {
    std::mt19937_64 random(1);
    for (unsigned round = 0; round < 2'000; round++) {
        auto* const bytes = reinterpret_cast<lib::u8*>(said.get());
        for (std::size_t i = 0; i < sizeof(*said); i++)
            bytes[i] = static_cast<lib::u8>(random() % 4 == 0 ? random() : random() % 3);
        if (round % 2 == 0) said->disk_count = random() % 20, said->partition_count = random() % 200;
        (void)find(round % 2 == 0 ? DiskKind::Partition : DiskKind::Disk, "x");
        for (service::DiskEntry const& disk : known->disks()) {
            ASSERT_LE(disk.first_partition + disk.partition_count, service::max_partitions);
            EXPECT_EQ(disk.note[sizeof(disk.note) - 1], 0);
            for (service::PartitionEntry const& part : known->partitions_of(disk)) {
                EXPECT_LE(part.first + part.size, disk.sectors * disk.sector_size);
                EXPECT_TRUE(
                    std::ranges::all_of(std::string_view(part.label), [](char c) { return c >= ' ' && c <= '~'; }));
            }
        }
    }
}

} // namespace
