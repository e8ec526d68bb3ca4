// SPDX-License-Identifier: MIT
#pragma once
// Gives a NIC the one address that the description has for it. [rfc/2131] 4.3
//
// So there is no pool that one guest could exhaust, no lease to be remembered over a death, and a VM has the same
// address each time.
#include <network/dhcp.hpp>

namespace network {

struct DhcpOffer {
    Ipv4Address address; // of the NIC
    EthernetAddress mac;
    Ipv4Address router;
    u32 prefix_length;
    EthernetAddress router_mac;
};
inline constexpr u32 lease_seconds = 3600;

// Returns the frame that answers, if one does. `has_bound`: set if the NIC has its address from then on.
std::optional<DhcpFrame> answer_dhcp(DhcpMessage const& asked, DhcpOffer const& offer, bool& has_bound);

} // namespace network
