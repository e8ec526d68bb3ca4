// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <network/network.hpp>

namespace network {
namespace {

namespace service = lib::service;

constexpr u64 all_nics = (u64{1} << service::max_devices) - 1;
// Doorbells and interrupts of uplinks are the bits of their ports, after that of the board.
static_assert(service::event_controller(0) == service::event_doorbell(service::max_devices));

static_assert(Switch::max_ports == service::max_ports);
static_assert(sizeof(Network) <= 640 * lib::KiB);

} // namespace

Network::Network(Host& host, service::Board const& board, service::Records& records, service::PortTable& counts,
                 service::Routing& routing, u64 ticks_per_second)
    : host_(host), board_(board), records_(records), counts_(counts),
      switch_(Switch::max_age_seconds * ticks_per_second),
      routers_(*this, host, board, counts, routing, ticks_per_second) {
    for (u32 i = 0; i < nics_.size(); i++)
        nics_[i].count_in(counts_.ports[i]);
}

void Network::add_uplink(u32 controller, net::NetDevice& device, u32 network) {
    uplinks_[controller].connect(device, network, counts_.ports[first_uplink + controller]);
    uplink_count_ = std::max(uplink_count_, controller + 1);
    if (!routers_.is_described(network)) switch_.plug(first_uplink + controller, network);
}

u64 Network::deadline() const {
    u64 at = routers_.deadline();
    for (Uplink const& uplink : std::span(uplinks_).first(uplink_count_))
        at = std::min(at, uplink.deadline());
    return at;
}

bool Network::turn(u64 events, u64 now) {
    now_ = now;
    waiting_ |= events / service::event_doorbell(0) & all_nics;
    routers_.start(now);
    if ((events & service::event_board) != 0) {
        for (u32 i = 0; i < nics_.size(); i++)
            update(i);
        waiting_ |= all_nics; // nobody rings again for what the last instance left
    }
    poll_uplinks(events);
    poll_routers();
    u64 budget = turn_budget;
    for (u64 round = waiting_; round != 0 && budget != 0;) { // each of them once
        u64 const after_last = round >> first_ << first_;
        u32 const i = static_cast<u32>(std::countr_zero(after_last != 0 ? after_last : round));
        u64 const bit = u64{1} << i;
        round &= ~bit;
        first_ = (i + 1) % port_count;
        waiting_ &= ~bit;
        if (serve(i, budget)) waiting_ |= bit;
    }
    for (Uplink& uplink : std::span(uplinks_).first(uplink_count_))
        uplink.ring();
    return waiting_ != 0;
}

void Network::update(u32 device) {
    Nic& nic = nics_[device];
    if (!nic.update(board_.devices[device], records_.queues[device], host_, device)) return;
    if (nic.is_present()) {
        switch_.plug(device, nic.network());
        routers_.plug(device, nic.network(), now_);
    } else {
        switch_.unplug(device);
        routers_.unplug(device);
    }
}

void Network::poll_uplinks(u64 events) {
    u64 const interrupted = events / service::event_controller(0);
    for (u32 i = 0; i < uplink_count_; i++)
        if (uplinks_[i].poll(now_, (interrupted >> i & 1) != 0, host_)) waiting_ |= u64{1} << (first_uplink + i);
}

// One turn of a port. Returns whether something may be left.
bool Network::serve(u32 port, u64& budget) {
    u64 const all = budget;
    budget = std::min(budget, nic_budget);
    u64 const rest = all - budget;
    bool const may_have_more = port < first_uplink ? serve_nic(port, budget) : serve_uplink(port, budget);
    budget += rest;
    return may_have_more;
}

// If nothing is left, its driver rings for what it adds.
bool Network::serve_nic(u32 device, u64& budget) {
    bool may_have_more = false;
    do
        may_have_more = forward_all(device, budget);
    while (!may_have_more && nics_[device].ask_for_doorbell(host_));
    return may_have_more;
}

// Forwards what there is. Returns false when it has taken everything.
bool Network::forward_all(u32 device, u64& budget) {
    Nic& nic = nics_[device];
    Nic::Took took = Nic::Took::Frame;
    while (budget != 0) {
        took = nic.take(frame_, host_);
        if (took != Nic::Took::Frame && took != Nic::Took::Dropped) break;
        budget -= std::min(budget, frame_cost);
        if (took == Nic::Took::Frame) forward(device, budget);
        nic.done(frame_);
    }
    publish_touched();
    nic.publish(host_);
    return budget == 0;
}

// A station outside that used the address of a NIC here would otherwise get that NIC's frames.
bool Network::serve_uplink(u32 port, u64& budget) {
    Uplink& uplink = uplinks_[port - first_uplink];
    while (budget != 0) {
        Uplink::Took const took = uplink.take(frame_);
        if (took == Uplink::Took::Nothing) break;
        budget -= std::min(budget, frame_cost);
        if (took == Uplink::Took::Dropped) continue;
        EthernetAddress const source = frame_.source();
        if ((source & 1) != 0 || is_address_of_nic(uplink.network(), source))
            uplink.drop(Drop::Spoofed);
        else if (Router* const router = routers_.of(uplink.network()); router != nullptr)
            route_in(*router, budget);
        else
            forward(port, budget);
    }
    publish_touched();
    return budget == 0;
}

bool Network::is_address_of_nic(u32 network, EthernetAddress address) const {
    return std::ranges::any_of(nics_, [&](Nic const& nic) {
        return nic.is_present() && nic.network() == network && nic.address() == address;
    });
}

// Receivers come before the sender: an instance that dies in between sends frames twice, but loses none.
void Network::publish_touched() {
    for (; touched_ != 0; touched_ &= touched_ - 1)
        nics_[static_cast<u32>(std::countr_zero(touched_))].publish(host_);
}

// Gives a frame of a NIC to the router of its network, if it is for that. Returns whether it is for others too.
bool Network::route(u32 device, Router& router, u64& budget) {
    bool const is_for_all = (frame_.destination() & 1) != 0;
    if (!is_for_all && frame_.destination() != router.mac()) return true;
    if (frame_.is_large() && is_for_all) return true;
    routed_cost_ = frame_.size();
    router.from_inside(device, routers_.copy(frame_), frame_, now_);
    budget -= std::min(budget, routed_cost_);
    return is_for_all;
}

void Network::route_in(Router& router, u64& budget) {
    routed_cost_ = frame_.size();
    router.from_outside(routers_.copy(frame_), now_);
    budget -= std::min(budget, routed_cost_);
}

void Network::poll_routers() {
    for (u32 i = 0; i < lib::max_networks; i++) {
        Router* const router = routers_.of(i);
        if (router == nullptr) continue;
        Uplink const* const uplink = uplink_of(i);
        router->poll(uplink != nullptr ? uplink->address().value_or(0) : 0, now_);
    }
}

void Network::send_inside(u32 device, std::span<u8 const> frame) {
    if (!routed_.begin(frame)) return;
    u32 const count = nics_[device].receive(routed_, chain_, host_);
    touched_ |= 1U << device;
    routed_cost_ += count * frame_cost + frame.size();
}

void Network::send_outside(u32 network, std::span<u8 const> frame, Frame const* original) {
    if (original != nullptr)
        routed_.begin(frame, *original);
    else if (!routed_.begin(frame))
        return;
    Uplink* const uplink = uplink_of(network);
    if (uplink != nullptr) routed_cost_ += uplink->send(routed_, now_) * frame_cost + frame.size();
}

Uplink* Network::uplink_of(u32 network) {
    for (Uplink& uplink : std::span(uplinks_).first(uplink_count_))
        if (uplink.is_present() && uplink.network() == network) return &uplink;
    return nullptr;
}

void Network::forward(u32 port, u64& budget) {
    if (port < first_uplink) {
        Router* const router = routers_.of(nics_[port].network());
        if (router != nullptr && !route(port, *router, budget)) return;
    }
    (void)switch_.learn(port, frame_.source(), now_); // without room, it is flooded
    u32 targets = switch_.targets(port, frame_.destination(), now_);
    if (Switch::is_reserved(frame_.destination())) targets = 0;
    touched_ |= targets & static_cast<u32>(all_nics);
    for (; targets != 0; targets &= targets - 1) {
        u32 const to = static_cast<u32>(std::countr_zero(targets));
        u32 const count = to < first_uplink ? nics_[to].receive(frame_, chain_, host_)
                                            : uplinks_[to - first_uplink].send(frame_, now_);
        budget -= std::min(budget, count * frame_cost + frame_.size());
    }
}

} // namespace network
