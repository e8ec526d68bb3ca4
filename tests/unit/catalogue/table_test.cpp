// SPDX-License-Identifier: MIT
#include "disk_image.hpp"

#include <gtest/gtest.h>
#include <set>

using namespace catalogue_test;
using storage::PartitionTable;

namespace {

class Table : public testing::TestWithParam<u32> {
protected:
    Image image{GetParam()};
    Gpt gpt{image};
    PartitionTable table;
    std::set<u64> bad; // sectors
    u32 reads = 0;

    void run() {
        table.start(image.sectors(), image.sector_size);
        for (reads = 0; !table.is_done(); reads++) {
            ASSERT_LT(reads, PartitionTable::most_reads);
            auto const range = table.next();
            u64 const size = u64{range.count} * image.sector_size;
            ASSERT_TRUE(size != 0 && size <= PartitionTable::max_read);
            ASSERT_LE(range.first + range.count, image.sectors());
            bool is_bad = false;
            for (u64 sector = range.first; sector < range.first + range.count; sector++)
                is_bad = is_bad || bad.contains(sector);
            if (is_bad)
                table.failed();
            else
                table.got(image.part(range.first * image.sector_size, size));
        }
    }
    void is_refused(std::string_view note) {
        run();
        EXPECT_EQ(table.note(), note);
        EXPECT_TRUE(table.partitions().empty());
    }
    void is_good() {
        run();
        EXPECT_EQ(table.note(), "");
        EXPECT_EQ(table.partitions().size(), gpt.parts.size());
    }
    void write_two() {
        gpt.parts = {{gpt.first_usable, 99, u"one"}, {100, gpt.last_usable, u"two"}};
        gpt.write();
    }
    // One partition, of a multiple of 64 KiB.
    u64 write_one() {
        gpt.parts = {{65536 / image.sector_size, 13 * 65536 / image.sector_size - 1, u"one"}};
        gpt.write();
        return 65536;
    }
    u64 header() const { return image.sector_size; }
};
INSTANTIATE_TEST_SUITE_P(SectorSizes, Table, testing::Values(512U, 1024U, 4096U));

TEST_P(Table, HasThePartitionsOfItsEntries) {
    write_two();
    is_good();
    auto const parts = table.partitions();
    EXPECT_EQ(parts[0].first, gpt.first_usable * image.sector_size);
    EXPECT_EQ(parts[0].first + parts[0].size, u64{100} * image.sector_size);
    EXPECT_STREQ(parts[0].label, "one");
    EXPECT_STREQ(parts[0].guid, "03020100-0504-0706-0809-0a0b0c0d0e00");
    EXPECT_STREQ(parts[0].note, "");
    EXPECT_EQ(parts[1].first + parts[1].size, (gpt.last_usable + 1) * image.sector_size);
    EXPECT_STREQ(parts[1].label, "two");
    EXPECT_STREQ(parts[1].guid, "03020100-0504-0706-0809-0a0b0c0d0e01");
}

TEST_P(Table, LabelIsPrintableAscii) {
    gpt.parts = {{50, 50, u"\u00e4\u2603 x\x7f\x1f~"}, {51, 51, std::u16string(36, u'y')}, {52, 52, u""}};
    gpt.write();
    is_good();
    EXPECT_STREQ(table.partitions()[0].label, "?? x??~");
    EXPECT_EQ(std::string_view(table.partitions()[1].label), std::string(36, 'y'));
    EXPECT_STREQ(table.partitions()[2].label, "");
}

TEST_P(Table, EntryWithoutATypeIsSkipped) {
    gpt.parts = {{50, 50, u"a"}, {1, 0, u"none", 0}, {51, 51, u"b"}};
    gpt.write();
    run();
    ASSERT_EQ(table.partitions().size(), 2U);
    EXPECT_STREQ(table.partitions()[1].label, "b");
}

TEST_P(Table, HoldsAsManyPartitionsAsEntries) {
    for (u64 i = 0; i < 128; i++)
        gpt.parts.push_back({gpt.first_usable + i, gpt.first_usable + i, u"x"});
    gpt.write();
    is_good();
}

TEST_P(Table, EntriesCanBeLargeAndFew) {
    gpt.entry_size = 512;
    gpt.entry_count = 24;
    gpt.entries_sectors = (u64{512} * 24 + image.sector_size - 1) / image.sector_size;
    gpt.parts = {{gpt.first_usable, gpt.first_usable, u"a"}, {gpt.last_usable, gpt.last_usable, u"b"}};
    gpt.write();
    is_good();
}

TEST_P(Table, EntriesAreReadInPieces) {
    gpt.entry_size = 512;
    gpt.entries_sectors = 65536 / image.sector_size;
    gpt.first_usable = 2 + gpt.entries_sectors;
    gpt.last_usable = image.last() - 1 - gpt.entries_sectors;
    for (u64 i = 0; i < 100; i++)
        gpt.parts.push_back({gpt.first_usable + i, gpt.first_usable + i, u"x"});
    gpt.write();
    is_good();
    EXPECT_EQ(reads, 1 + 4 + 2 + 100);
}

TEST_P(Table, HeaderCanBeAsLargeAsASector) {
    gpt.header_size = image.sector_size;
    write_two();
    is_good();
}

TEST_P(Table, EmptyTableHasNoPartitions) {
    gpt.write();
    is_good();
}

// --- Defects of the first table, for which the backup stands in.
class Defect : public Table {
protected:
    void backup_is_used(std::string_view why) {
        run();
        EXPECT_EQ(table.note(), "the backup of its GPT is used: " + std::string(why));
        ASSERT_EQ(table.partitions().size(), 2U);
        EXPECT_STREQ(table.partitions()[1].label, "two");
        EXPECT_STREQ(table.partitions()[1].note, "");
    }
};
INSTANTIATE_TEST_SUITE_P(SectorSizes, Defect, testing::Values(512U, 4096U));

TEST_P(Defect, NoHeader) {
    write_two();
    image.put<u8>(header(), 'e');
    backup_is_used("it has no header");
}
TEST_P(Defect, ChecksumOfTheHeader) {
    write_two();
    image.put<u8>(header() + 60, 1);
    backup_is_used("the checksum of its header is wrong");
}
TEST_P(Defect, ChecksumOfTheEntries) {
    write_two();
    image.put<u8>(2 * header() + 56, 'O');
    backup_is_used("the checksum of its entries is wrong");
}
TEST_P(Defect, HeaderOfAnotherSector) {
    write_two();
    image.put<u64>(header() + 24, 2);
    gpt.seal(1);
    backup_is_used("its header belongs to another sector");
}
TEST_P(Defect, SizeOfTheHeader) {
    write_two();
    for (u32 const size : {0U, 91U, image.sector_size + 1, ~0U}) {
        image.put<u32>(header() + 12, size);
        backup_is_used("the size of its header is wrong");
    }
}
TEST_P(Defect, EntriesOutsideOfTheDisk) {
    write_two();
    for (u64 const at : {u64{0}, u64{1}, image.last(), image.sectors(), ~u64{0}}) {
        image.put<u64>(header() + 72, at);
        gpt.seal(1);
        backup_is_used("its entries are not inside of the disk");
    }
}
TEST_P(Defect, EntriesAmongTheUsableSectors) {
    write_two();
    image.put<u64>(header() + 72, 60);
    gpt.seal(1);
    backup_is_used("its entries are among the usable sectors");
}
TEST_P(Defect, UnreadableEntries) {
    write_two();
    bad = {16384 / image.sector_size}; // after what is read first
    backup_is_used("its entries cannot be read");
}
TEST_P(Defect, BothTables) {
    write_two();
    image.put<u8>(header() + 60, 1);
    image.put<u8>(image.last() * image.sector_size, 0);
    is_refused("its GPT is refused: the checksum of its header is wrong");
}
TEST_P(Defect, UnreadableBackup) {
    write_two();
    image.put<u8>(header() + 60, 1);
    bad = {image.last()};
    is_refused("its GPT is refused: the checksum of its header is wrong");
}
TEST_P(Defect, EntriesOfBothTables) {
    write_two();
    image.put<u8>(2 * header() + 56, 'O');
    image.put<u8>((image.last() - gpt.entries_sectors) * image.sector_size, 0);
    is_refused("its GPT is refused: the checksum of its entries is wrong");
}

// --- What no backup helps against.
TEST_P(Table, AnotherRevisionIsRefused) {
    gpt.revision = 0x2'0000;
    write_two();
    is_refused("its GPT is refused: its revision is not supported");
}
TEST_P(Table, MoreEntriesAreRefused) {
    for (u32 const count : {129U, ~0U}) {
        gpt.entry_count = count;
        write_two();
        is_refused("its GPT is refused: it has more than 128 entries");
    }
}
TEST_P(Table, NoEntriesAreRefused) {
    gpt.entry_count = 0;
    write_two();
    is_refused("its GPT is refused: it has no entries");
}
TEST_P(Table, OtherSizesOfEntriesAreRefused) {
    for (u32 const size : {0U, 64U, 136U, 1024U, 0x8000'0000U}) {
        gpt.entry_size = size;
        gpt.parts.clear();
        gpt.write();
        is_refused("its GPT is refused: the size of its entries is not supported");
    }
}
TEST_P(Table, UsableSectorsOutsideOfTheDiskAreRefused) {
    u64 const last = gpt.last_usable;
    for (auto const& [from, to] :
         {std::pair<u64, u64>{1, last}, {last, last - 1}, {50, image.sectors()}, {50, ~u64{0}}}) {
        gpt.first_usable = from;
        gpt.last_usable = to;
        gpt.write();
        is_refused("its GPT is refused: its usable sectors are not inside of the disk");
    }
}
TEST_P(Table, PartitionOutsideOfTheUsableSectorsIsRefused) {
    u64 const first = gpt.first_usable, last = gpt.last_usable;
    for (auto const& [from, to] :
         {std::pair<u64, u64>{first - 1, 60}, {60, last + 1}, {60, 59}, {60, ~u64{0}}, {~u64{0}, ~u64{0}}, {0, 0}}) {
        gpt.parts = {{70, 70, u"good"}, {from, to, u"bad"}};
        gpt.write();
        is_refused("its GPT is refused: a partition is not inside of the usable sectors");
    }
}
TEST_P(Table, OverlapIsRefused) {
    for (auto const& [from, to] : {std::pair<u64, u64>{60, 70}, {80, 90}, {72, 75}, {60, 90}, {70, 80}}) {
        gpt.parts = {{70, 80, u"one"}, {100, 100, u"between"}, {from, to, u"two"}};
        gpt.write();
        is_refused("its GPT is refused: partitions overlap");
    }
}
TEST_P(Table, GptWithoutAProtectiveMbrIsRefused) {
    write_two();
    image.put<u16>(510, 0);
    is_refused("its GPT is refused: there is no protective MBR");
}

// --- Other tables.
TEST_P(Table, MbrPartitionsAreNobodysToWriteTo) {
    image.put_mbr_part(0, 0x83, 8, 16);
    image.put_mbr_part(2, 0x07, 24, 8);
    run();
    EXPECT_EQ(table.note(), "");
    ASSERT_EQ(table.partitions().size(), 2U);
    EXPECT_STREQ(table.partitions()[0].label, "mbr1");
    EXPECT_STREQ(table.partitions()[0].note, "MBR partition");
    EXPECT_EQ(table.partitions()[0].first, u64{8} * image.sector_size);
    EXPECT_EQ(table.partitions()[0].size, u64{16} * image.sector_size);
    EXPECT_STREQ(table.partitions()[1].label, "mbr3");
    EXPECT_STREQ(table.partitions()[1].guid, "");
}
TEST_P(Table, MbrPartitionOutsideOfTheDiskIsRefused) {
    auto const sectors = static_cast<u32>(image.sectors());
    for (auto const& [from, count] : {std::pair<u32, u32>{0, 1}, {1, sectors}, {sectors, 1}, {~0U, ~0U}}) {
        image.put_mbr_part(1, 0x83, from, count);
        is_refused("its MBR is refused: a partition is not inside of the disk");
    }
}
TEST_P(Table, OverlapOfMbrPartitionsIsRefused) {
    image.put_mbr_part(0, 0x83, 8, 16);
    image.put_mbr_part(1, 0x83, 23, 16);
    is_refused("its MBR is refused: partitions overlap");
}
TEST_P(Table, GptWithAHybridMbrIsGpt) {
    write_two();
    image.put_mbr_part(1, 0x83, 100, 5);
    is_good();
}
TEST_P(Table, BootSectorOfAFileSystemIsNoTable) {
    std::ranges::fill(image.part(446, 64), u8{'x'});
    image.put<u16>(510, 0xaa55);
    is_good();
}
TEST_P(Table, EmptyDiskHasNoPartitionsAndNoNote) { is_good(); }

// --- Members of others.
TEST_P(Table, WholeDiskCanBeAMemberOfLvm) {
    for (u64 const at : {0U, 512U, 1024U, 1536U}) {
        std::ranges::fill(image.bytes, u8{0});
        image.put_text(at, "LABELONE");
        is_good();
        image.put_text(at + 24, "LVM2 001");
        is_refused("member of LVM2");
    }
    std::ranges::fill(image.bytes, u8{0});
    image.put_text(2048, "LABELONE");
    image.put_text(2048 + 24, "LVM2 001");
    is_good();
}
TEST_P(Table, WholeDiskCanBeAMemberOfMdraid) {
    for (u64 const at : {u64{0}, u64{4096}, image.bytes.size() - 8192, image.bytes.size() - 65536}) {
        std::ranges::fill(image.bytes, u8{0});
        image.put<u32>(at, 0xa92b'4efc);
        is_refused("member of mdraid");
    }
}
// Those who make an array or a volume of a whole disk can leave the table, or its backup, that was there before.
TEST_P(Table, OldTableOfAMemberCountsForNothing) {
    write_two();
    image.put<u32>(4096, 0xa92b'4efc); // among the entries, or in the header: the backup is whole
    is_refused("member of mdraid");
    write_two();
    image.put<u32>(4096, 0);
    image.put_text(1024, "LABELONE");
    image.put_text(1024 + 24, "LVM2 001");
    is_refused("member of LVM2");
    std::ranges::fill(image.bytes, u8{0});
    image.put_mbr_part(0, 0x83, 10, 90);
    image.put<u32>(4096, 0xa92b'4efc);
    is_refused("member of mdraid");
}
TEST_P(Table, OldSuperblockAtTheDisksEndIsTheDisksWhereNoPartitionIs) {
    u64 const at = image.bytes.size() - 65536;
    write_one(); // ends before it
    image.put<u32>(at, 0xa92b'4efc);
    run();
    EXPECT_EQ(table.note(), "member of mdraid");
    ASSERT_EQ(table.partitions().size(), 1U);
    EXPECT_STREQ(table.partitions()[0].note, "member of mdraid");
    gpt.parts.push_back({gpt.parts[0].last + 1, gpt.last_usable, u"last"}); // holds it, but not as its own
    gpt.write();
    is_good();
    EXPECT_STREQ(table.partitions()[0].note, "");
}
TEST_P(Table, PartitionsCanBeMembers) {
    u64 const begin = write_one(), size = 12 * 65536;
    image.put_text(begin + 512, "LABELONE");
    image.put_text(begin + 512 + 24, "LVM2 001");
    run();
    ASSERT_EQ(table.partitions().size(), 1U);
    EXPECT_STREQ(table.partitions()[0].note, "member of LVM2");
    for (u64 const at : {u64{0}, u64{4096}, size - 8192, size - 65536}) {
        std::ranges::fill(image.part(begin, size), u8{0});
        image.put<u32>(begin + at, 0xa92b'4efc);
        run();
        EXPECT_EQ(table.note(), "");
        ASSERT_EQ(table.partitions().size(), 1U);
        EXPECT_STREQ(table.partitions()[0].note, "member of mdraid") << at;
    }
}
TEST_P(Table, EachPartitionIsLookedAtFromItsBegin) {
    write_two();
    image.put<u32>(gpt.parts[0].first * image.sector_size, 0xa92b'4efc);
    image.put_text(gpt.parts[1].first * image.sector_size, "LABELONE");
    image.put_text(gpt.parts[1].first * image.sector_size + 24, "LVM2 001");
    run();
    ASSERT_EQ(table.partitions().size(), 2U);
    EXPECT_STREQ(table.partitions()[0].note, "member of mdraid");
    EXPECT_STREQ(table.partitions()[1].note, "member of LVM2");
}
TEST_P(Table, SuperblockIsAtAMultipleOf4KiBOfAnyPartition) {
    gpt.parts = {{50, 50 + 13 * 4096 / image.sector_size, u"odd"}}; // 13 times 4 KiB and one sector
    gpt.write();
    u64 const size = 13 * 4096 + image.sector_size;
    image.put<u32>(u64{50} * image.sector_size + (size - 8192) / 4096 * 4096, 0xa92b'4efc);
    run();
    ASSERT_EQ(table.partitions().size(), 1U);
    EXPECT_STREQ(table.partitions()[0].note, "member of mdraid");
}
TEST_P(Table, PartitionsOfAnArraysMemberAreItsOwn) {
    write_two();
    image.put<u32>(image.bytes.size() - 8192, 0xa92b'4efc);
    // The array ends before the superblock, so the disk's last sectors hold no backup.
    run();
    EXPECT_EQ(table.note(), "member of mdraid");
    for (auto const& part : table.partitions())
        EXPECT_STREQ(part.note, "member of mdraid");
}

// --- Sectors that cannot be read, and strange disks.
TEST_P(Table, UnreadableFirstSectorsAreNoted) {
    bad = {1};
    is_refused("its first sectors cannot be read");
    EXPECT_EQ(reads, 1U);
}
TEST_P(Table, UnreadablePartitionIsNoted) {
    write_two();
    bad = {100};
    run();
    ASSERT_EQ(table.partitions().size(), 2U);
    EXPECT_STREQ(table.partitions()[0].note, "");
    EXPECT_STREQ(table.partitions()[1].note, "it cannot be read");
}
TEST_P(Table, UnreadableEndIsNoted) {
    bad = {image.sectors() - 8192 / image.sector_size};
    is_refused("its end cannot be read");
}
TEST_P(Table, ReadsEndAfterAFewFailures) {
    for (u64 i = 0; i < 60; i++) {
        gpt.parts.push_back({gpt.first_usable + 8 + i, gpt.first_usable + 8 + i, u"x"});
        bad.insert(gpt.first_usable + 8 + i);
    }
    gpt.write();
    run();
    EXPECT_LE(reads, 8U);
    ASSERT_EQ(table.partitions().size(), 60U);
    for (auto const& part : table.partitions())
        EXPECT_STREQ(part.note, "it cannot be read");
}
TEST_P(Table, ShortAnswerIsAFailure) {
    table.start(image.sectors(), image.sector_size);
    table.got(image.part(0, 100));
    EXPECT_TRUE(table.is_done());
    EXPECT_EQ(table.note(), "its first sectors cannot be read");
}
TEST_P(Table, TinyDisksAreRead) {
    for (u64 sectors = 0; sectors < 8; sectors++) {
        image.bytes.assign(sectors * image.sector_size, 0);
        is_good();
        if (sectors == 0) continue;
        image.put_mbr_part(0, 0xee, 1, 1);
        is_refused("its GPT is refused: " +
                   std::string(sectors == 1 ? "its header cannot be read" : "it has no header"));
    }
}
TEST(TableOfADisk, StrangeSizesAreRefusedWithoutReads) {
    PartitionTable table;
    EXPECT_TRUE(table.is_done());
    for (auto const& [sectors, size] :
         {std::pair<u64, u32>{100, 0}, {100, 256}, {100, 8192}, {100, 520}, {~u64{0}, 512}, {u64{1} << 60, 4096}}) {
        table.start(sectors, size);
        EXPECT_TRUE(table.is_done());
        EXPECT_EQ(table.note(), "its size is not supported");
    }
}
TEST(TableOfADisk, ChecksumIsTheOneOfTheSpecification) {
    storage::Crc32 crc;
    std::string_view const text = "123456789";
    crc.add({reinterpret_cast<u8 const*>(text.data()), text.size()});
    EXPECT_EQ(crc.value(), 0xcbf4'3926U);
}

} // namespace
