// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/virtio_net.hpp>

namespace platform {
namespace {

constexpr u16 NETWORK_DEVICE = 1;
constexpr u32 ETHERNET_CLASS = 0x02'0000;

// [virtio/1.2] 5.1.4
enum Field : u32 {
    mac = 0,
    status = 6,              // 2 bytes
    max_virtqueue_pairs = 8, // 2 bytes
    mtu = 10,                // 2 bytes, if the feature MTU is offered; else 0
};
constexpr u16 LINK_UP = 1, ethernet_mtu = 1500;
constexpr u64 MTU = 1 << 3; // [virtio/1.2] 5.1.3
static_assert(lib::service::net_features <= 0xff'ffff, "the service hears of these bits only");

} // namespace

VirtioNet::VirtioNet(Plug const& plug, u32 number)
    : ServedVirtio(
          plug,
          {NETWORK_DEVICE, ETHERNET_CLASS, lib::service::net_features, queue_count, queue_size, configuration_size},
          lib::max_disks + number, plug.facts.nics[number].is_there),
      facts_(plug.facts.nics[number]) {
    std::ranges::copy(facts_.mac, &configuration_[mac]);
    lib::store_sized(&configuration_[status], 2, LINK_UP);
    lib::store_sized(&configuration_[max_virtqueue_pairs], 2, 1);
    if constexpr ((lib::service::net_features & MTU) != 0) lib::store_sized(&configuration_[mtu], 2, ethernet_mtu);
    begin(queues_, configuration_);
}

VirtioNet::State VirtioNet::save() const {
    return {save_transport(), queues_, facts_.mac, static_cast<u8>(facts_.is_there), 0};
}

lib::Result<void> VirtioNet::restore(State const& state) {
    if (state.mac != facts_.mac || state.is_there != facts_.is_there) return lib::fail(lib::Errc::BadFormat);
    return restore_served(state.transport, state.queues);
}

} // namespace platform
