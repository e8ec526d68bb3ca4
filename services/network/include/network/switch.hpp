// SPDX-License-Identifier: MIT
#pragma once
// To which ports a frame goes: a learning switch for each network. [ieee/802.1q] 8
//
// Ports of different networks never meet. Each port has its own places for addresses, so that a guest that makes up
// addresses takes none from others.
#include <array>
#include <lib/service_board.hpp>
#include <network/frame.hpp>

namespace network {

class Switch {
public:
    // NICs of guests, and uplinks after them.
    static constexpr u32 max_ports = lib::service::max_devices + lib::service::max_controllers;
    static constexpr u32 port_addresses = 32;   // that are known of one port
    static constexpr u64 max_age_seconds = 300; // [ieee/802.1q] 8.8.3
    static_assert(max_ports <= 32);

    // Whether no switch passes frames to this address on: they are for whatever stands at the other end of the cable.
    // [ieee/802.1q] 8.6.3
    static bool is_reserved(EthernetAddress address) { return (address & 0xf0ff'ffff'ffff) == 0x0000'00c2'8001; }

    // `max_age`: in the unit of `now` below.
    explicit Switch(u64 max_age) : max_age_(max_age) {}

    // Plugs the port into a network. Forgets what it knew of the port.
    void plug(u32 port, u32 network);
    void unplug(u32 port);
    // Notes that a frame with this source has come from the port. Returns false if there is no room for one more.
    bool learn(u32 port, EthernetAddress address, u64 now) {
        u16 const last = ports_[port].last;
        if (last == none || entries_[last].address != address) return learn_slowly(port, address, now);
        entries_[last].seen = now;
        return true;
    }
    // Returns the ports to which a frame from this port goes, as bits: the one where the address is, if that is known;
    // none, if it is at the port itself; else all others of the network.
    u32 targets(u32 port, EthernetAddress address, u64 now) const;
    u32 known(u32 port) const; // addresses

private:
    static constexpr u16 none = 0xffff;
    static constexpr u32 heads = 256;
    struct Entry {
        EthernetAddress address = 0;
        u64 seen = 0;
        u16 next = none; // of those with the same hash
        bool is_used = false;
    };
    struct Port {
        bool is_plugged = false;
        u32 network = 0;
        u32 peers = 0;   // the other ports of the network
        u16 last = none; // what was learned last: nearly always the next one as well
    };

    static u32 hash(EthernetAddress address) { return static_cast<u32>(address * 0x9e37'79b9'7f4a'7c15 >> 56); }
    static u32 port_of(u16 entry) { return entry / port_addresses; }
    bool is_old(Entry const& entry, u64 now) const { return now > entry.seen && now - entry.seen > max_age_; }
    u16 find(u32 network, EthernetAddress address) const;
    bool learn_slowly(u32 port, EthernetAddress address, u64 now);
    u16 find_room(u32 port, u64 now) const;
    void forget(u16 entry);
    void forget_port(u32 port);
    void find_peers();

    u64 max_age_;
    std::array<Port, max_ports> ports_{};
    std::array<Entry, max_ports * port_addresses> entries_{}; // those of port N begin at N * port_addresses
    std::array<u16, heads> heads_ = filled_with_none();
    static constexpr std::array<u16, heads> filled_with_none() {
        std::array<u16, heads> all{};
        all.fill(none);
        return all;
    }
};

} // namespace network
