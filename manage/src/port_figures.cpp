// SPDX-License-Identifier: MIT
#include <algorithm>
#include <manage/port_figures.hpp>

#include "count.hpp"

namespace manage {
namespace {

namespace service = lib::service;
using service::PortStatistics;

constexpr std::array<std::string_view, service::frame_drops> drop_names{
    "bad header", "bad size", "forged source", "queue or link down", "no buffer", "too large"};
constexpr u64 most_sum = ~u64{0};

std::string_view name_of(PortFigures const& uplink) {
    if (!uplink.is_attached) return "not in use";
    switch (uplink.said.link) {
    case service::LinkState::Unknown: break;
    case service::LinkState::Down: return "link down";
    case service::LinkState::Up: return "link up";
    case service::LinkState::Failed: return "failed";
    }
    return "link unknown";
}

u64 sum_of_drops(PortStatistics const& said) {
    u64 sum = 0;
    for (u64 const count : said.dropped)
        sum += std::min(count, most_sum - sum);
    return sum;
}

} // namespace

void print_network(lib::TextSink& sink, config::NetworkDescription const& network, PortFigures const& uplink) {
    if (network.uplink.kind == config::UplinkDescription::Kind::None)
        return lib::format(sink, "{}: internal\n", network.name);
    lib::format(sink, "{}: uplink {}, {}\n", network.name, network.uplink_text, name_of(uplink));
}

void print_port_heading(lib::TextSink& sink) {
    lib::format(sink, "  {:<20} {:>10} {:>10} {:>10} {:>10} {:>10}\n", "frames", "sent", "KiB", "received", "KiB",
                "dropped");
}

void print_port(lib::TextSink& sink, std::string_view owner, u32 nic, PortFigures const& figures) {
    std::array<char, 64> name{};
    std::string_view const label = owner.empty() ? "outside" : lib::format_to(name, "{} nic {}", owner, nic);
    if (!figures.is_attached) return lib::format(sink, "  {:<20} not in use\n", label);
    PortStatistics const& said = figures.said;
    u64 const dropped = sum_of_drops(said);
    lib::format(sink, "  {:<20} {:>10} {:>10} {:>10} {:>10} {:>10}\n", label, Count(said.sent_frames).view(),
                Count(said.sent_bytes / lib::KiB).view(), Count(said.received_frames).view(),
                Count(said.received_bytes / lib::KiB).view(), Count(dropped).view());
    if (dropped == 0) return;
    sink.write("    dropped:");
    bool is_first = true;
    for (u32 i = 0; i < service::frame_drops; i++) {
        if (said.dropped[i] == 0) continue;
        lib::format(sink, "{} {} {}", is_first ? "" : ",", Count(said.dropped[i]).view(), drop_names[i]);
        is_first = false;
    }
    sink.write("\n");
}

} // namespace manage
