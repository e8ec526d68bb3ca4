// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <network/network.hpp>

namespace network {
namespace {

constexpr u64 all_devices = (u64{1} << lib::service::max_devices) - 1;

static_assert(sizeof(Network) <= 64 * lib::KiB);

} // namespace

bool Network::turn(u64 events, u64 now) {
    now_ = now;
    waiting_ |= events / lib::service::event_doorbell(0) & all_devices;
    if ((events & lib::service::event_board) != 0) {
        for (u32 i = 0; i < nics_.size(); i++)
            update(i);
        waiting_ = all_devices; // nobody rings again for what the last instance left
    }
    u64 budget = turn_budget;
    for (u64 round = waiting_; round != 0 && budget != 0;) { // each of them once
        u64 const after_last = round >> first_ << first_;
        u32 const i = static_cast<u32>(std::countr_zero(after_last != 0 ? after_last : round));
        u64 const bit = u64{1} << i;
        round &= ~bit;
        first_ = (i + 1) % static_cast<u32>(nics_.size());
        waiting_ &= ~bit;
        if (serve(i, budget)) waiting_ |= bit;
    }
    return waiting_ != 0;
}

void Network::update(u32 device) {
    Nic& nic = nics_[device];
    if (!nic.update(board_.devices[device], records_.queues[device], host_, device)) return;
    if (nic.is_present())
        switch_.plug(device, nic.network());
    else
        switch_.unplug(device);
}

// One turn of a NIC. Returns whether something may be left; if not, its driver rings for what it adds.
bool Network::serve(u32 device, u64& budget) {
    u64 const all = budget;
    budget = std::min(budget, nic_budget);
    u64 const rest = all - budget;
    bool may_have_more = false;
    do
        may_have_more = forward_all(device, budget);
    while (!may_have_more && nics_[device].ask_for_doorbell(host_));
    budget += rest;
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
    // Receivers first: an instance that dies in between sends frames twice, but loses none.
    for (; touched_ != 0; touched_ &= touched_ - 1)
        nics_[static_cast<u32>(std::countr_zero(touched_))].publish(host_);
    nic.publish(host_);
    return budget == 0;
}

void Network::forward(u32 device, u64& budget) {
    (void)switch_.learn(device, frame_.source(), now_); // without room, it is flooded
    u32 targets = switch_.targets(device, frame_.destination(), now_);
    touched_ |= targets;
    for (; targets != 0; targets &= targets - 1) {
        u32 const count = nics_[static_cast<u32>(std::countr_zero(targets))].receive(frame_, chain_, host_);
        budget -= std::min(budget, count * frame_cost + frame_.size());
    }
}

} // namespace network
