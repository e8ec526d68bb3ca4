// SPDX-License-Identifier: MIT
#include <algorithm>
#include <network/switch.hpp>

namespace network {

void Switch::plug(u32 port, u32 network) {
    forget_port(port);
    ports_[port] = {true, network, 0, none};
    find_peers();
}

void Switch::unplug(u32 port) {
    forget_port(port);
    ports_[port] = {};
    find_peers();
}

void Switch::find_peers() {
    for (u32 i = 0; i < max_ports; i++) {
        ports_[i].peers = 0;
        for (u32 j = 0; j < max_ports; j++)
            if (i != j && ports_[i].is_plugged && ports_[j].is_plugged && ports_[i].network == ports_[j].network)
                ports_[i].peers |= 1U << j;
    }
}

u16 Switch::find(u32 network, EthernetAddress address) const {
    for (u16 i = heads_[hash(address)]; i != none; i = entries_[i].next)
        if (entries_[i].address == address && ports_[port_of(i)].network == network) return i;
    return none;
}

bool Switch::learn_slowly(u32 port, EthernetAddress address, u64 now) {
    u16 found = find(ports_[port].network, address);
    if (found != none && port_of(found) != port) { // it has moved
        forget(found);
        found = none;
    }
    if (found == none) {
        found = find_room(port, now);
        if (found == none) return false;
        if (entries_[found].is_used) forget(found);
        u16& head = heads_[hash(address)];
        entries_[found] = {address, now, head, true};
        head = found;
    }
    entries_[found].seen = now;
    ports_[port].last = found;
    return true;
}

// One that is free, or too old.
u16 Switch::find_room(u32 port, u64 now) const {
    u16 const first = static_cast<u16>(port * port_addresses);
    u16 old = none;
    for (u16 i = first; i < first + port_addresses; i++) {
        if (!entries_[i].is_used) return i;
        if (is_old(entries_[i], now)) old = i;
    }
    return old;
}

void Switch::forget(u16 entry) {
    u16* link = &heads_[hash(entries_[entry].address)];
    while (*link != entry)
        link = &entries_[*link].next;
    *link = entries_[entry].next;
    entries_[entry] = {};
    u16& last = ports_[port_of(entry)].last;
    if (last == entry) last = none;
}

void Switch::forget_port(u32 port) {
    for (u32 i = port * port_addresses; i < (port + 1) * port_addresses; i++)
        if (entries_[i].is_used) forget(static_cast<u16>(i));
}

u32 Switch::targets(u32 port, EthernetAddress address, u64 now) const {
    Port const& from = ports_[port];
    if ((address & 1) != 0) return from.peers; // of a group
    u16 const found = find(from.network, address);
    if (found == none || is_old(entries_[found], now)) return from.peers;
    return 1U << port_of(found) & from.peers;
}

u32 Switch::known(u32 port) const {
    auto const first = entries_.begin() + port * port_addresses;
    return static_cast<u32>(std::count_if(first, first + port_addresses, [](Entry const& one) { return one.is_used; }));
}

} // namespace network
