// SPDX-License-Identifier: MIT
#include "virtio_harness.hpp"

namespace virtio_test {
namespace {

TEST_F(VirtioTest, ADiskIsFoundWithItsFacts) {
    device.blk_size = 4096;
    ASSERT_EQ(start(), Controller::State::Ready);
    ASSERT_EQ(driver->disks().size(), 1U);
    block::DiskFacts const& disk = driver->disks()[0];
    EXPECT_EQ(disk.sectors, 256U);
    EXPECT_EQ(disk.sector_size, 4096U);
    EXPECT_TRUE(disk.has_write_cache);
    EXPECT_FALSE(disk.is_read_only);
    EXPECT_STREQ(disk.serial.data(), "SN-0123456789");
    EXPECT_STREQ(disk.model.data(), "virtio");
    EXPECT_EQ(driver->limits().depth, 128U);
    EXPECT_EQ(driver->limits().most_pieces, 126U);
    EXPECT_EQ(driver->limits().most_bytes, 1024U * 1024);
    EXPECT_EQ(driver->deadline(), Controller::never);
}

TEST_F(VirtioTest, ADeviceWithoutSerialNumberWorks) {
    device.answers_id = false;
    ASSERT_EQ(start(), Controller::State::Ready);
    EXPECT_STREQ(driver->disks()[0].serial.data(), "");
}

TEST_F(VirtioTest, DataOfManyPiecesGoesToTheDiskAndBack) {
    for (u64 const features : {INDIRECT | FLUSH | SEG_MAX, u64{SEG_MAX}}) {
        device.features = features | VERSION_1;
        ASSERT_EQ(start(), Controller::State::Ready);
        for (u32 i = 0; i < 2048; i++)
            device.ram[i] = static_cast<u8>(i * 7);
        ASSERT_TRUE(submit(Operation::Write, 1, 9, {{ram, 3}, {ram + 3, 1021}, {ram + 1024, 1024}}));
        driver->ring();
        ASSERT_TRUE(read(2, 10, {{ram + 0x1'0000, 512}, {ram + 0x2'0000, 1024}}));
        poll();
        EXPECT_EQ(ended, (std::map<u32, Status>{{1, Status::Good}, {2, Status::Good}}));
        EXPECT_TRUE(std::equal(device.ram.begin() + 512, device.ram.begin() + 1024, device.ram.begin() + 0x1'0000));
        EXPECT_TRUE(std::equal(device.ram.begin() + 1024, device.ram.begin() + 2048, device.ram.begin() + 0x2'0000));
        ended.clear();
    }
}

TEST_F(VirtioTest, SectorsOf4096BytesAreCountedIn512) {
    device.blk_size = 4096;
    ASSERT_EQ(start(), Controller::State::Ready);
    device.ram[0] = 0x77;
    ASSERT_TRUE(submit(Operation::Write, 1, 255, {{ram, 4096}}));
    driver->ring();
    poll();
    EXPECT_EQ(ended.at(1), Status::Good);
    EXPECT_EQ(device.disk[u64{255} * 4096], 0x77);
}

TEST_F(VirtioTest, AFlushReachesADeviceWithACacheOnly) {
    ASSERT_EQ(start(), Controller::State::Ready);
    ASSERT_TRUE(submit(Operation::Flush, 1, 0, {}));
    driver->ring();
    poll();
    EXPECT_EQ(device.flushes, 1U);
    device.features = VERSION_1;
    ASSERT_EQ(start(), Controller::State::Ready);
    EXPECT_FALSE(driver->disks()[0].has_write_cache);
    ASSERT_TRUE(submit(Operation::Flush, 2, 0, {}));
    EXPECT_EQ(driver->deadline(), 0U);
    poll();
    EXPECT_EQ(device.flushes, 1U);
    EXPECT_EQ(ended, (std::map<u32, Status>{{1, Status::Good}, {2, Status::Good}}));
}

TEST_F(VirtioTest, ADeviceOfShortSegmentsGetsLargePiecesCut) {
    device.features |= SIZE_MAX_FEATURE;
    device.size_max = 5000;
    device.seg_max = 10;
    ASSERT_EQ(start(), Controller::State::Ready);
    block::Limits const limits = driver->limits();
    EXPECT_EQ(limits.most_bytes, 24'576U);
    EXPECT_EQ(limits.most_pieces, 5U);
    ASSERT_TRUE(read(1, 0, {{ram, 5001}, {ram + 0x1'0000, 1}, {ram + 0x2'0000, 5001}, {ram, 5001}, {ram, 9572}}));
    poll();
    EXPECT_EQ(ended.at(1), Status::Good);
}

TEST_F(VirtioTest, ItTakesAsManyCommandsAsItsDepth) {
    for (u64 const features : {INDIRECT | SEG_MAX, u64{SEG_MAX}}) {
        device.features = features | VERSION_1;
        device.holds = false;
        ASSERT_EQ(start(), Controller::State::Ready);
        device.holds = true;
        u32 const depth = driver->limits().depth;
        EXPECT_EQ(depth, features == u64{SEG_MAX} ? 8U : 128U);
        u32 const doorbells = device.doorbells;
        for (u32 i = 0; i < depth; i++)
            ASSERT_TRUE(submit(Operation::Read, i, i, std::vector<Piece>(driver->limits().most_pieces, {ram, 512})));
        EXPECT_FALSE(submit(Operation::Read, depth, 0, {{ram, 512}}));
        driver->ring();
        driver->ring();
        EXPECT_EQ(device.doorbells, doorbells + 1);
        while (!device.pending.empty()) // the last one first
            device.complete(device.pending.size() - 1);
        poll();
        EXPECT_EQ(ended.size(), depth);
        ended.clear();
        ASSERT_TRUE(read(0, 0, {{ram, 512}}));
        device.complete_all();
        poll();
        ended.clear();
    }
}

TEST_F(VirtioTest, NoDoorbellRingsThatTheDeviceDoesNotWant) {
    ASSERT_EQ(start(), Controller::State::Ready);
    u32 const doorbells = device.doorbells;
    u16 const flag = 1;
    std::memcpy(device.reach(device.used_address(), 2), &flag, 2);
    ASSERT_TRUE(read(1, 0, {{ram, 512}}));
    EXPECT_EQ(device.doorbells, doorbells);
    device.take();
    device.complete_all();
    poll();
    EXPECT_EQ(ended.at(1), Status::Good);
}

TEST_F(VirtioTest, AnErrorOfTheDeviceEndsOneCommandOnly) {
    device.bad_sectors[7] = 1;
    device.bad_sectors[8] = 0x42;
    ASSERT_EQ(start(), Controller::State::Ready);
    for (u32 tag = 6; tag < 10; tag++)
        ASSERT_TRUE(read(tag, tag, {{ram, 512}}));
    poll();
    EXPECT_EQ(ended,
              (std::map<u32, Status>{{6, Status::Good}, {7, Status::Failed}, {8, Status::Failed}, {9, Status::Good}}));
    EXPECT_EQ(device.resets, 1U);
}

TEST_F(VirtioTest, AQueueOfAnotherSizeIsUsed) {
    device.most_queue = 4;
    ASSERT_EQ(start(), Controller::State::Ready);
    EXPECT_EQ(driver->limits().most_pieces, 2U);
    EXPECT_EQ(driver->limits().depth, 4U);
    for (u32 i = 0; i < 20; i++) {
        ASSERT_TRUE(read(i, i, {{ram, 512}, {ram + 512, 512}}));
        poll();
    }
    EXPECT_EQ(ended.size(), 20U);
    device.features = VERSION_1;
    device.most_queue = 100; // only a power of two is allowed, but the device is not believed
    ASSERT_EQ(start(), Controller::State::Ready);
    EXPECT_EQ(driver->limits().depth, 4U);
}

TEST_F(VirtioTest, FeaturesThatTheDriverDoesNotKnowAreNotAccepted) {
    device.features = VERSION_1 | RO | EVENT_INDEX | CONFIG_WCE | u64{1} << 33 | u64{1} << 36 | u64{1} << 34;
    ASSERT_EQ(start(), Controller::State::Ready);
    EXPECT_TRUE(driver->disks()[0].is_read_only);
    EXPECT_EQ(driver->limits().most_pieces, 1U);
}

} // namespace
} // namespace virtio_test
