// SPDX-License-Identifier: MIT
// The router's life, and its address outside.
#include <algorithm>
#include <cstring>
#include <lib/format.hpp>
#include <network/router.hpp>

namespace network {
void Router::start(u32 network, Parts const& parts, u64 now) {
    parts_ = parts;
    network_ = network;
    mac_ = load_address(parts.entry->mac);
    now_ = now;
    arp_.emplace(parts.ticks_per_second);
    if (!is_static()) {
        dhcp_.emplace(*parts.lease, *parts.random, parts.ticks_per_second);
        dhcp_->start(now);
    }
    known_ = outside();
    take_address();
}

bool Router::is_forwarded(Transport protocol, u16 outside_port) const {
    u32 const count = std::min(parts_.entry->forward_count, lib::service::max_forwards);
    return std::ranges::any_of(std::span(parts_.entry->forwards).first(count), [&](auto const& rule) {
        return rule.protocol == protocol && rule.outside_port == outside_port;
    });
}

void Router::plug(u32 device, EthernetAddress mac, Ipv4Address address, u64 now) {
    inside_[device] = {mac, address};
    parts_.connections->plug(device, network_, address, now);
}

void Router::unplug(u32 device) {
    if (inside_[device].address == 0) return;
    inside_[device] = {};
    parts_.connections->unplug(device);
    parts_.statistics->leases &= ~(1U << device);
}

Router::Address Router::outside() const {
    lib::service::RouterEntry const& entry = *parts_.entry;
    if (is_static()) return {entry.outside_address, entry.gateway, entry.name_server, entry.outside_prefix_length};
    if (!dhcp_->is_bound()) return {};
    auto const& lease = dhcp_->lease();
    return {lease.address, lease.gateway, entry.name_server != 0 ? entry.name_server : lease.name_server,
            lease.prefix_length};
}

bool Router::is_inside(Ipv4Address address) const {
    return ((address ^ parts_.entry->address) & lib::ipv4_mask(parts_.entry->prefix_length)) == 0;
}

// What the monitor shows.
void Router::take_address() {
    lib::service::RouterStatistics& shown = *parts_.statistics;
    shown.address = known_.address;
    shown.prefix_length = known_.prefix_length;
    shown.gateway = known_.gateway;
    shown.name_server = known_.name_server;
    if (known_.address == 0) return;
    char text[160];
    parts_.host->log(lib::format_to(text, "the router of network {} is {}/{} outside, gateway {}, name server {}",
                                    network_, lib::Ipv4Text(known_.address).view(), known_.prefix_length,
                                    lib::Ipv4Text(known_.gateway).view(), lib::Ipv4Text(known_.name_server).view()));
}

u64 Router::deadline() const {
    if (!is_present()) return lib::service::no_deadline;
    u64 const next = dhcp_ && outside_mac_ != 0 ? dhcp_->deadline() : lib::service::no_deadline;
    return parts_.connections->count(network_) != 0 ? std::min(next, next_sweep_) : next;
}

void Router::poll(EthernetAddress outside_mac, u64 now) {
    now_ = now;
    outside_mac_ = outside_mac;
    if (dhcp_ && outside_mac != 0) {
        bool const was_bound = dhcp_->is_bound();
        if (auto const message = dhcp_->poll(outside_mac_, now_))
            parts_.ports->send_outside(network_, message->bytes, nullptr);
        if (was_bound && !dhcp_->is_bound()) { // nobody has renewed it
            known_ = {};
            parts_.connections->forget_all_of(network_);
            take_address();
        }
    }
    if (now_ < next_sweep_) return;
    next_sweep_ = now_ + parts_.ticks_per_second;
    parts_.connections->sweep(now_);
    parts_.statistics->connections = parts_.connections->count(network_);
}

bool Router::take_dhcp(Packet& packet) {
    if (static_cast<Transport>(packet.ip().protocol) != Transport::Udp) return false;
    std::span<u8> const udp = packet.payload();
    if (udp.size() < udp_header || load_big16(udp.data() + 2) != DhcpMessage::client_port) return false;
    if (!dhcp_ || load_big16(udp.data()) != DhcpMessage::server_port) return false;
    auto const message = read_dhcp(udp.subspan(udp_header));
    if (!message || !dhcp_->take(*message, outside_mac_, now_)) return true;
    Address const now = outside();
    // Packets to such a network could not be told from those to the guests.
    u32 const mask = lib::ipv4_mask(std::min(now.prefix_length, parts_.entry->prefix_length));
    if (now.address != 0 && ((now.address ^ parts_.entry->address) & mask) == 0) {
        parts_.host->log("the DHCP server outside gives an address of the network inside: choose another subnet");
        dhcp_->reject(now_);
        return true;
    }
    known_ = now;
    arp_->clear();
    parts_.connections->forget_all_of(network_);
    take_address();
    return true;
}

void Router::ask_for(Ipv4Address station) {
    auto const frame = make_arp({ArpMessage::request, outside_mac_, known_.address, station, 0}, ethernet_broadcast);
    parts_.ports->send_outside(network_, frame, nullptr);
}

void Router::arp_outside(std::span<u8 const> frame) {
    auto const message = read_arp(frame.subspan(Frame::ethernet_size));
    if (!message || known_.address == 0 || is_ours(message->sender)) return;
    if (message->operation == ArpMessage::reply) {
        if (arp_->learn(message->sender, message->sender_mac, now_)) flush(message->sender, message->sender_mac);
    } else if (message->operation == ArpMessage::request && message->target == known_.address) {
        auto const answer =
            make_arp({ArpMessage::reply, outside_mac_, known_.address, message->sender, message->sender_mac},
                     message->sender_mac);
        parts_.ports->send_outside(network_, answer, nullptr);
    }
}

// The oldest one that waits makes room.
void Router::wait_for(Ipv4Address next, Packet& packet, bool is_large) {
    if (is_large || packet.frame().size() > Frame::largest) return drop(RouterDrop::Unresolved);
    packet.complete_checksum();
    Waiting& place = waiting_[next_waiting_];
    next_waiting_ = (next_waiting_ + 1) % waiting_frames;
    if (place.next != 0) drop(RouterDrop::Unresolved);
    place.next = next;
    place.since = now_;
    place.size = static_cast<u32>(packet.frame().size());
    std::memcpy(place.bytes.data(), packet.frame().data(), place.size);
}

void Router::flush(Ipv4Address station, EthernetAddress mac) {
    constexpr u64 longest_seconds = 3;
    for (Waiting& place : waiting_) {
        if (place.next != station) continue;
        place.next = 0;
        if (now_ - place.since > longest_seconds * parts_.ticks_per_second) {
            drop(RouterDrop::Unresolved);
            continue;
        }
        put_ethernet(place.bytes.data(), mac, outside_mac_, type_ipv4);
        parts_.ports->send_outside(network_, std::span(place.bytes).first(place.size), nullptr);
        parts_.statistics->sent++;
    }
}

} // namespace network
