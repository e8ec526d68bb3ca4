// SPDX-License-Identifier: MIT
#pragma once
// The routers of all networks that have one, what they share, and the memory in which a frame is changed.
#include <network/router.hpp>

namespace network {

class Routers final : private Connections::Rules {
public:
    // All outlive this object. The memory of `routing` is touched only if a network has a router.
    Routers(RouterPorts& ports, Host& host, lib::service::Board const& board, lib::service::PortTable& counts,
            lib::service::Routing& routing, u64 ticks_per_second);

    // Makes the routers that the board names, once.
    void start(u64 now);
    // nullptr: the network has none.
    Router* of(u32 network) {
        return network < routers_.size() && routers_[network].is_present() ? &routers_[network] : nullptr;
    }
    bool is_described(u32 network) const {
        return network < lib::max_networks && board_.routers[network].is_present != 0;
    }
    u64 deadline() const;
    // A NIC has come to a network, or has gone.
    void plug(u32 device, u32 network, u64 now);
    void unplug(u32 device);

    // A copy of the frame, which its router may change.
    std::span<u8> copy(Frame const& frame);
    Connections const& connections() const { return connections_; }

private:
    bool is_taken(u32 network, Transport protocol, u16 router_port) const override {
        return routers_[network].is_forwarded(protocol, router_port);
    }

    RouterPorts& ports_;
    Host& host_;
    lib::service::Board const& board_;
    lib::service::PortTable& counts_;
    lib::service::Routing& routing_;
    u64 const second_;
    bool has_started_ = false;
    Random random_;
    Connections connections_;
    std::array<Router, lib::max_networks> routers_{};
    std::array<u8, Frame::largest_to_cut> bytes_{};
};

} // namespace network
