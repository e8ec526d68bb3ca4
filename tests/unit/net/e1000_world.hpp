// SPDX-License-Identifier: MIT
#pragma once
// The strict controller, its driver, and a user of the driver that checks what comes out of it.
#include <gtest/gtest.h>
#include <utility>

#include "e1000_fake.hpp"

namespace net_test {

using net::Piece;
using State = net::NetDevice::State;

inline Bytes frame_of(u32 size, u32 seed) {
    Bytes bytes(size);
    for (u32 i = 0; i < size; i++)
        bytes[i] = static_cast<u8>(seed * 31 + i * 7 + (i >> 8));
    return bytes;
}

class E1000World {
public:
    explicit E1000World(E1000Setup const& setup = {}, bool uses_interrupts = true)
        : fake(setup), driver(fake, uses_interrupts), has_interrupt(uses_interrupts) {}
    ~E1000World() {
        for (std::string const& violation : fake.violations)
            ADD_FAILURE() << "the driver broke a rule: " << violation;
        if (driver.state() == State::Failed) {
            EXPECT_FALSE(fake.is_bus_master()) << "a device that failed may still write memory";
            EXPECT_FALSE(driver.failure().empty());
        }
    }
    E1000World(E1000World const&) = delete;
    E1000World& operator=(E1000World const&) = delete;

    // Once: the device works, and the driver is called if it must be.
    void turn() {
        fake.step();
        bool const is_interrupted = fake.take_interrupt();
        EXPECT_TRUE(!is_interrupted || has_interrupt);
        if (is_interrupted || fake.now >= driver.deadline()) poll(is_interrupted);
    }
    void poll(bool is_interrupted) {
        std::array<u32, 256> sent{};
        polls++;
        u32 const count = driver.poll(fake.now, is_interrupted, std::span(sent).first(room));
        EXPECT_LE(count, room);
        for (u32 i = 0; i < count; i++)
            ended.push_back(sent[i]);
        if (takes_frames) take_frames();
        driver.ring();
    }
    void take_frames() {
        for (auto frame = driver.next_frame(); !frame.empty(); frame = driver.next_frame())
            received.emplace_back(frame.begin(), frame.end());
    }
    // Goes on until `done`. False: that was not reached within the time.
    template <typename Done> bool run(Done done, u64 limit_ms = 20'000) {
        u64 const limit = fake.now + limit_ms * net_test::ticks_per_millisecond;
        for (;;) {
            turn();
            if (done()) return true;
            if (fake.now >= limit) return false;
            // Something may happen within microseconds; else nothing does before the driver's next deadline.
            u64 const next = std::max(fake.now + 20, driver.deadline());
            fake.now = std::min(limit, next);
        }
    }
    bool run_until(State state) {
        return run([&] { return driver.state() == state; });
    }
    bool start() { return run_until(State::Ready) && driver.has_link(); }
    void pass(u64 ms) {
        EXPECT_FALSE(run([] { return false; }, ms));
    }
    bool send_room(Bytes const& frame) {
        auto const place = driver.frame_room();
        if (place.empty()) return false;
        std::copy(frame.begin(), frame.end(), place.begin());
        driver.transmit_room(static_cast<u32>(frame.size()), fake.now);
        return true;
    }
    // Cuts the frame into pieces of the RAM.
    bool send_pieces(Bytes const& frame, u32 tag, u32 count, u32 at) {
        std::vector<Piece> pieces;
        std::copy(frame.begin(), frame.end(), fake.ram.begin() + at);
        u32 const size = static_cast<u32>(frame.size());
        for (u32 i = 0; i < count; i++) {
            u32 const begin = size * i / count, end = size * (i + 1) / count;
            pieces.push_back({ram_begin + at + begin, end - begin});
        }
        return driver.transmit(pieces, tag, fake.now);
    }
    bool has_logged(std::string_view part) const {
        for (std::string const& line : fake.lines)
            if (line.find(part) != std::string::npos) return true;
        return false;
    }

    E1000Fake fake;
    net::E1000 driver;
    bool has_interrupt, takes_frames = true;
    std::vector<u32> ended;
    std::vector<Bytes> received;
    u32 room = 256, polls = 0;
};

// What holds for both chips, and each way in which they interrupt.
class E1000Kinds : public testing::TestWithParam<int> {
protected:
    static E1000Setup setup() {
        E1000Setup made;
        if (GetParam() < 2) made.chip = Chip::I82540;
        made.has_msix = GetParam() == 3;
        return made;
    }
    static bool uses_interrupts() { return GetParam() != 0; }
};

} // namespace net_test
