// SPDX-License-Identifier: MIT
#include <algorithm>
#include <manage/network.hpp>

namespace manage {

std::expected<u32, std::string_view> Network::attach(Nic const& nic) {
    if (!make_pages()) return std::unexpected("there is too little memory for the network service");
    if (auto const started = start_service(); !started) return std::unexpected(started.error());
    lib::service::DeviceEntry entry{};
    entry.kind = lib::service::DeviceKind::Net;
    entry.network = nic.network;
    std::ranges::copy(nic.mac, entry.mac);
    return add({.owner = nic.owner,
                .number = nic.number,
                .queue_count = queue_count,
                .ram = nic.ram,
                .medium = {},
                .is_medium_read_only = false,
                .is_reached_by_dma = false},
               entry);
}

} // namespace manage
