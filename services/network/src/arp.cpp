// SPDX-License-Identifier: MIT
#include <algorithm>
#include <network/arp.hpp>

namespace network {
namespace {

// Ethernet, IPv4, and the sizes of their addresses.
constexpr u16 hardware = 1;
constexpr u8 mac_size = 6, address_size = 4;
constexpr u32 sender_at = 8, target_at = 18;

} // namespace

std::optional<ArpMessage> read_arp(std::span<u8 const> body) {
    if (body.size() < ArpMessage::size) return std::nullopt;
    u8 const* const at = body.data();
    if (load_big16(at) != hardware || load_big16(at + 2) != type_ipv4 || at[4] != mac_size || at[5] != address_size)
        return std::nullopt;
    return ArpMessage{load_big16(at + 6), load_address(at + sender_at), load_big32(at + sender_at + mac_size),
                      load_big32(at + target_at + mac_size), load_address(at + target_at)};
}

ArpFrame make_arp(ArpMessage const& message, EthernetAddress to) {
    ArpFrame frame;
    put_ethernet(frame.data(), to, message.sender_mac, type_arp);
    u8* const at = frame.data() + Frame::ethernet_size;
    store_big16(at, hardware);
    store_big16(at + 2, type_ipv4);
    at[4] = mac_size;
    at[5] = address_size;
    store_big16(at + 6, message.operation);
    store_address(at + sender_at, message.sender_mac);
    store_big32(at + sender_at + mac_size, message.sender);
    store_address(at + target_at, message.target_mac);
    store_big32(at + target_at + mac_size, message.target);
    return frame;
}

// The one of the station, or else the one that was used the longest time ago.
ArpTable::Entry& ArpTable::place_for(Ipv4Address station) {
    auto const same = std::ranges::find(entries_, station, &Entry::station);
    if (same != entries_.end()) return *same;
    Entry& place = *std::ranges::min_element(entries_, {}, &Entry::used);
    place = {};
    place.station = station;
    return place;
}

ArpTable::Found ArpTable::find(Ipv4Address station, u64 now) {
    Entry& entry = place_for(station);
    if (entry.is_known && now - entry.learned > max_age_seconds * second_) entry.is_known = false;
    bool const is_fresh = entry.is_known && now - entry.learned <= fresh_seconds * second_;
    bool const may_ask = entry.asked == 0 || now - entry.asked >= ask_again_seconds * second_;
    bool const must_ask = !is_fresh && may_ask;
    entry.used = now;
    if (must_ask) entry.asked = now;
    return {entry.is_known ? std::optional(entry.mac) : std::nullopt, must_ask};
}

bool ArpTable::learn(Ipv4Address station, EthernetAddress mac, u64 now) {
    auto const entry = std::ranges::find(entries_, station, &Entry::station);
    if (station == 0 || (mac & 1) != 0 || mac == 0 || entry == entries_.end()) return false;
    if (entry->asked == 0 || now - entry->asked > asked_seconds * second_) return false;
    entry->mac = mac;
    entry->learned = now;
    entry->is_known = true;
    return true;
}

} // namespace network
