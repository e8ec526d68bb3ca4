// SPDX-License-Identifier: MIT
#pragma once
// The driver at its fake controller.
#include "ide_fake.hpp"

#include <cstring>

namespace ide_test {

using block::Controller;
using block::Ended;
using block::Operation;
using block::Piece;
using block::Status;

inline constexpr u64 buffer = FakeIde::ram_begin + 0x100000;

class IdeTest : public testing::Test {
protected:
    FakeIde fake;
    std::optional<block::Ide> ide;

    u32 poll(std::span<Ended> ended) {
        u32 const before = fake.reads;
        u32 const count = ide->poll(fake.now, ended);
        EXPECT_LE(fake.reads - before, 300U);
        return count;
    }
    // Calls the driver when it wants to be called, until its state is another one or the time is over.
    void start(u64 most_milliseconds = 200'000) {
        if (!ide) ide.emplace(fake);
        u64 const end = fake.now + most_milliseconds * ticks;
        while (ide->state() == Controller::State::Starting && fake.now < end) {
            std::array<Ended, 1> ended{};
            EXPECT_EQ(poll(std::span(ended).first(0)), 0U);
            fake.now = std::max(fake.now, std::min(ide->deadline(), end));
        }
    }
    void start_with_disk(u64 sectors = 100'000, bool lba48 = true) {
        fake.drives[0][0] = FakeDrive::disk(sectors, lba48);
        start();
        ASSERT_EQ(ide->state(), Controller::State::Ready);
        ASSERT_EQ(ide->disks().size(), 1U);
    }
    bool submit(Operation operation, u64 sector, std::vector<Piece> pieces, u32 tag = 7, u32 disk = 0) {
        return ide->submit({operation, disk, tag, sector, pieces}, fake.now);
    }
    // The one end that there must be.
    Status take(u32 tag = 7) {
        std::array<Ended, 4> ended{};
        u32 const count = poll(ended);
        EXPECT_EQ(count, 1U);
        EXPECT_EQ(ended[0].tag, tag);
        EXPECT_EQ(poll(std::span(ended).subspan(1)), 0U) << "a command ended twice";
        return ended[0].status;
    }
    u32 ends() {
        std::array<Ended, 4> ended{};
        return poll(ended);
    }
    FakeDrive& drive(u32 channel = 0, u32 number = 0) { return *fake.drives[channel][number]; }
    u8* memory(u64 address) { return &fake.ram.at(address - FakeIde::ram_begin); }
};

} // namespace ide_test
