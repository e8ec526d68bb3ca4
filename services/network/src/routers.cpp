// SPDX-License-Identifier: MIT
#include <algorithm>
#include <network/routers.hpp>

namespace network {

Routers::Routers(RouterPorts& ports, Host& host, lib::service::Board const& board, lib::service::PortTable& counts,
                 lib::service::Routing& routing, u64 ticks_per_second)
    : ports_(ports), host_(host), board_(board), counts_(counts), routing_(routing), second_(ticks_per_second),
      random_(board.seed[0], board.seed[1]), connections_(routing, random_, *this, ticks_per_second) {}

void Routers::start(u64 now) {
    if (has_started_) return;
    has_started_ = true;
    random_ = Random(board_.seed[0], board_.seed[1] ^ now); // else two instances without a seed were the same
    for (u32 i = 0; i < routers_.size(); i++) {
        if (!is_described(i)) continue;
        Router::Parts const parts{.ports = &ports_,
                                  .host = &host_,
                                  .connections = &connections_,
                                  .random = &random_,
                                  .entry = &board_.routers[i],
                                  .statistics = &counts_.routers[i],
                                  .lease = &routing_.leases[i],
                                  .ticks_per_second = second_};
        routers_[i].start(i, parts, now);
    }
}

u64 Routers::deadline() const {
    u64 at = lib::service::no_deadline;
    for (Router const& router : routers_)
        at = std::min(at, router.deadline());
    return at;
}

void Routers::plug(u32 device, u32 network, u64 now) {
    unplug(device);
    lib::service::DeviceEntry const& entry = board_.devices[device];
    if (Router* const router = of(network); router != nullptr && entry.address != 0)
        router->plug(device, load_address(entry.mac), entry.address, now);
}

void Routers::unplug(u32 device) {
    for (Router& router : routers_)
        if (router.is_present()) router.unplug(device);
}

std::span<u8> Routers::copy(Frame const& frame) {
    std::span<u8> const all = std::span(bytes_).first(frame.size());
    std::ranges::copy(frame.ethernet(), all.begin());
    Frame::Cursor cursor = frame.body();
    frame.copy(cursor, all.subspan(Frame::ethernet_size));
    return all;
}

} // namespace network
