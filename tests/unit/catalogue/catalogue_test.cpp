// SPDX-License-Identifier: MIT
#include "disk_image.hpp"

#include <gtest/gtest.h>
#include <list>
#include <memory>
#include <storage/catalogue.hpp>

using namespace catalogue_test;
using storage::CatalogueWriter;
using storage::Controllers;
namespace service = lib::service;
using service::DiskState;

namespace {

// A controller whose disks are images. It fails the test on every command that a driver need not take.
class FakeController final : public block::Controller {
public:
    explicit FakeController(block::Function::Shared memory) : memory_(memory) {}

    Image& add_disk(std::string_view serial = "S", u32 sector_size = 512, u64 size = u64{1} << 20) {
        Image& image = images_.emplace_back(sector_size, size);
        block::DiskFacts& facts = facts_.emplace_back(
            block::DiskFacts{image.sectors(), sector_size, false, true, {}, {}, 100 + static_cast<u32>(facts_.size())});
        std::ranges::copy(serial, facts.serial.begin());
        std::ranges::copy(std::string_view("Model"), facts.model.begin());
        return image;
    }
    block::DiskFacts& facts(u32 disk) { return facts_[disk]; }

    u32 poll(u64, std::span<block::Ended> ended) override {
        if (!under_way_.has_value() || !has_rung_ || is_stuck) return 0;
        ended[0] = *under_way_;
        under_way_.reset();
        return 1;
    }
    u64 deadline() const override { return never; }
    State state() const override { return now_is; }
    std::string_view failure() const override { return "it does not answer"; }
    std::span<block::DiskFacts const> disks() const override { return facts_; }
    block::Limits limits() const override { return limit; }
    bool submit(block::Command const& command, u64) override {
        EXPECT_EQ(now_is, State::Ready);
        if (refusals > 0) {
            refusals--;
            return false;
        }
        EXPECT_FALSE(under_way_.has_value()) << "one read at a time";
        EXPECT_EQ(command.operation, block::Operation::Read);
        EXPECT_EQ(command.pieces.size(), 1U);
        auto const [address, size] = command.pieces[0];
        Image& image = *std::next(images_.begin(), command.disk);
        EXPECT_TRUE(size != 0 && size % image.sector_size == 0 && size <= limit.most_bytes);
        EXPECT_TRUE(address % limit.alignment == 0 && size % limit.alignment == 0);
        EXPECT_LE(address + size - 1, limit.highest_address);
        EXPECT_LE(command.sector + size / image.sector_size, image.sectors());
        bool const is_inside = address >= memory_.address && address + size <= memory_.address + memory_.bytes.size();
        EXPECT_TRUE(is_inside);
        if (!is_inside) return false;
        std::ranges::copy(image.part(command.sector * image.sector_size, size),
                          memory_.bytes.begin() + static_cast<long>(address - memory_.address));
        under_way_ = {command.tag, fails_reads ? block::Status::Failed : block::Status::Good};
        has_rung_ = false;
        reads++;
        return true;
    }
    void ring() override { has_rung_ = true; }

    State now_is = State::Ready;
    block::Limits limit{65536, 8, 512, 4096, 0xffff'ffff, 1};
    bool fails_reads = false, is_stuck = false;
    u32 refusals = 0, reads = 0;

private:
    block::Function::Shared memory_;
    std::list<Image> images_;
    std::vector<block::DiskFacts> facts_;
    std::optional<block::Ended> under_way_;
    bool has_rung_ = false;
};

class Catalogue : public testing::Test {
protected:
    static constexpr u32 buffer_size = 16384;
    std::unique_ptr<service::Catalogue> catalogue = std::make_unique<service::Catalogue>();
    Controllers controllers;
    std::unique_ptr<CatalogueWriter> writer = std::make_unique<CatalogueWriter>(controllers, *catalogue);
    std::list<std::vector<u8>> memories;
    std::list<FakeController> fakes;

