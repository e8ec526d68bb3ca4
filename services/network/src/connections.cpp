// SPDX-License-Identifier: MIT
#include <algorithm>
#include <network/connections.hpp>

namespace network {
namespace {

constexpr u32 searched = 64; // places that one search for a free one looks at

u8 number_of(Transport protocol) { return static_cast<u8>(protocol); }

} // namespace

Connections::Connections(lib::service::Routing& routing, Random& random, Rules const& rules, u64 ticks_per_second)
    : routing_(routing), random_(random), rules_(rules), second_(ticks_per_second), key_(random.next()) {
    inside_heads_.fill(none);
    outside_heads_.fill(none);
    connection_heads_.fill(none);
}

u32 Connections::inside_hash(u32 device, u8 protocol, u16 port) const {
    return hash(u64{1} << 63 | u64{device} << 32 | u32{protocol} << 16 | port);
}
u32 Connections::outside_hash(u32 network, u8 protocol, u16 port) const {
    return hash(u64{network} << 32 | u32{protocol} << 16 | port);
}
u32 Connections::connection_hash(u16 mapping, Station outside) const {
    return hash(u64{outside.address} << 32 | u32{mapping} << 16 | outside.port);
}

u16 Connections::mapping_of(u32 device, u8 protocol, u16 inside_port) const {
    for (u16 i = inside_heads_[inside_hash(device, protocol, inside_port)]; i != none; i = mappings_[i].next_inside) {
        Mapping const& one = mappings_[i];
        if (device_of(i) == device && one.protocol == protocol && one.inside_port == inside_port) return i;
    }
    return none;
}

u16 Connections::mapping_from_outside(u32 network, u8 protocol, u16 router_port) const {
    u16 i = outside_heads_[outside_hash(network, protocol, router_port)];
    for (; i != none; i = mappings_[i].next_outside) {
        Mapping const& one = mappings_[i];
        if (one.network == network && one.protocol == protocol && one.router_port == router_port) break;
    }
    return i;
}

// There is room: a NIC has as many places for mappings as for connections.
u16 Connections::add_mapping(u32 device, u8 protocol, u16 inside_port, u16 router_port) {
    Device& owner = devices_[device];
    u16 const number = owner.free_mapping;
    owner.free_mapping = mappings_[number].next_inside;
    u16& inside = inside_heads_[inside_hash(device, protocol, inside_port)];
    u16& outside = outside_heads_[outside_hash(owner.network, protocol, router_port)];
    mappings_[number] = {inside_port, router_port, protocol, static_cast<u8>(owner.network), 0, inside, outside};
    inside = outside = number;
    return number;
}

void Connections::remove_mapping(u16 number) {
    Mapping const gone = mappings_[number];
    u32 const device = device_of(number);
    u16* at = &inside_heads_[inside_hash(device, gone.protocol, gone.inside_port)];
    while (*at != number)
        at = &mappings_[*at].next_inside;
    *at = gone.next_inside;
    at = &outside_heads_[outside_hash(gone.network, gone.protocol, gone.router_port)];
    while (*at != number)
        at = &mappings_[*at].next_outside;
    *at = gone.next_outside;
    mappings_[number] = {};
    mappings_[number].next_inside = devices_[device].free_mapping;
    devices_[device].free_mapping = number;
}

u16 Connections::find_connection(u16 mapping, Station outside) const {
    u16 i = connection_heads_[connection_hash(mapping, outside)];
    for (; i != none; i = links_[i].next)
        if (links_[i].mapping == mapping && record_of(i).outside == outside.address &&
            record_of(i).outside_port == outside.port)
            break;
    return i;
}

u64 Connections::lifetime(Record const& record) const {
    switch (static_cast<Transport>(record.protocol)) {
    case Transport::Icmp: return icmp_seconds * second_;
    case Transport::Udp: return ((record.flags & relayed) != 0 ? name_seconds : udp_seconds) * second_;
    case Transport::Tcp: break;
    }
    return (record.state == State::Open ? tcp_open_seconds : tcp_transitory_seconds) * second_;
}

u16 Connections::living(u16 number, u64 now) {
    if (number == none || !is_over(record_of(number), now)) return number;
    end(number);
    return none;
}

u16 Connections::find(Wanted const& wanted, u64 now) {
    u16 const mapping = mapping_of(wanted.device, number_of(wanted.protocol), wanted.inside_port);
    if (mapping == none) return none;
    u16 const found = living(find_connection(mapping, wanted.outside), now);
    // What was sent to the server itself, and what the router sends there for its NIC, are not told apart outside.
    if (found != none && is_relayed(found) != wanted.is_relayed) record_of(found).flags ^= relayed;
    return found;
}

u16 Connections::find_from_outside(u32 network, Transport protocol, u16 router_port, Station outside, u64 now) {
    u16 const mapping = mapping_from_outside(network, number_of(protocol), router_port);
    return mapping == none ? none : living(find_connection(mapping, outside), now);
}

// Looks through all places of one NIC.
std::optional<Connections::Wanted> Connections::expected_from_outside(u32 network, Transport protocol, u16 router_port,
                                                                      Station outside) {
    if (protocol != Transport::Udp) return std::nullopt;
    u16 const number = mapping_from_outside(network, number_of(protocol), router_port);
    if (number == none) return std::nullopt;
    Mapping const& mapping = mappings_[number];
    u32 const device = device_of(number);
    for (u32 i = 0; i < per_device; i++) {
        Record const& one = routing_.connections[device][i];
        bool const is_known = one.state != State::Free && one.protocol == mapping.protocol &&
                              one.inside_port == mapping.inside_port && one.outside == outside.address &&
                              (one.flags & relayed) == 0;
        if (is_known) return Wanted{device, protocol, mapping.inside_port, outside, router_port, false};
    }
    return std::nullopt;
}

u16 Connections::open(Wanted const& wanted, u64 now) {
    Device& owner = devices_[wanted.device];
    if (!owner.is_plugged || (owner.free_connection == none && !make_room(wanted.device, now))) return none;
    u8 const protocol = number_of(wanted.protocol);
    u16 mapping = mapping_of(wanted.device, protocol, wanted.inside_port);
    if (mapping == none) {
        u16 const port = wanted.router_port != 0 ? wanted.router_port : choose_port(owner.network, wanted.protocol);
        if (port == 0 || mapping_from_outside(owner.network, protocol, port) != none) return none;
        mapping = add_mapping(wanted.device, protocol, wanted.inside_port, port);
    }
    u16 const number = owner.free_connection;
    owner.free_connection = links_[number].next;
    Record& record = record_of(number);
    record = {};
    record.seen = now;
    record.inside = owner.address;
    record.outside = wanted.outside.address;
    record.inside_port = wanted.inside_port;
    record.router_port = mappings_[mapping].router_port;
    record.outside_port = wanted.outside.port;
    record.protocol = protocol;
    record.network = static_cast<u8>(owner.network);
    record.flags = wanted.is_relayed ? relayed : u8{0};
    __atomic_store_n(reinterpret_cast<u8*>(&record.state), static_cast<u8>(State::Opening), __ATOMIC_RELEASE);
    link(number, mapping);
    return number;
}

void Connections::link(u16 number, u16 mapping) {
    Record const& record = record_of(number);
    u16& head = connection_heads_[connection_hash(mapping, {record.outside, record.outside_port})];
    links_[number] = {mapping, head};
    head = number;
    mappings_[mapping].users++;
    Device& owner = devices_[device_of(number)];
    owner.count++;
    counts_[owner.network]++;
}

void Connections::end(u16 number) {
    Record& record = record_of(number);
    u16 const mapping = links_[number].mapping;
    u16* at = &connection_heads_[connection_hash(mapping, {record.outside, record.outside_port})];
    while (*at != number)
        at = &links_[*at].next;
    *at = links_[number].next;
    Device& owner = devices_[device_of(number)];
    links_[number] = {none, owner.free_connection};
    owner.free_connection = number;
    owner.count--;
    counts_[owner.network]--;
    record.state = State::Free;
    if (--mappings_[mapping].users == 0) remove_mapping(mapping);
}

// Ends a connection of the NIC that is over, or that closes, or that nobody has answered yet. A NIC that has so many
// has closed them long ago, or floods; those that are open stay.
bool Connections::make_room(u32 device, u64 now) {
    Device& owner = devices_[device];
    u16 best = none;
    auto const worth = [&](u16 number) {
        Record const& one = record_of(number);
        u32 const rank = is_over(one, now) ? 3 : one.state == State::Closing ? 2 : one.state == State::Opening ? 1 : 0;
        return rank;
    };
    for (u32 i = 0; i < searched; i++) {
        auto const number = static_cast<u16>(device * per_device + owner.hand);
        owner.hand = static_cast<u16>((owner.hand + 1) % per_device);
        u32 const rank = worth(number);
        if (rank == 0 || (best != none && rank <= worth(best))) continue;
        best = number;
        if (rank == 3) break;
    }
    if (best == none) return false;
    end(best);
    return true;
}

// At random, so that nobody can guess the port of a connection. [rfc/6056] 3.3.2; 0: none was free.
u16 Connections::choose_port(u32 network, Transport protocol) {
    constexpr u32 tries = 32, range = 65536 - first_port;
    for (u32 i = 0; i < tries; i++) {
        auto const port = static_cast<u16>(first_port + random_.next() % range);
        if (rules_.is_taken(network, protocol, port)) continue;
        if (mapping_from_outside(network, number_of(protocol), port) == none) return port;
    }
    return 0;
}

// [rfc/5382] 2 and REQ-2: SYNs of both sides open it, FINs of both sides or one RST close it. A forged RST does not end
// what goes on: the next packet of the NIC opens it again.
void Connections::note(u16 number, bool is_from_inside, u8 tcp_flags, u64 now) {
    Record& record = record_of(number);
    record.seen = now;
    if (static_cast<Transport>(record.protocol) != Transport::Tcp) {
        if (!is_from_inside) record.state = State::Open;
        return;
    }
    constexpr u8 both_syn = syn_inside | syn_outside, both_fin = fin_inside | fin_outside;
    u8 flags = record.flags;
    bool const is_new = (tcp_flags & (tcp_syn | tcp_ack)) == tcp_syn && record.state == State::Closing;
    if (is_new) flags &= relayed; // both ends use the ports again
    if ((tcp_flags & tcp_syn) != 0) flags |= is_from_inside ? syn_inside : syn_outside;
    if ((tcp_flags & tcp_fin) != 0) flags |= is_from_inside ? fin_inside : fin_outside;
    if ((tcp_flags & tcp_rst) != 0)
        flags |= reset;
    else if (is_from_inside)
        flags &= static_cast<u8>(~reset);
    record.flags = flags;
    if ((flags & reset) != 0 || (flags & both_fin) == both_fin)
        record.state = State::Closing;
    else
        record.state = (flags & both_syn) == both_syn ? State::Open : State::Opening;
}

void Connections::sweep(u64 now) {
    u32 const device = next_swept_;
    next_swept_ = (next_swept_ + 1) % lib::service::max_devices;
    if (devices_[device].count == 0) return;
    for (u32 i = 0; i < per_device; i++) {
        auto const number = static_cast<u16>(device * per_device + i);
        if (links_[number].mapping != none && is_over(record_of(number), now)) end(number);
    }
}

void Connections::plug(u32 device, u32 network, Ipv4Address address, u64 now) {
    unplug(device);
    Device& owner = devices_[device];
    owner = {true, network, 0, address, none, none, 0};
    for (u32 i = per_device; i-- != 0;) {
        auto const number = static_cast<u16>(device * per_device + i);
        mappings_[number] = {};
        mappings_[number].next_inside = owner.free_mapping;
        owner.free_mapping = number;
    }
    for (u32 i = per_device; i-- != 0;) {
        auto const number = static_cast<u16>(device * per_device + i);
        Record& record = record_of(number);
        if (is_valid(record, owner, now) && take_over(number)) continue;
        record.state = State::Free;
        links_[number] = {none, owner.free_connection};
        owner.free_connection = number;
    }
}

// Whether the last instance has left a connection of this NIC.
bool Connections::is_valid(Record const& record, Device const& device, u64 now) const {
    auto const protocol = static_cast<Transport>(record.protocol);
    bool const is_known = protocol == Transport::Tcp || protocol == Transport::Udp || protocol == Transport::Icmp;
    return record.state > State::Free && record.state <= State::Closing && is_known &&
           record.network == device.network && record.inside == device.address && record.router_port != 0 &&
           record.seen <= now && !is_over(record, now);
}

bool Connections::take_over(u16 number) {
    Record const record = record_of(number);
    u32 const device = device_of(number);
    u16 const inside = mapping_of(device, record.protocol, record.inside_port);
    u16 const outside = mapping_from_outside(record.network, record.protocol, record.router_port);
    if (inside != outside) return false; // two NICs at one port, or two ports for one NIC's
    if (inside != none && find_connection(inside, {record.outside, record.outside_port}) != none) return false;
    link(number,
         inside != none ? inside : add_mapping(device, record.protocol, record.inside_port, record.router_port));
    return true;
}

void Connections::unplug(u32 device) {
    Device& owner = devices_[device];
    if (!owner.is_plugged) return;
    for (u32 i = 0; owner.count != 0 && i < per_device; i++) {
        auto const number = static_cast<u16>(device * per_device + i);
        if (links_[number].mapping != none) end(number);
    }
    owner = {};
}

void Connections::forget_all_of(u32 network) {
    for (u32 device = 0; device < devices_.size(); device++) {
        Device const was = devices_[device];
        if (!was.is_plugged || was.network != network) continue;
        for (u32 i = 0; devices_[device].count != 0 && i < per_device; i++) {
            auto const number = static_cast<u16>(device * per_device + i);
            if (links_[number].mapping != none) end(number);
        }
    }
}

} // namespace network
