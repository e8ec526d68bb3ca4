// SPDX-License-Identifier: MIT
#pragma once
// The strict controller, its driver, and a user of the driver that checks what each command and each end must be.
#include <block/nvme.hpp>
#include <gtest/gtest.h>
#include <map>

#include "nvme_fake.hpp"

namespace block_test {

using block::Controller;
using block::Operation;
using block::Piece;
using block::Status;
using State = Controller::State;

class NvmeWorld {
public:
    explicit NvmeWorld(NvmeSetup const& setup = {});
    ~NvmeWorld();
    NvmeWorld(NvmeWorld const&) = delete;
    NvmeWorld& operator=(NvmeWorld const&) = delete;

    struct End {
        u32 tag;
        Status status;
        u64 at;
    };

    // Goes on until `done`, or until the driver wants no more calls and the device does nothing. The driver is called
    // at interrupts and at its deadlines only. False: `done` was not reached within the time.
    template <typename Done> bool run(Done done, u64 limit_ms = 200'000) {
        u64 const limit = fake.now + limit_ms * block_test::ticks_per_millisecond;
        for (;;) {
            turn();
            if (done()) return true;
            if (fake.now >= limit) return false;
            pass_time(limit);
        }
    }
    bool run_until(State state, u64 limit_ms = 200'000) {
        return run([&] { return driver.state() == state; }, limit_ms);
    }
    // Until all commands have ended.
    bool drain(u64 limit_ms = 200'000) {
        return run([&] { return fake.live.empty(); }, limit_ms);
    }
    // Once: the device does something, and the driver is called if it must be.
    void turn();
    u32 poll();
    // False: the driver did not take it.
    bool submit(Operation operation, u32 disk, u64 sector, std::vector<Piece> const& pieces);
    u32 next_tag() const { return tag_; }
    // One page per command, each at its own place.
    bool submit_page(Operation operation, u32 index);
    std::size_t good() const;
    std::size_t failed() const { return ends.size() - good(); }
    bool has_logged(std::string_view part) const;

    NvmeFake fake;
    block::Nvme driver;
    std::vector<End> ends;
    std::vector<u32> ids; // of namespaces, by number of disk
    u32 room = 64;        // for ends, of one poll
    bool has_interrupts = true;
    u32 polls = 0;

private:
    void pass_time(u64 limit);

    u32 tag_ = 1000;
    u32 idle_turns_ = 0; // since the device did something; it may have lost a command
};

} // namespace block_test
