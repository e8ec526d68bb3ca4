// SPDX-License-Identifier: MIT
#pragma once
// All disks that the service serves, in turns.
#include <algorithm>
#include <storage/block_device.hpp>

namespace storage {

class Storage final : private Controllers::Client {
public:
    // A turn ends, so that the service looks for events, when all disks together have moved so much, and the commands
    // that began in it are worth so much.
    static constexpr u64 turn_budget = 4 * BlockDevice::turn_budget;

    // All of them outlive this object. Without controllers, disks of the machine are out of order.
    Storage(Host& host, lib::service::Board const& board, lib::service::Records& records,
            lib::service::Statistics& statistics, Controllers* controllers = nullptr);
    Storage(Storage const&) = delete;
    Storage& operator=(Storage const&) = delete;

    // Serves what `events` tell of and what the last turn left. Returns whether something is left: then the next turn
    // follows without sleep. The first turn of an instance is called with event_board. `now`: Host::ticks().
    bool turn(u64 events, u64 now = 0);
    // When the next turn must come at the latest, if nothing is left and no event comes.
    u64 deadline() const {
        u64 const of_controllers =
            context_.controllers != nullptr ? context_.controllers->deadline() : lib::service::no_deadline;
        return std::min(of_controllers, context_.held_until);
    }

private:
    void ended(u32 token, block::Status status) override;
    void update(u32 device) {
        devices_[device].update(board_.devices[device], records_.queues[device], context_, device);
    }
    void look_at_controllers(u64 events);
    void look_at_held();
    [[nodiscard]] bool submit();

    lib::service::Board const& board_;
    lib::service::Records& records_;
    Context context_;
    std::array<block::Controller::State, lib::service::max_controllers> states_{}; // Starting
    u32 first_ = 0;                                                                // the disk that is served first
    std::array<BlockDevice, lib::service::max_devices> devices_{};
};

} // namespace storage
