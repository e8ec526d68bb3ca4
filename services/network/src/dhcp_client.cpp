// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <network/dhcp_client.hpp>

namespace network {
namespace {

using Kind = DhcpMessage::Kind;
constexpr u32 longest_lease = 10 * 365 * 24 * 3600; // seconds: for ever would not fit in ticks
constexpr u32 most_requests = 4;                    // for one offer, then it begins again [rfc/2131] 3.1

} // namespace

void DhcpClient::start(u64 now) {
    Lease const& left = lease_;
    bool const makes_sense = left.is_bound == 1 && left.address != 0 && left.prefix_length <= 32 &&
                             left.ends_at > now && left.renew_at <= left.rebind_at && left.rebind_at <= left.ends_at;
    if (!makes_sense) return begin(now);
    state_ = State::Bound;
    offered_ = left.address;
    server_ = left.server;
    next_ = std::max(left.renew_at, now);
}

void DhcpClient::begin(u64 now) {
    lease_ = {};
    state_ = State::Selecting;
    tries_ = 0;
    transaction_ = static_cast<u32>(random_.next());
    next_ = now;
}

// Twice as long each time, and a second more or less, so that machines that start together do not stay together.
u64 DhcpClient::pause() {
    u64 const seconds = std::min(first_pause_seconds << std::min(tries_, 8U), longest_pause_seconds);
    tries_++;
    return (seconds - 1) * second_ + random_.next() % (2 * second_ + 1);
}

std::optional<DhcpFrame> DhcpClient::poll(EthernetAddress mac, u64 now) {
    if (state_ == State::Off || now < next_) return std::nullopt;
    if (state_ == State::Bound && now >= lease_.ends_at) begin(now);
    if (state_ == State::Requesting && tries_ >= most_requests) begin(now);
    DhcpMessage message{};
    message.transaction = transaction_;
    message.mac = mac;
    message.kind = state_ == State::Selecting ? Kind::Discover : Kind::Request;
    DhcpRoute const route{ethernet_broadcast, mac, ipv4_broadcast, state_ == State::Bound ? lease_.address : 0};
    if (state_ == State::Requesting) {
        message.requested = offered_;
        message.server = server_;
    }
    asked_ = now;
    if (state_ == State::Bound) { // half of the time that is left, and a minute at least [rfc/2131] 4.4.5
        message.client = lease_.address;
        message.transaction = transaction_ = static_cast<u32>(random_.next());
        u64 const end = now < lease_.rebind_at ? lease_.rebind_at : lease_.ends_at;
        next_ = std::min(std::max(now + (end - now) / 2, now + 60 * second_), lease_.ends_at);
    } else {
        next_ = now + pause();
    }
    return make_dhcp(message, route);
}

bool DhcpClient::take(DhcpMessage const& message, EthernetAddress mac, u64 now) {
    if (!message.is_reply || message.transaction != transaction_ || message.mac != mac) return false;
    if (state_ == State::Selecting && message.kind == Kind::Offer && message.your != 0 && message.server != 0) {
        state_ = State::Requesting;
        offered_ = message.your;
        server_ = message.server;
        tries_ = 0;
        next_ = now;
        return false;
    }
    if (state_ != State::Requesting && state_ != State::Bound) return false;
    if (state_ == State::Requesting && message.server != server_) return false;
    if (message.kind == Kind::Nak) {
        bool const had_address = is_bound();
        begin(now);
        next_ = now + pause(); // not at the server's pace
        return had_address;
    }
    if (message.kind != Kind::Ack || message.your != offered_) return false;
    return bind(message, now);
}

bool DhcpClient::bind(DhcpMessage const& message, u64 now) {
    Lease made{};
    made.address = message.your;
    made.prefix_length = message.mask == 0 ? 24 : static_cast<u32>(std::countl_one(message.mask));
    made.gateway = message.router;
    made.name_server = message.name_server;
    made.server = message.server;
    u64 const lasts = std::clamp(message.lease_seconds, shortest_lease, longest_lease);
    // [rfc/2131] 4.4.5: T1 and T2
    u64 const renew = message.renew_seconds != 0 ? message.renew_seconds : lasts / 2;
    u64 const rebind = message.rebind_seconds != 0 ? message.rebind_seconds : lasts * 7 / 8;
    u64 const rebinds = std::clamp<u64>(rebind, shortest_lease / 2, lasts);
    made.ends_at = asked_ + lasts * second_;
    made.rebind_at = asked_ + rebinds * second_;
    made.renew_at = asked_ + std::clamp<u64>(renew, shortest_lease / 2, rebinds) * second_;
    bool const is_another = lease_.is_bound == 0 || lease_.address != made.address ||
                            lease_.prefix_length != made.prefix_length || lease_.gateway != made.gateway;
    lease_ = made;
    lease_.is_bound = 1; // the last store: a torn lease is none
    state_ = State::Bound;
    next_ = std::max(lease_.renew_at, now);
    return is_another;
}

void DhcpClient::reject(u64 now) {
    begin(now);
    next_ = now + longest_pause_seconds * second_;
}

} // namespace network
