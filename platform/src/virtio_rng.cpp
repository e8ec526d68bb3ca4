// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/virtio_rng.hpp>

namespace platform {
namespace {

constexpr u16 ENTROPY_SOURCE = 4;
constexpr u32 OTHER_DEVICE_CLASS = 0xff'0000;

} // namespace

VirtioRng::VirtioRng(Plug const& plug)
    : VirtioPci(plug, {ENTROPY_SOURCE, OTHER_DEVICE_CLASS, 0, 1, queue_size}), host_(plug.host), memory_(plug.memory),
      ring_(plug.memory), later_(plug.host, plug.device, 0) {
    begin(queues_);
}

bool VirtioRng::stop_queues() {
    ring_.stop();
    later_.cancel();
    return true;
}

void VirtioRng::on(Event const& event) {
    if (later_.accepts(event)) serve();
}

void VirtioRng::serve() {
    while (is_running() && ring_.is_on()) {
        bool has_more = false;
        if (!ring_.look(has_more)) return misused();
        if (!has_more) {
            ring_.ask_for_doorbell();
            if (!ring_.look(has_more)) return misused();
            if (!has_more) break;
        }
        if (!has_budget() || !fill_next()) {
            if (!later_.is_armed()) later_.arm(host_.now() + period); // a doorbell does not put it off
            break;
        }
    }
    if (is_running() && ring_.is_on() && ring_.wants_interrupt()) raise_interrupt(0);
}

bool VirtioRng::has_budget() {
    Nanos const now = host_.now();
    if (now - period_start_ >= period) {
        period_start_ = now;
        filled_ = 0;
    }
    return filled_++ < buffers_per_period;
}

// Returns false if the host has no random numbers at the moment.
bool VirtioRng::fill_next() {
    std::array<u8, bytes_per_buffer> random;
    u32 const count = std::min(host_.random(random), bytes_per_buffer);
    if (count == 0) return false;
    lib::SplitQueue::Chain chain;
    if (ring_.take(chain) != lib::SplitQueue::Taken::Chain) {
        misused();
        return true;
    }
    std::span<u8 const> rest(random.data(), count);
    for (u32 i = 0; i < chain.count; i++) {
        lib::SplitQueue::Segment const& segment = chain.segments[i];
        u64 const here = std::min<u64>(segment.size, rest.size());
        if (!segment.is_writable || !memory_.write(segment.at, rest.first(here))) {
            misused();
            return true;
        }
        rest = rest.subspan(here);
    }
    ring_.give_back(chain, count - static_cast<u32>(rest.size()));
    return true;
}

lib::Result<void> VirtioRng::restore(State const& state) {
    TRY(restore_transport(state.transport, {&state.queue, 1}));
    if (!ring_.is_on()) return {};
    ring_.resume(state.position);
    if (is_running()) later_.arm(host_.now() + period); // for what waited when the state was saved
    return {};
}

} // namespace platform
