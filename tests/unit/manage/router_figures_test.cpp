// SPDX-License-Identifier: MIT
// What the operator sees of a router, whatever the network service says.
#include <gtest/gtest.h>
#include <manage/port_figures.hpp>
#include <string>

namespace {

using lib::u32;
using lib::u64;
using manage::RouterFigures;

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view more) override { text += more; }
    std::string text;
};

std::string lines_of(RouterFigures const& figures) {
    StringSink sink;
    config::NetworkDescription network{};
    network.nat.subnet = {10U << 24 | 77U << 16, 24};
    manage::print_router(sink, network, figures);
    manage::print_routed(sink, figures);
    return sink.text;
}

TEST(RouterFigures, ARouterTellsItsAddressesAndWhatItHasCarried) {
    RouterFigures figures;
    EXPECT_EQ(lines_of(figures), "  nat: router 10.77.0.1/24, not in use\n");
    figures.is_present = true;
    figures.said.leases = 5;
    figures.said.connections = 17;
    figures.said.sent = 300;
    figures.said.received = 400;
    EXPECT_EQ(lines_of(figures), "  nat: router 10.77.0.1/24, no address outside yet\n"
                                 "  nat: 2 addresses given, 17 connections, 300 packets out, 400 in\n");
    figures.said.address = 10U << 24 | 2U << 8 | 15;
    figures.said.prefix_length = 24;
    figures.said.gateway = 10U << 24 | 2U << 8 | 2;
    figures.said.name_server = 10U << 24 | 2U << 8 | 3;
    figures.said.dropped[static_cast<u32>(lib::service::RouterDrop::Fragment)] = 3;
    figures.said.dropped[static_cast<u32>(lib::service::RouterDrop::NotSupported)] = 4;
    EXPECT_EQ(lines_of(figures),
              "  nat: router 10.77.0.1/24, outside 10.0.2.15/24, gateway 10.0.2.2, name server 10.0.2.3\n"
              "  nat: 2 addresses given, 17 connections, 300 packets out, 400 in\n"
              "    dropped by the router: 3 fragment, 4 not TCP, UDP or ICMP\n");
}

TEST(RouterFigures, NumbersOfAServiceThatLiesAreShort) {
    RouterFigures figures{.is_present = true};
    figures.said.address = figures.said.prefix_length = figures.said.connections = ~u32{0};
    figures.said.sent = figures.said.received = ~u64{0};
    for (u64& count : figures.said.dropped)
        count = ~u64{0};
    EXPECT_LT(lines_of(figures).size(), 600U);
}

} // namespace
