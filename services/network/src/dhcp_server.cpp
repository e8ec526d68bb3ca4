// SPDX-License-Identifier: MIT
#include <network/dhcp_server.hpp>

namespace network {
namespace {

using Kind = DhcpMessage::Kind;

// [rfc/2131] 4.3.2: which address the client says it has, or wants.
Kind answer_request(DhcpMessage const& asked, DhcpOffer const& offer) {
    if (asked.server != 0 && asked.server != offer.router) return Kind::None; // it has chosen another server
    Ipv4Address const wanted = asked.requested != 0 ? asked.requested : asked.client;
    return wanted == offer.address ? Kind::Ack : Kind::Nak;
}

Kind kind_of_answer(DhcpMessage const& asked, DhcpOffer const& offer) {
    if (asked.kind == Kind::Discover) return Kind::Offer;
    if (asked.kind == Kind::Request) return answer_request(asked, offer);
    if (asked.kind == Kind::Inform && asked.client == offer.address) return Kind::Ack;
    return Kind::None; // the address stays the NIC's, whatever it says of it
}

} // namespace

std::optional<DhcpFrame> answer_dhcp(DhcpMessage const& asked, DhcpOffer const& offer, bool& has_bound) {
    if (asked.is_reply || asked.relay != 0 || asked.mac != offer.mac) return std::nullopt;
    Kind const kind = kind_of_answer(asked, offer);
    if (kind == Kind::None) return std::nullopt;
    DhcpMessage answer{};
    answer.is_reply = true;
    answer.kind = kind;
    answer.transaction = asked.transaction;
    answer.wants_broadcast = asked.wants_broadcast;
    answer.mac = asked.mac;
    answer.server = offer.router;
    DhcpRoute route{offer.mac, offer.router_mac, offer.address, offer.router};
    if (kind == Kind::Nak) { // [rfc/2131] 4.3.2
        route.to = ethernet_broadcast;
        route.destination = ipv4_broadcast;
        return make_dhcp(answer, route);
    }
    if (asked.client == 0 && asked.wants_broadcast) { // [rfc/2131] 4.1
        route.to = ethernet_broadcast;
        route.destination = ipv4_broadcast;
    }
    answer.client = asked.client;
    answer.mask = lib::ipv4_mask(offer.prefix_length);
    answer.router = answer.name_server = offer.router;
    if (asked.kind != Kind::Inform) {
        answer.your = offer.address;
        answer.lease_seconds = lease_seconds;
    }
    if (asked.kind == Kind::Request) has_bound = true;
    return make_dhcp(answer, route);
}

} // namespace network