    FakeController& add(u32 number, u32 size = buffer_size) {
        block::Function::Shared const memory{memories.emplace_back(size), 0x10'0000 * (u64{number} + 1)};
        FakeController& fake = fakes.emplace_back(memory);
        controllers.add(number, fake, memory);
        writer->add(number, memory);
        return fake;
    }
    bool turn() {
        controllers.poll(service::event_board, 0);
        bool const has_news = writer->turn(0);
        controllers.ring();
        EXPECT_TRUE(!has_news || catalogue->is_complete != 0);
        return has_news;
    }
    // Until it has news, which it then has once.
    void run() {
        for (u32 i = 0; !turn(); i++)
            ASSERT_LT(i, 10'000U);
        for (u32 i = 0; i < 3; i++)
            EXPECT_FALSE(turn());
    }
    void never_completes() {
        for (u32 i = 0; i < 1000; i++)
            ASSERT_FALSE(turn());
        EXPECT_EQ(catalogue->is_complete, 0U);
    }
    static void put_parts(Image& image, u32 count, char16_t name = u'p') {
        Gpt gpt(image);
        for (u64 i = 0; i < count; i++)
            gpt.parts.push_back({gpt.first_usable + i, gpt.first_usable + i, std::u16string(1, name)});
        gpt.write();
    }
};

TEST_F(Catalogue, IsCompleteAtOnceWithoutControllers) {
    EXPECT_TRUE(turn());
    EXPECT_FALSE(turn());
    EXPECT_EQ(catalogue->disk_count, 0U);
}

TEST_F(Catalogue, HasDisksAndPartitionsOfAllControllers) {
    FakeController& first = add(1);
    FakeController& second = add(6);
    put_parts(first.add_disk("A"), 2, u'a');
    put_parts(first.add_disk("B", 4096), 1, u'b');
    put_parts(second.add_disk("C"), 3, u'c');
    first.facts(1).is_read_only = true;
    run();
    ASSERT_EQ(catalogue->disk_count, 3U);
    EXPECT_EQ(catalogue->partition_count, 6U);
    struct Expected {
        u32 controller, unit, sector_size, is_read_only, partitions;
        char const *serial, *label;
    };
    constexpr Expected expected[] = {
        {1, 100, 512, 0, 2, "A", "a"}, {1, 101, 4096, 1, 1, "B", "b"}, {6, 100, 512, 0, 3, "C", "c"}};
    for (u32 i = 0; i < 3; i++) {
        service::DiskEntry const& disk = catalogue->disks[i];
        EXPECT_EQ(disk.controller, expected[i].controller);
        EXPECT_EQ(disk.unit, expected[i].unit);
        EXPECT_EQ(disk.state, DiskState::Ready);
        EXPECT_EQ(disk.sector_size, expected[i].sector_size);
        EXPECT_EQ(disk.sectors, (u64{1} << 20) / disk.sector_size);
        EXPECT_EQ(disk.is_read_only, expected[i].is_read_only);
        EXPECT_STREQ(disk.serial, expected[i].serial);
        EXPECT_STREQ(disk.model, "Model");
        EXPECT_STREQ(disk.note, "");
        ASSERT_EQ(disk.partition_count, expected[i].partitions);
        for (u32 part = 0; part < disk.partition_count; part++)
            EXPECT_STREQ(catalogue->partitions[disk.first_partition + part].label, expected[i].label);
    }
}

TEST_F(Catalogue, IsInOrderOfControllersWhateverBecomesReadyFirst) {
    FakeController& late = add(0);
    late.now_is = block::Controller::State::Starting;
    put_parts(late.add_disk("late"), 1, u'l');
    put_parts(add(1).add_disk("early"), 1, u'e');
    never_completes();
    late.now_is = block::Controller::State::Ready;
    run();
    ASSERT_EQ(catalogue->disk_count, 2U);
    EXPECT_STREQ(catalogue->disks[0].serial, "late");
    EXPECT_STREQ(catalogue->partitions[catalogue->disks[0].first_partition].label, "l");
    EXPECT_STREQ(catalogue->disks[1].serial, "early");
    EXPECT_STREQ(catalogue->partitions[catalogue->disks[1].first_partition].label, "e");
}

TEST_F(Catalogue, ControllerWithoutDisksIsInNoEntry) {
    add(0);
    run();
    EXPECT_EQ(catalogue->disk_count, 0U);
}

TEST_F(Catalogue, FailedControllerIsADiskWithoutSize) {
    add(3).now_is = block::Controller::State::Failed;
    run();
    ASSERT_EQ(catalogue->disk_count, 1U);
    EXPECT_EQ(catalogue->disks[0].state, DiskState::Failed);
    EXPECT_EQ(catalogue->disks[0].controller, 3U);
    EXPECT_EQ(catalogue->disks[0].sectors, 0U);
    EXPECT_STREQ(catalogue->disks[0].note, "it does not answer");
}

TEST_F(Catalogue, ControllerThatFailsDuringAReadIsFailed) {
    FakeController& fake = add(0);
    put_parts(fake.add_disk(), 2);
    fake.is_stuck = true;
    never_completes();
    EXPECT_EQ(fake.reads, 1U);
    fake.now_is = block::Controller::State::Failed;
    run();
    ASSERT_EQ(catalogue->disk_count, 1U);
    EXPECT_EQ(catalogue->disks[0].state, DiskState::Failed);
    fake.is_stuck = false; // its read ends late
    EXPECT_FALSE(turn());
    EXPECT_EQ(catalogue->partition_count, 0U);
}

TEST_F(Catalogue, ControllerThatFailsLaterTakesItsPartitionsAlong) {
    FakeController& fake = add(0);
    put_parts(fake.add_disk("A"), 2);
    put_parts(fake.add_disk("B"), 2);
    put_parts(add(1).add_disk("C"), 2);
    run();
    fake.now_is = block::Controller::State::Failed;
    run();
    ASSERT_EQ(catalogue->disk_count, 3U);
    for (u32 i = 0; i < 3; i++) {
        EXPECT_EQ(catalogue->disks[i].state, i < 2 ? DiskState::Failed : DiskState::Ready);
        EXPECT_EQ(catalogue->disks[i].partition_count, i < 2 ? 0U : 2U);
        EXPECT_STREQ(catalogue->disks[i].note, i < 2 ? "it does not answer" : "");
    }
}

TEST_F(Catalogue, ReadThatIsNotTakenIsTriedAgain) {
    FakeController& fake = add(0);
    put_parts(fake.add_disk(), 2);
    fake.refusals = 20;
    run();
    EXPECT_EQ(catalogue->partition_count, 2U);
}

TEST_F(Catalogue, ReadErrorsAreNoted) {
    FakeController& fake = add(0);
    put_parts(fake.add_disk(), 2);
    fake.fails_reads = true;
    run();
    ASSERT_EQ(catalogue->disk_count, 1U);
    EXPECT_EQ(catalogue->disks[0].state, DiskState::Ready);
    EXPECT_STREQ(catalogue->disks[0].note, "its first sectors cannot be read");
    EXPECT_EQ(catalogue->partition_count, 0U);
}

TEST_F(Catalogue, LargestCommandIsObeyed) {
    for (u32 const sector_size : {512U, 4096U}) {
        FakeController& fake = add(sector_size == 512 ? 0 : 1);
        fake.limit.most_bytes = 4096;
        put_parts(fake.add_disk("S", sector_size), 5);
    }
    run();
    EXPECT_EQ(catalogue->partition_count, 10U);
}

TEST_F(Catalogue, BufferThatTheDeviceCannotUseIsAReadError) {
    FakeController& far = add(0);
    far.limit.highest_address = 0x10'0000 + buffer_size - 2;
    put_parts(far.add_disk(), 1);
    put_parts(add(1, 4096).add_disk(), 1);
    run();
    ASSERT_EQ(catalogue->disk_count, 2U);
    EXPECT_STREQ(catalogue->disks[0].note, "its first sectors cannot be read");
    EXPECT_STREQ(catalogue->disks[1].note, "its first sectors cannot be read");
    EXPECT_EQ(far.reads, 0U);
}

TEST_F(Catalogue, DisksThatDoNotFitAreLeftOut) {
    FakeController& fake = add(0);
    for (u32 i = 0; i <= service::max_machine_disks; i++)
        fake.add_disk("S", 512, 65536);
    run();
    EXPECT_EQ(fake.reads, 17U * 2); // the begin, and the place of a superblock at the end
    ASSERT_EQ(catalogue->disk_count, service::max_machine_disks);
    EXPECT_STREQ(catalogue->disks[14].note, "");
    EXPECT_STREQ(catalogue->disks[15].note, "disks are left out: there are more than 16");
}

TEST_F(Catalogue, PartitionsThatDoNotFitAreLeftOutAndTheirDiskSaysSo) {
    FakeController& fake = add(0);
    put_parts(fake.add_disk("A"), 100, u'a');
    put_parts(fake.add_disk("B"), 100, u'b');
    put_parts(fake.add_disk("C"), 1, u'c');
    fake.add_disk("D");
    run();
    EXPECT_EQ(catalogue->partition_count, service::max_partitions);
    constexpr u32 counts[] = {100, 28, 0, 0};
    constexpr std::string_view note = "partitions are left out: there are more than 128";
    for (u32 i = 0; i < 4; i++) {
        EXPECT_EQ(catalogue->disks[i].partition_count, counts[i]);
        EXPECT_EQ(std::string_view(catalogue->disks[i].note), i == 1 || i == 2 ? note : "");
    }
}

TEST_F(Catalogue, NoteIsAddedToAnother) {
    FakeController& fake = add(0);
    put_parts(fake.add_disk("A"), 128);
    Image& image = fake.add_disk("B");
    put_parts(image, 1);
    image.put<u8>(512, 0); // the first header
    run();
    EXPECT_STREQ(catalogue->disks[1].note, "the backup of its GPT is used: it has no header; "
                                           "partitions are left out: there are more than 128");
}

TEST_F(Catalogue, LongSerialNumberEndsWithNul) {
    FakeController& fake = add(0);
    fake.add_disk();
    fake.facts(0).serial.fill('s');
    run();
    EXPECT_EQ(std::string_view(catalogue->disks[0].serial), std::string(23, 's'));
}

} // namespace
