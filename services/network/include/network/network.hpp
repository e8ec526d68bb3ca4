// SPDX-License-Identifier: MIT
#pragma once
// All NICs that the service serves, in turns, and the switch between them.
#include <network/nic.hpp>
#include <network/switch.hpp>

namespace network {

class Network final {
public:
    // A NIC's turn ends when so many bytes were sent, each frame, and each copy of it that another NIC gets, counted as
    // frame_cost more. A turn ends, so that the service looks for events, when all NICs together have sent so much.
    static constexpr u64 nic_budget = 256 * lib::KiB, turn_budget = 4 * nic_budget, frame_cost = 4 * lib::KiB;

    // All of them outlive this object. `ticks_per_second`: of the time that turn() is told.
    Network(Host& host, lib::service::Board const& board, lib::service::Records& records, u64 ticks_per_second)
        : host_(host), board_(board), records_(records), switch_(Switch::max_age_seconds * ticks_per_second) {}
    Network(Network const&) = delete;
    Network& operator=(Network const&) = delete;

    // Serves what `events` tell of and what the last turn left. Returns whether something is left: then the next turn
    // follows without sleep. The first turn of an instance is called with event_board.
    bool turn(u64 events, u64 now);
    // When the next turn must come at the latest, if nothing is left and no event comes: nothing waits for a time yet.
    static u64 deadline() { return lib::service::no_deadline; }

    Nic const& nic(u32 device) const { return nics_[device]; }
    Switch const& addresses() const { return switch_; }

private:
    void update(u32 device);
    [[nodiscard]] bool serve(u32 device, u64& budget);
    [[nodiscard]] bool forward_all(u32 device, u64& budget);
    void forward(u32 device, u64& budget);

    Host& host_;
    lib::service::Board const& board_;
    lib::service::Records& records_;
    Switch switch_;
    u64 now_ = 0;
    u64 waiting_ = 0; // bit N: NIC N may have something to send
    u32 first_ = 0;   // the NIC that is served first
    u32 touched_ = 0; // bit N: NIC N got frames that its driver does not see yet
    Frame frame_;     // the one on its way
    lib::SplitQueue::Chain chain_;
    std::array<Nic, lib::service::max_devices> nics_{};
};

} // namespace network
