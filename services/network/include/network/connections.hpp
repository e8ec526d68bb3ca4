// SPDX-License-Identifier: MIT
#pragma once
// The connections that routers know. [rfc/4787] [rfc/5382] [rfc/5508]
//
// A mapping binds a NIC's port to a port of the router outside, the same for all it talks to (endpoint-independent).
// A connection is a mapping with one station outside. Each NIC has its own places for both, so that a guest that opens
// connections without end takes none from others. Connections are kept in memory that outlives this instance
// (lib::service::Routing); what finds them quickly is made again from there.
#include <array>
#include <lib/service_board.hpp>
#include <network/random.hpp>
#include <network/wire.hpp>

namespace network {

class Connections {
public:
    static constexpr u16 none = 0xffff;
    static constexpr u32 per_device = lib::service::device_connections;
    // [rfc/5382] REQ-5, [rfc/4787] REQ-5, [rfc/5508] REQ-1; a question to a name server is answered at once or never.
    static constexpr u64 tcp_open_seconds = 2 * 3600 + 4 * 60, tcp_transitory_seconds = 4 * 60, udp_seconds = 300,
                         name_seconds = 30, icmp_seconds = 60;
    static constexpr u16 first_port = 1024; // of those that are chosen
    using Record = lib::service::ConnectionRecord;
    using State = lib::service::ConnectionState;
    struct Station {
        Ipv4Address address;
        u16 port;
    };
    // What a NIC sends, or what an outside station sends to a rule's port.
    struct Wanted {
        u32 device;
        Transport protocol;
        u16 inside_port;
        Station outside;
        u16 router_port = 0;     // 0: any
        bool is_relayed = false; // to a name server, in the router's name
    };
    // Whether a port outside leads to a NIC by a rule: it is not chosen.
    class Rules {
    public:
        virtual bool is_taken(u32 network, Transport protocol, u16 router_port) const = 0;

    protected:
        ~Rules() = default;
    };

    // All outlive this object.
    Connections(lib::service::Routing& routing, Random& random, Rules const& rules, u64 ticks_per_second);
    Connections(Connections const&) = delete;
    Connections& operator=(Connections const&) = delete;

    // A NIC with this address is on that network: its connections go on, all others of its places end.
    void plug(u32 device, u32 network, Ipv4Address address, u64 now);
    void unplug(u32 device);
    // The router has got another address outside.
    void forget_all_of(u32 network);

    Record const& record(u16 number) const { return record_of(number); }
    static u32 device_of(u16 number) { return number / per_device; }
    bool is_relayed(u16 number) const { return (record_of(number).flags & relayed) != 0; }
    // Of what a NIC sends. none: there is no such connection.
    u16 find(Wanted const& wanted, u64 now);
    // Of what comes from outside.
    u16 find_from_outside(u32 network, Transport protocol, u16 router_port, Station outside, u64 now);
    // The same, if the NIC has sent to that address before, to whatever port: a connection that may be opened.
    // [rfc/4787] REQ-8
    std::optional<Wanted> expected_from_outside(u32 network, Transport protocol, u16 router_port, Station outside);
    // none: all places of the NIC are in use.
    u16 open(Wanted const& wanted, u64 now);
    // Notes a packet of the connection.
    void note(u16 number, bool is_from_inside, u8 tcp_flags, u64 now);
    // Ends what is over, of one NIC after the other.
    void sweep(u64 now);
    u32 count(u32 network) const { return counts_[network]; }
    u32 count_of_device(u32 device) const { return devices_[device].count; }

private:
    static constexpr u32 total = lib::service::max_devices * per_device, heads = 4096;
    static_assert(total < none);
    static constexpr u8 syn_inside = 1, syn_outside = 2, fin_inside = 4, fin_outside = 8, relayed = 16, reset = 32;
    struct Mapping {
        u16 inside_port, router_port;
        u8 protocol, network;
        u16 users; // connections; 0: it is free, and next_inside leads to the next that is
        u16 next_inside, next_outside;
    };
    struct Link {
        u16 mapping;
        u16 next; // with the same hash, or free
    };
    struct Device {
        bool is_plugged = false;
        u32 network = 0, count = 0;
        Ipv4Address address = 0;
        u16 free_mapping = none, free_connection = none;
        u16 hand = 0; // where the next search for a place begins
    };

    Record& record_of(u16 number) const { return routing_.connections[number / per_device][number % per_device]; }
    u32 hash(u64 key) const {
        u64 mixed = (key ^ key_) * 0x9e37'79b9'7f4a'7c15;
        mixed = (mixed ^ mixed >> 32) * 0xd6e8'feb8'6659'fd93;
        return static_cast<u32>(mixed >> 52);
    }
    static_assert(heads == 1 << (64 - 52));
    u32 inside_hash(u32 device, u8 protocol, u16 port) const;
    u32 outside_hash(u32 network, u8 protocol, u16 port) const;
    u32 connection_hash(u16 mapping, Station outside) const;
    u16 mapping_of(u32 device, u8 protocol, u16 inside_port) const;
    u16 mapping_from_outside(u32 network, u8 protocol, u16 router_port) const;
    u16 add_mapping(u32 device, u8 protocol, u16 inside_port, u16 router_port);
    void remove_mapping(u16 number);
    u16 find_connection(u16 mapping, Station outside) const;
    u16 living(u16 number, u64 now);
    bool is_valid(Record const& record, Device const& device, u64 now) const;
    bool take_over(u16 number);
    void link(u16 number, u16 mapping);
    void end(u16 number);
    bool make_room(u32 device, u64 now);
    u16 choose_port(u32 network, Transport protocol);
    u64 lifetime(Record const& record) const;
    bool is_over(Record const& record, u64 now) const {
        return now > record.seen && now - record.seen > lifetime(record);
    }

    lib::service::Routing& routing_;
    Random& random_;
    Rules const& rules_;
    u64 const second_;
    u64 key_;
    u32 next_swept_ = 0;
    std::array<Device, lib::service::max_devices> devices_{};
    std::array<u32, lib::max_networks> counts_{};
    std::array<Mapping, total> mappings_{};
    std::array<Link, total> links_{};
    std::array<u16, heads> inside_heads_, outside_heads_, connection_heads_;
};

} // namespace network
