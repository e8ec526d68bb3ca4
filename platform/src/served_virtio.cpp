// SPDX-License-Identifier: MIT
#include <platform/served_virtio.hpp>

namespace platform {

bool ServedVirtio::start_queue(u32 queue, lib::QueueSetup const& setup) {
    if (!is_there_ || !lib::SplitQueue::is_usable(memory_, setup)) return false;
    started_ |= 1U << queue;
    host_.start_served_queue(number_, queue, setup);
    return true;
}

bool ServedVirtio::stop_queues() {
    if (started_ != 0) {
        started_ = 0;
        stops_++;
        host_.stop_served_queues(number_);
    }
    return stops_ == 0;
}

void ServedVirtio::bus_master_lost() {
    if (started_ == 0) return;
    stop_queues();
    misused();
}

void ServedVirtio::serving_interrupts(u32 queue) {
    if (stops_ == 0 && is_started(queue) && is_running()) raise_interrupt(queue);
}

void ServedVirtio::serving_found_misuse() {
    if (stops_ == 0 && started_ != 0 && is_running()) misused();
}

void ServedVirtio::serving_stopped() {
    if (stops_ == 0) return;
    stops_--;
    if (stops_ == 0) stopped();
}

// What waited when the state was saved gets a doorbell.
lib::Result<void> ServedVirtio::restore_served(State const& state, std::span<Queue const> queues) {
    TRY(restore_transport(state, queues));
    for (u32 queue = 0; queue < queues.size(); queue++)
        if (is_started(queue) && is_running()) doorbell(queue);
    return {};
}

} // namespace platform
