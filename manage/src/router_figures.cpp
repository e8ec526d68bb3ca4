// SPDX-License-Identifier: MIT
#include <bit>
#include <manage/port_figures.hpp>

#include "count.hpp"

namespace manage {
namespace {

namespace service = lib::service;

constexpr std::array<std::string_view, service::router_drops> drop_names{
    "malformed", "forged source", "fragment",          "no connection",       "too many connections",
    "no route",  "no ARP answer", "time to live over", "not TCP, UDP or ICMP"};

void print_subnet(lib::TextSink& sink, u32 address, u32 prefix_length) {
    lib::format(sink, "{}/{}", lib::Ipv4Text(address).view(), prefix_length <= 32 ? prefix_length : 0);
}

} // namespace

void print_router(lib::TextSink& sink, config::NetworkDescription const& network, RouterFigures const& router) {
    sink.write("  nat: router ");
    print_subnet(sink, network.nat.router(), network.nat.subnet.prefix_length);
    service::RouterStatistics const& said = router.said;
    if (!router.is_present) return sink.write(", not in use\n");
    if (said.address == 0) return sink.write(", no address outside yet\n");
    sink.write(", outside ");
    print_subnet(sink, said.address, said.prefix_length);
    lib::format(sink, ", gateway {}, name server {}\n", lib::Ipv4Text(said.gateway).view(),
                lib::Ipv4Text(said.name_server).view());
}

void print_routed(lib::TextSink& sink, RouterFigures const& router) {
    if (!router.is_present) return;
    service::RouterStatistics const& said = router.said;
    lib::format(sink, "  nat: {} addresses given, {} connections, {} packets out, {} in\n", std::popcount(said.leases),
                Count(said.connections).view(), Count(said.sent).view(), Count(said.received).view());
    bool is_first = true;
    for (u32 i = 0; i < service::router_drops; i++) {
        if (said.dropped[i] == 0) continue;
        lib::format(sink, "{} {} {}", is_first ? "    dropped by the router:" : ",", Count(said.dropped[i]).view(),
                    drop_names[i]);
        is_first = false;
    }
    if (!is_first) sink.write("\n");
}

} // namespace manage
