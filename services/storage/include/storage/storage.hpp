// SPDX-License-Identifier: MIT
#pragma once
// All disks that the service serves, in turns.
#include <storage/block_device.hpp>

namespace storage {

class Storage {
public:
    // A turn ends, so that the service looks for events, when all disks together have moved so much.
    static constexpr u64 turn_budget = 4 * BlockDevice::turn_budget;

    // All of them outlive this object.
    Storage(Host& host, lib::service::Board const& board, lib::service::Records& records)
        : host_(host), board_(board), records_(records) {}

    // Serves what `events` tell of and what the last turn left. Returns whether something is left: then the next turn
    // follows without sleep. The first turn of an instance is called with event_board.
    bool turn(u64 events);

private:
    Host& host_;
    lib::service::Board const& board_;
    lib::service::Records& records_;
    u64 waiting_ = 0; // bit N: disk N may have something to do
    u32 first_ = 0;   // the disk that is served first
    std::array<BlockDevice, lib::service::max_devices> devices_{};
};

} // namespace storage
