// SPDX-License-Identifier: MIT
// Devices that lie, are silent or go away.
#include "virtio_harness.hpp"

namespace virtio_test {
namespace {

class VirtioFaultTest : public VirtioTest {
protected:
    // Starts with what `change` has made of configuration space.
    void start_with(std::function<void()> const& change) {
        device.describe();
        change();
        driver = std::make_unique<Virtio>(device);
        run(2000);
    }
};

TEST_F(VirtioFaultTest, CapabilitiesThatLieAreRefused) {
    start_with([&] { device.add_capability(0xa0, 0x60, 4, 4, 0x300, 0x3c); });
    expect_failure("has a list of capabilities without an end");
    start_with([&] { device.put<u32>(0x34, 0x20); });
    expect_failure("has a capability inside of the header of its configuration space");
    start_with([&] { device.put<u32>(4, 0); });
    expect_failure("has no registers of virtio 1.0 or later");
    start_with([&] { device.put<u32>(0x34, 0xf8), device.put<u32>(0xf8, 0x0110'0009); });
    expect_failure("has a capability that is too short");
    start_with([&] { device.add_capability(0x60, 0x70, 1, 4, 0x100, 0x38, 15); });
    expect_failure("has a capability that is too short");
    start_with([&] { device.add_capability(0x60, 0x70, 1, 0, 0x100, 0x38); });
    expect_failure("has registers in a BAR that is not memory");
    for (u32 const bar : {1U, 6U, 255U}) {
        start_with([&] { device.add_capability(0x60, 0x70, 1, bar, 0x100, 0x38); });
        expect_failure("has registers in a BAR that is not there");
    }
    for (u32 const offset : {0x4000U, 0x3fccU, 0x102U, 0xffff'fffcU}) {
        start_with([&] { device.add_capability(0x60, 0x70, 1, 4, offset, 0x38); });
        expect_failure("has registers that are not inside of their BAR");
    }
    device.is_gone = true;
    start_with([] {});
    expect_failure("does not answer");
}

TEST_F(VirtioFaultTest, TheFirstUsableOfSeveralStructuresIsTaken) {
    start_with([&] {
        device.add_capability(0x60, 0xb0, 1, 0, 0, 0x38);
        device.add_capability(0xb0, 0xc0, 1, 4, VirtioFake::common_at, 0x38);
        device.add_capability(0xc0, 0x70, 1, 4, 0x3000, 0x38);
    });
    EXPECT_EQ(driver->state(), Controller::State::Ready);
}

TEST_F(VirtioFaultTest, ADeviceThatCannotBeDrivenSaysWhy) {
    device.features = FLUSH;
    EXPECT_EQ(start(), Controller::State::Failed);
    expect_failure("is older than virtio 1.0");
    device.features = VERSION_1 | BLK_SIZE;
    device.has_no_vector = true;
    start();
    expect_failure("has no MSI-X vector for its queue");
    device.has_no_vector = false;
    device.refuses_features = true;
    start();
    expect_failure("refuses a part of its own features");
    device.refuses_features = false;
    for (u32 const size : {0U, 256U, 513U, 8192U}) {
        device.blk_size = size;
        start();
        expect_failure("has sectors of a size that is not supported");
    }
    device.blk_size = 512;
    device.most_queue = 2;
    start();
    expect_failure("has no queue that is long enough");
    device.most_queue = 8;
    device.notify_off = 0x400;
    start();
    expect_failure("has a doorbell that is not among its registers");
    device.notify_off = 1;
    device.changing_generations = 1000;
    start();
    expect_failure("changes its configuration all the time");
    device.changing_generations = 3;
    EXPECT_EQ(start(), Controller::State::Ready);
    device.features |= SIZE_MAX_FEATURE;
    start();
    expect_failure("takes too little at once");
    start_with([&] { device.add_capability(0xa0, 0, 4, 4, VirtioFake::config_at, 20); });
    expect_failure("has a configuration that is too short");
}

TEST_F(VirtioFaultTest, AResetThatNeverEndsIsGivenUp) {
    device.reset_reads = 100;
    device.describe();
    driver = std::make_unique<Virtio>(device);
    run(200);
    EXPECT_EQ(driver->state(), Controller::State::Ready);
    device.never_resets = true;
    driver = std::make_unique<Virtio>(device);
    run(2000);
    expect_failure("does not end its reset");
}

TEST_F(VirtioFaultTest, ACommandWithoutAnswerEndsWhenTheDeviceHasBeenReset) {
    ASSERT_EQ(start(), Controller::State::Ready);
    device.holds = true;
    ASSERT_TRUE(read(1, 0, {{ram, 512}}));
    ASSERT_TRUE(read(2, 0, {{ram, 512}}));
    run(29'000);
    EXPECT_TRUE(ended.empty());
    device.reset_reads = 50;
    run(1'010);
    EXPECT_EQ(device.resets, 2U);
    EXPECT_TRUE(ended.empty()); // the device may still write to their memory
    EXPECT_FALSE(read(3, 0, {{ram, 512}}));
    EXPECT_EQ(driver->state(), Controller::State::Ready);
    run(100);
    EXPECT_EQ(ended, (std::map<u32, Status>{{1, Status::Failed}, {2, Status::Failed}}));
    device.holds = false;
    ASSERT_TRUE(read(3, 0, {{ram, 512}}));
    poll();
    EXPECT_EQ(ended.at(3), Status::Good);
}

TEST_F(VirtioFaultTest, ADeviceThatNeverAnswersIsGivenUp) {
    ASSERT_EQ(start(), Controller::State::Ready);
    device.holds = true;
    for (u32 tag = 0; tag < 4; tag++) {
        ASSERT_TRUE(read(tag, 0, {{ram, 512}}));
        run(32'000);
        EXPECT_EQ(ended.at(tag), Status::Failed);
    }
    expect_failure("has not answered in time");
}

TEST_F(VirtioFaultTest, ASuccessMakesEarlierResetsForgotten) {
    ASSERT_EQ(start(), Controller::State::Ready);
    for (u32 tag = 0; tag < 20; tag += 2) {
        device.holds = true;
        ASSERT_TRUE(read(tag, 0, {{ram, 512}}));
        run(32'000);
        device.holds = false;
        ASSERT_TRUE(read(tag + 1, 0, {{ram, 512}}));
        poll();
        EXPECT_EQ(ended.at(tag + 1), Status::Good);
    }
    EXPECT_EQ(driver->state(), Controller::State::Ready);
}

TEST_F(VirtioFaultTest, ADeviceThatDoesNotAnswerItsFirstRequestIsGivenUp) {
    device.holds = true;
    start();
    EXPECT_EQ(driver->state(), Controller::State::Starting);
    run(40'000);
    expect_failure("has not answered in time");
    EXPECT_TRUE(ended.empty());
}

TEST_F(VirtioFaultTest, ABrokenUsedRingIsResetAndEndsEachCommandOnce) {
    ASSERT_EQ(start(), Controller::State::Ready);
    u32 tag = 0;
    for (u32 const id : {1U, 5U, 200U, 0xffff'ffffU, 0x1'0000U}) {
        device.holds = true;
        ASSERT_TRUE(read(tag, 0, {{ram, 512}}));
        ASSERT_TRUE(read(tag + 1, 0, {{ram, 512}}));
        device.complete(0);
        device.push_used(id == 1 ? 0 : id, 0); // 0: the one that has just ended
        poll();
        EXPECT_EQ(ended.at(tag), Status::Good);
        EXPECT_EQ(ended.at(tag + 1), Status::Failed);
        tag += 2;
    }
    EXPECT_EQ(device.resets, 6U);
    ASSERT_TRUE(read(tag, 0, {{ram, 512}}));
    device.set_used_index(3);
    poll();
    EXPECT_EQ(ended.at(tag), Status::Failed);
    EXPECT_EQ(device.resets, 7U);
}

TEST_F(VirtioFaultTest, ADeviceThatAsksForAResetGetsIt) {
    ASSERT_EQ(start(), Controller::State::Ready);
    device.holds = true;
    ASSERT_TRUE(read(1, 0, {{ram, 512}}));
    device.status |= 64;
    run(1100);
    EXPECT_EQ(ended.at(1), Status::Failed);
    EXPECT_EQ(device.resets, 2U);
    EXPECT_EQ(driver->state(), Controller::State::Ready);
}

TEST_F(VirtioFaultTest, ALostInterruptIsMadeUpForWithinASecond) {
    ASSERT_EQ(start(), Controller::State::Ready);
    device.holds = true;
    ASSERT_TRUE(read(1, 0, {{ram, 512}}));
    poll();
    device.complete_all();
    device.interrupts = 0;
    now = driver->deadline();
    EXPECT_LE(now, 1000 * ms + 6 * ms);
    poll();
    EXPECT_EQ(ended.at(1), Status::Good);
}

TEST_F(VirtioFaultTest, ADeviceThatIsGoneEndsItsCommands) {
    ASSERT_EQ(start(), Controller::State::Ready);
    device.holds = true;
    ASSERT_TRUE(read(1, 0, {{ram, 512}}));
    device.is_gone = true;
    run(1100);
    EXPECT_EQ(ended.at(1), Status::Failed);
    expect_failure("does not answer any more");
}

TEST_F(VirtioFaultTest, ADeviceThatComesBackAsAnotherOneIsRefused) {
    for (u32 what = 0; what < 3; what++) {
        device.capacity = 2048;
        device.features = VERSION_1 | FLUSH;
        device.most_queue = 64;
        ended.clear();
        ASSERT_EQ(start(), Controller::State::Ready);
        device.holds = true;
        ASSERT_TRUE(read(1, 0, {{ram, 512}}));
        if (what == 0) device.capacity--;
        if (what == 1) device.features |= RO;
        if (what == 2) device.most_queue = 32;
        run(32'000);
        EXPECT_EQ(ended.at(1), Status::Failed);
        expect_failure("is another one after a reset");
        device.holds = false;
    }
}

TEST_F(VirtioFaultTest, PiecesBeyondTheLimitsReachNoDevice) {
    device.seg_max = 2;
    device.most_queue = 4;
    ASSERT_EQ(start(), Controller::State::Ready);
    ASSERT_TRUE(read(1, 0, std::vector<Piece>(100, {ram, 512})));
    poll();
    EXPECT_EQ(ended.at(1), Status::Failed);
}

} // namespace
} // namespace virtio_test
