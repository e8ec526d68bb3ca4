// SPDX-License-Identifier: MIT
#pragma once
// All NICs that the service serves, in turns, the uplinks, the switch between them, and the routers of networks whose
// uplink is no port of the switch.
#include <network/nic.hpp>
#include <network/routers.hpp>
#include <network/switch.hpp>
#include <network/uplink.hpp>

namespace network {

class Network final : private RouterPorts {
public:
    // A NIC's turn ends when so many bytes were sent, each frame, and each copy of it that another NIC gets, counted as
    // frame_cost more. A turn ends, so that the service looks for events, when all NICs together have sent so much.
    static constexpr u64 nic_budget = 256 * lib::KiB, turn_budget = 4 * nic_budget, frame_cost = 4 * lib::KiB;

    // All of them outlive this object. `ticks_per_second`: of the time that turn() is told.
    Network(Host& host, lib::service::Board const& board, lib::service::Records& records,
            lib::service::PortTable& counts, lib::service::Routing& routing, u64 ticks_per_second);
    Network(Network const&) = delete;
    Network& operator=(Network const&) = delete;

    // Before the first turn: the device is the way out of a network. `controller`: whose interrupts are the device's.
    void add_uplink(u32 controller, net::NetDevice& device, u32 network);

    // Serves what `events` tell of and what the last turn left. Returns whether something is left: then the next turn
    // follows without sleep. The first turn of an instance is called with event_board.
    bool turn(u64 events, u64 now);
    // When the next turn must come at the latest, if nothing is left and no event comes.
    u64 deadline() const;

    Nic const& nic(u32 device) const { return nics_[device]; }
    Uplink const& uplink(u32 controller) const { return uplinks_[controller]; }
    Switch const& addresses() const { return switch_; }
    Connections const& connections() const { return routers_.connections(); }

private:
    // Ports of the switch: NICs by their numbers, then uplinks.
    static constexpr u32 first_uplink = lib::service::max_devices, port_count = Switch::max_ports;

    void update(u32 device);
    void poll_uplinks(u64 events);
    [[nodiscard]] bool serve(u32 port, u64& budget);
    [[nodiscard]] bool serve_nic(u32 device, u64& budget);
    [[nodiscard]] bool forward_all(u32 device, u64& budget);
    [[nodiscard]] bool serve_uplink(u32 port, u64& budget);
    bool is_address_of_nic(u32 network, EthernetAddress address) const;
    void forward(u32 port, u64& budget);
    [[nodiscard]] bool route(u32 device, Router& router, u64& budget);
    void route_in(Router& router, u64& budget);
    void poll_routers();
    Uplink* uplink_of(u32 network);
    // RouterPorts
    void send_inside(u32 device, std::span<u8 const> frame) override;
    void send_outside(u32 network, std::span<u8 const> frame, Frame const* original) override;
    void publish_touched();

    Host& host_;
    lib::service::Board const& board_;
    lib::service::Records& records_;
    lib::service::PortTable& counts_;
    Switch switch_;
    u64 now_ = 0;
    u64 waiting_ = 0; // bit N: port N may have something to send
    u32 first_ = 0;   // the port that is served first
    u32 touched_ = 0; // bit N: NIC N got frames that its driver does not see yet
    Frame frame_;     // the one on its way
    lib::SplitQueue::Chain chain_;
    std::array<Nic, lib::service::max_devices> nics_{};
    std::array<Uplink, lib::service::max_controllers> uplinks_{};
    u32 uplink_count_ = 0;
    Routers routers_;
    Frame routed_;        // what a router sends
    u64 routed_cost_ = 0; // of what a router has sent for the frame on its way
};

} // namespace network
