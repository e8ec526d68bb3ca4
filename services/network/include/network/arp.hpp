// SPDX-License-Identifier: MIT
#pragma once
// ARP for IPv4 over Ethernet: messages, and a table of stations outside. [rfc/826]
#include <array>
#include <network/wire.hpp>

namespace network {

struct ArpMessage {
    static constexpr u32 size = 28;
    static constexpr u16 request = 1, reply = 2;
    u16 operation;
    EthernetAddress sender_mac;
    Ipv4Address sender, target;
    EthernetAddress target_mac;
};
// `body`: after the Ethernet header. Nothing: it is not about IPv4 over Ethernet.
std::optional<ArpMessage> read_arp(std::span<u8 const> body);
// A frame, as short as the message.
inline constexpr u32 arp_frame_size = Frame::ethernet_size + ArpMessage::size;
using ArpFrame = std::array<u8, arp_frame_size>;
ArpFrame make_arp(ArpMessage const& message, EthernetAddress to);

// Takes answers only of stations that it asked, so that a stranger's messages fill no place.
class ArpTable {
public:
    static constexpr u32 places = 32;
    static constexpr u64 ask_again_seconds = 1, fresh_seconds = 60, max_age_seconds = 300, asked_seconds = 5;
    struct Found {
        std::optional<EthernetAddress> mac;
        bool must_ask; // now: a request goes out
    };

    explicit ArpTable(u64 ticks_per_second) : second_(ticks_per_second) {}
    // Notes that the station is needed.
    Found find(Ipv4Address station, u64 now);
    // Returns whether the table had asked for it.
    bool learn(Ipv4Address station, EthernetAddress mac, u64 now);
    void clear() { entries_ = {}; }

private:
    struct Entry {
        Ipv4Address station = 0; // 0: the place is free
        bool is_known = false;
        EthernetAddress mac = 0;
        u64 learned = 0, asked = 0, used = 0;
    };
    Entry& place_for(Ipv4Address station);

    u64 second_;
    std::array<Entry, places> entries_{};
};

} // namespace network
