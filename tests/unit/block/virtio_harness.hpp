// SPDX-License-Identifier: MIT
#pragma once
// A driver with a strict device, and time that runs when the driver waits.
#include "virtio_fake.hpp"

#include <gtest/gtest.h>
#include <memory>

namespace virtio_test {

using block::Controller;
using block::Operation;
using block::Piece;
using block::Status;
using block::Virtio;

inline constexpr u64 ms = 1000, ram = VirtioFake::ram_address;

class VirtioTest : public testing::Test {
protected:
    VirtioFake device;
    std::unique_ptr<Virtio> driver;
    std::map<u32, Status> ended;
    u64 now = 5;

    ~VirtioTest() override {
        EXPECT_EQ(device.complaints, std::vector<std::string>{});
        EXPECT_TRUE(device.is_reserve_untouched());
    }
    void poll(u64 advance = 0) {
        now += advance;
        Ended results[4];
        do {
            device.interrupts = 0;
            u32 const count = driver->poll(now, results);
            for (u32 i = 0; i < count; i++)
                EXPECT_TRUE(ended.emplace(results[i].tag, results[i].status).second) << "ended twice";
        } while (driver->deadline() == 0 || device.interrupts != 0);
    }
    // Polls when the driver wants it, for at most `milliseconds`.
    void run(u64 milliseconds) {
        u64 const end = now + milliseconds * ms;
        poll();
        while (driver->deadline() <= end) {
            now = std::max(now, driver->deadline());
            poll();
        }
        now = end;
    }
    Controller::State start() {
        device.describe();
        driver = std::make_unique<Virtio>(device);
        EXPECT_EQ(driver->state(), Controller::State::Starting);
        run(5);
        return driver->state();
    }
    bool submit(Operation operation, u32 tag, u64 sector, std::vector<Piece> const& pieces) {
        return driver->submit({operation, 0, tag, sector, pieces}, now);
    }
    bool read(u32 tag, u64 sector, std::vector<Piece> const& pieces) {
        bool const is_taken = submit(Operation::Read, tag, sector, pieces);
        driver->ring();
        return is_taken;
    }
    void expect_failure(std::string_view reason) {
        EXPECT_EQ(driver->state(), Controller::State::Failed);
        EXPECT_EQ(driver->failure(), reason);
        EXPECT_FALSE(device.is_bus_master);
        EXPECT_EQ(driver->deadline(), Controller::never);
        EXPECT_FALSE(read(99, 0, {{ram, 512}}));
    }
};

} // namespace virtio_test
