// SPDX-License-Identifier: MIT
#include <bit>
#include <storage/storage.hpp>

namespace storage {
namespace {

constexpr u64 all_devices = (u64{1} << lib::service::max_devices) - 1;
static_assert(lib::service::event_doorbell(0) == 2);

static_assert(sizeof(Storage) <= 400 * lib::KiB);

} // namespace

Storage::Storage(Host& host, lib::service::Board const& board, lib::service::Records& records,
                 lib::service::Statistics& statistics, Controllers* controllers)
    : board_(board), records_(records), context_{host, controllers, *this} {
    for (u32 i = 0; i < devices_.size(); i++)
        devices_[i].count_in(statistics.devices[i], host.ticks_per_second());
}

bool Storage::turn(u64 events, u64 now) {
    context_.now = now;
    context_.waiting |= events / lib::service::event_doorbell(0) & all_devices;
    // First, as what is ended below must not be given back to a queue that is off.
    if ((events & lib::service::event_board) != 0) {
        for (u32 i = 0; i < devices_.size(); i++)
            update(i);
        context_.waiting = all_devices; // nobody rings again for what the last instance left
    }
    bool const has_controllers = context_.controllers != nullptr && context_.controllers->end() != 0;
    if (has_controllers) look_at_controllers(events);
    if (now >= context_.held_until) look_at_held();
    u64 budget = turn_budget;
    for (u64 round = context_.waiting; round != 0 && budget != 0;) { // each of them once
        u64 const after_last = round >> first_ << first_;
        u32 const i = static_cast<u32>(std::countr_zero(after_last != 0 ? after_last : round));
        u64 const bit = u64{1} << i;
        round &= ~bit;
        first_ = (i + 1) % devices_.size();
        context_.waiting &= ~bit;
        if (devices_[i].serve(context_, budget)) context_.waiting |= bit;
    }
    bool const has_more_commands = has_controllers && submit();
    return has_more_commands || context_.waiting != 0;
}

void Storage::look_at_controllers(u64 events) {
    context_.controllers->poll(events, context_.now);
    for (u32 i = 0; i < context_.controllers->end(); i++) {
        block::Controller const* const controller = context_.controllers->find(i);
        if (controller == nullptr || controller->state() == states_[i]) continue;
        states_[i] = controller->state();
        context_.waiting = all_devices; // some waited for it
    }
    for (u32 i = 0; i < devices_.size(); i++)
        if (devices_[i].can_answer_stop()) {
            update(i);
            context_.waiting |= u64{1} << i;
        }
}

// Disks whose limit allows the next request by now are served.
void Storage::look_at_held() {
    context_.held_until = lib::service::no_deadline;
    for (u64 left = context_.held; left != 0; left &= left - 1) {
        u32 const i = static_cast<u32>(std::countr_zero(left));
        u64 const until = devices_[i].held_until();
        if (until > context_.now) {
            context_.held_until = std::min(context_.held_until, until);
            continue;
        }
        context_.held &= ~(u64{1} << i);
        context_.waiting |= u64{1} << i;
    }
}

void Storage::ended(u32 token, block::Status status) {
    u16 const request = static_cast<u16>(token / 2);
    u32 const device = context_.pool[request].queue / lib::service::max_device_queues;
    devices_[device].ended(request, token % 2 != 0, status == block::Status::Good, context_);
}

// Gives commands to the controllers. Returns whether some are left that could have begun.
bool Storage::submit() {
    using Outcome = SubmitOrder::Outcome;
    u64 budget = turn_budget;
    for (u32 i = 0; i < context_.controllers->end(); i++) {
        SubmitOrder& order = context_.orders[i];
        for (Outcome outcome = Outcome::Nothing; outcome != Outcome::Refused && !order.is_empty() && budget != 0;) {
            u32 const queue = order.first(), device = queue / lib::service::max_device_queues;
            outcome = Outcome::Nothing;
            if (devices_[device].uses(i))
                outcome = devices_[device].submit(queue % lib::service::max_device_queues, order.is_bounce_free(),
                                                  context_, budget);
            order.settle(outcome);
        }
    }
    context_.controllers->ring();
    return budget == 0;
}

} // namespace storage
