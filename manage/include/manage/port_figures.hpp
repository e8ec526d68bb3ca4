// SPDX-License-Identifier: MIT
#pragma once
// What an operator is shown of the ports of a network. The numbers come from the network service: no column gets wider
// by them, whatever they are.
#include <config/description.hpp>
#include <lib/format.hpp>
#include <manage/network.hpp>

namespace manage {

// "lan: internal", "lan: uplink first, link up".
void print_network(lib::TextSink& sink, config::NetworkDescription const& network, PortFigures const& uplink);
void print_port_heading(lib::TextSink& sink);
// One line, and a second one if frames were dropped. `owner`: the VM; empty: it is the uplink.
void print_port(lib::TextSink& sink, std::string_view owner, u32 nic, PortFigures const& figures);

// Of the router of a network (router_figures.cpp): one line about its addresses, and one about what it has carried, or
// two if packets were dropped.
void print_router(lib::TextSink& sink, config::NetworkDescription const& network, RouterFigures const& router);
void print_routed(lib::TextSink& sink, RouterFigures const& router);

} // namespace manage
