// SPDX-License-Identifier: MIT
#pragma once
// The router of one network with `mode = "nat"`: a station inside, with the first address of the subnet, and one
// outside, with the MAC address of the uplink. What goes out has the router's address outside. [rfc/3022] [rfc/4787]
//
// A frame to be routed lies in the service's memory, where no guest and no device changes it. Packets are at most as
// long as both sides' frames, so none has to be cut, except large TCP frames, which the uplink cuts.
#include <network/arp.hpp>
#include <network/connections.hpp>
#include <network/dhcp_client.hpp>
#include <network/packet.hpp>

namespace network {

using RouterDrop = lib::service::RouterDrop;

// Where a router's frames go.
class RouterPorts {
public:
    virtual void send_inside(u32 device, std::span<u8 const> frame) = 0;
    // `original`: the guest's frame that this was, if its checksum is to be computed or it is to be cut; else nullptr.
    virtual void send_outside(u32 network, std::span<u8 const> frame, Frame const* original) = 0;

protected:
    ~RouterPorts() = default;
};

class Router {
public:
    // All of it outlives the router.
    struct Parts {
        RouterPorts* ports;
        Host* host;
        Connections* connections;
        Random* random;
        lib::service::RouterEntry const* entry;
        lib::service::RouterStatistics* statistics;
        lib::service::RouterLease* lease;
        u64 ticks_per_second;
    };
    static constexpr u32 waiting_frames = 4; // for the MAC address of the next station

    Router() = default;
    Router(Router const&) = delete;
    Router& operator=(Router const&) = delete;

    void start(u32 network, Parts const& parts, u64 now);
    bool is_present() const { return parts_.entry != nullptr; }
    EthernetAddress mac() const { return mac_; }
    bool is_forwarded(Transport protocol, u16 outside_port) const;

    // A NIC of the network, by its number among all.
    void plug(u32 device, EthernetAddress mac, Ipv4Address address, u64 now);
    void unplug(u32 device);

    // A frame of a NIC to the router or to all. The bytes are the router's to change.
    void from_inside(u32 device, std::span<u8> frame, Frame const& original, u64 now);
    void from_outside(std::span<u8> frame, u64 now);
    // Brings forward what waits for time. The address of the uplink; 0: it cannot send now.
    void poll(EthernetAddress outside_mac, u64 now);
    u64 deadline() const;

private:
    struct Inside {
        EthernetAddress mac = 0;
        Ipv4Address address = 0; // 0: there is no such NIC
    };
    struct Waiting {
        Ipv4Address next = 0; // 0: the place is free
        u64 since = 0;
        u32 size = 0;
        std::array<u8, Frame::largest> bytes;
    };
    struct Address {
        Ipv4Address address, gateway, name_server;
        u32 prefix_length;
    };

    void drop(RouterDrop reason) { parts_.statistics->dropped[static_cast<u32>(reason)]++; }
    Address outside() const;
    bool is_static() const { return parts_.entry->outside_address != 0; }
    bool is_inside(Ipv4Address address) const;
    bool is_ours(Ipv4Address address) const { return address == parts_.entry->address || address == known_.address; }
    void take_address();

    void arp_inside(u32 device, std::span<u8 const> frame);
    void dhcp_inside(u32 device, std::span<u8 const> udp);
    void route_out(u32 device, Packet& packet, Frame const& original);
    void serve(u32 device, Packet& packet, Frame const& original);
    void translate_out(u32 device, Packet& packet, Connections::Wanted wanted, Frame const& original);
    void error_out(u32 device, Packet& packet);
    void refuse(u32 device, Packet& packet, u8 type, u8 code);
    void send_out(Packet& packet, Frame const* original);
    void wait_for(Ipv4Address next, Packet& packet, bool is_large);
    void ask_for(Ipv4Address station);
    u16 rule_port(Transport protocol, Ipv4Address address, u16 port) const;

    void arp_outside(std::span<u8 const> frame);
    bool take_dhcp(Packet& packet);
    void route_in(Packet& packet);
    void translate_in(Packet& packet, Ports const& ports);
    void error_in(Packet& packet);
    std::optional<Connections::Wanted> wanted_by_rule(Ports const& ports, Connections::Station from) const;
    void send_in(u32 device, Packet& packet);
    void flush(Ipv4Address station, EthernetAddress mac);
    static void answer_echo(Packet& packet);

    Parts parts_{};
    u32 network_ = 0;
    EthernetAddress mac_ = 0, outside_mac_ = 0;
    u64 now_ = 0, next_sweep_ = 0;
    Address known_{}; // outside
    std::optional<ArpTable> arp_{};
    std::optional<DhcpClient> dhcp_{};
    std::array<Inside, lib::service::max_devices> inside_{};
    std::array<Waiting, waiting_frames> waiting_{};
    u32 next_waiting_ = 0;
};

} // namespace network
