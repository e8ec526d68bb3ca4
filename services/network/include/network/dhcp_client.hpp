// SPDX-License-Identifier: MIT
#pragma once
// Gets the router its address outside. [rfc/2131] 4.4
//
// The lease is in memory that outlives this instance: the next one goes on with it. A server that never answers is
// asked again and again, each time after a longer pause.
#include <lib/service_board.hpp>
#include <network/dhcp.hpp>
#include <network/random.hpp>

namespace network {

class DhcpClient {
public:
    static constexpr u64 first_pause_seconds = 4, longest_pause_seconds = 64; // [rfc/2131] 4.1
    static constexpr u32 shortest_lease = 60;                                 // seconds: a server may not keep us busy
    using Lease = lib::service::RouterLease;

    // All outlive this object.
    DhcpClient(Lease& lease, Random& random, u64 ticks_per_second)
        : lease_(lease), random_(random), second_(ticks_per_second) {}

    // Goes on with a lease that is left, or begins without one.
    void start(u64 now);
    bool is_bound() const { return lease_.is_bound != 0; }
    Lease const& lease() const { return lease_; }
    u64 deadline() const { return next_; }
    // Returns the message to be sent now, if there is one. To everybody: servers hear that while they renew, too.
    std::optional<DhcpFrame> poll(EthernetAddress mac, u64 now);
    // Takes a message from a server. Returns whether the address has changed.
    bool take(DhcpMessage const& message, EthernetAddress mac, u64 now);
    // The lease that was taken last cannot be used. The next try comes after the longest pause.
    void reject(u64 now);

private:
    enum class State : u8 { Off, Selecting, Requesting, Bound };
    void begin(u64 now);
    u64 pause();
    bool bind(DhcpMessage const& message, u64 now);

    Lease& lease_;
    Random& random_;
    u64 second_;
    State state_ = State::Off;
    u32 transaction_ = 0;
    u32 tries_ = 0;
    Ipv4Address offered_ = 0, server_ = 0;
    u64 next_ = lib::service::no_deadline;
    u64 asked_ = 0; // when the request was sent: the lease counts from there
};

} // namespace network
