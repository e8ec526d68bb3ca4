// SPDX-License-Identifier: MIT
// What the operator sees of the ports of a network, whatever the network service says.
#include <gtest/gtest.h>
#include <manage/port_figures.hpp>
#include <string>

namespace {

using lib::u32;
using lib::u64;
using lib::service::FrameDrop;
using lib::service::LinkState;
using manage::PortFigures;

class StringSink final : public lib::TextSink {
public:
    void write(std::string_view more) override { text += more; }
    std::string text;
};

std::string network_line(config::UplinkDescription::Kind kind, PortFigures const& figures) {
    StringSink sink;
    config::NetworkDescription const network{
        .name = "lan", .line = 1, .uplink_text = "first", .uplink = {.kind = kind}};
    manage::print_network(sink, network, figures);
    return sink.text;
}

std::string port_lines(std::string_view owner, PortFigures const& figures) {
    StringSink sink;
    manage::print_port(sink, owner, 1, figures);
    return sink.text;
}

TEST(PortFigures, TheLinkOfAnUplinkIsNamed) {
    using Kind = config::UplinkDescription::Kind;
    PortFigures figures;
    EXPECT_EQ(network_line(Kind::None, figures), "lan: internal\n");
    EXPECT_EQ(network_line(Kind::First, figures), "lan: uplink first, not in use\n");
    figures.is_attached = true;
    EXPECT_EQ(network_line(Kind::First, figures), "lan: uplink first, link unknown\n");
    figures.said.link = LinkState::Down;
    EXPECT_EQ(network_line(Kind::First, figures), "lan: uplink first, link down\n");
    figures.said.link = LinkState::Up;
    EXPECT_EQ(network_line(Kind::First, figures), "lan: uplink first, link up\n");
    figures.said.link = LinkState::Failed;
    EXPECT_EQ(network_line(Kind::First, figures), "lan: uplink first, failed\n");
    figures.said.link = static_cast<LinkState>(77);
    EXPECT_EQ(network_line(Kind::First, figures), "lan: uplink first, link unknown\n")
        << "a service may write anything";
}

TEST(PortFigures, FramesBytesAndDropsByTheirReasons) {
    PortFigures figures{.is_attached = true};
    figures.said.sent_frames = 12;
    figures.said.sent_bytes = 3 * lib::KiB;
    figures.said.received_frames = 7;
    figures.said.received_bytes = lib::MiB;
    EXPECT_EQ(port_lines("web", figures),
              "  web nic 1                    12          3          7       1024          0\n");
    figures.said[FrameDrop::Spoofed] = 2;
    figures.said[FrameDrop::NoBuffer] = 5;
    EXPECT_EQ(port_lines("", figures), "  outside                      12          3          7       1024          7\n"
                                       "    dropped: 2 forged source, 5 no buffer\n");
}

TEST(PortFigures, APortThatIsNotInUseHasNoNumbers) {
    EXPECT_EQ(port_lines("web", {}), "  web nic 1            not in use\n");
    EXPECT_EQ(port_lines("", {}), "  outside              not in use\n");
}

TEST(PortFigures, NoNumberMakesAColumnWider) {
    PortFigures figures{.is_attached = true};
    figures.said.sent_frames = figures.said.sent_bytes = figures.said.received_frames = figures.said.received_bytes =
        ~u64{0};
    for (u64& count : figures.said.dropped)
        count = ~u64{0};
    std::string const text = port_lines("web", figures);
    EXPECT_EQ(text.find('\n'), port_lines("web", {.is_attached = true}).find('\n')) << text;
    EXPECT_LT(text.size(), 300U);
}

} // namespace
