// SPDX-License-Identifier: MIT
// A hostile guest and a hostile outside at a router: any packets of ARP, DHCP, IPv4 and what it carries, any time, and
// deaths after which the table of connections says anything. What goes out must have the router's address, what comes
// in must be for the NIC that gets it, headers must match their checksums, and another guest's connection goes on.
#include "input.hpp"
#include "require.hpp"

#include <network/nat_world.hpp>

namespace {

using fuzz::Input;
using fuzz::require;
using namespace network_test;

constexpr u16 good_port = 5000, far_port = 1234, rule_port = 8080;
constexpr u32 bad = 0, good = 1;

struct Machine final : NatTest {
    Machine() {
        testing::GTEST_FLAG(break_on_failure) = true; // Driver::next() expects
        add_guest(large_frames), add_guest();
        forward(Transport::Tcp, rule_port, bad, 80);
    }
    void TestBody() override {}

    void reset(bool is_static) {
        for (u32 i = 0; i < drivers.size(); i++) // all of it would take most of the time
            std::memset(&world.routing->connections[i], 0, sizeof(world.routing->connections[i]));
        world.routing->leases[0] = {};
        *world.records = {};
        *world.counts = {};
        router().outside_address = router().outside_prefix_length = router().gateway = router().name_server = 0;
        if (is_static) be_static();
        device.incoming.clear();
        device.is_up = true;
        for (auto const& driver : drivers) {
            driver->start(driver->features);
            driver->add_buffers(32);
        }
        begin();
    }
    void begin() {
        world.start();
        device.ring();
        device.sent.clear();
        world.instance->add_uplink(0, device, 0);
        run();
    }
    void run() {
        device.rooms_left = 1000;
        world.run();
        look();
    }
    // Everything that has come out of the router.
    void look() {
        for (Bytes const& frame : device.sent)
            look_outside(frame);
        if (!device.sent.empty()) last = device.sent.back();
        device.sent.clear();
        for (u32 guest = 0; guest < drivers.size(); guest++) {
            Driver& driver = *drivers[guest];
            while (auto const received = driver.next())
                look_inside(guest, received->bytes);
            while (driver.rx.available_index != static_cast<u16>(driver.rx.used_index + 32))
                driver.add_buffers(1);
        }
    }
    void look_outside(Bytes const& frame) {
        require(frame.size() >= 42 && frame.size() <= 1514);
        require(std::equal(uplink_mac.begin(), uplink_mac.end(), frame.begin() + 6));
        if (frame[13] == 6) return; // ARP
        auto const header = network::read_ipv4(std::span(frame).subspan(14));
        require(header.has_value() && !header->is_fragment);
        require(header->source == said().address || (header->source == 0 && said().address == 0));
    }
    void look_inside(u32 guest, Bytes const& frame) {
        bool const is_from_router = std::equal(router_mac.begin(), router_mac.end(), frame.begin() + 6);
        if (!is_from_router) return; // the other guest's broadcast
        require(frame.size() >= 42 && frame.size() <= 1514);
        if (frame[13] == 6) return;
        auto const header = network::read_ipv4(std::span(frame).subspan(14));
        require(header.has_value() && !header->is_fragment);
        require(header->destination == address_of(guest) || header->destination == network::ipv4_broadcast);
        Mac const mac = mac_of(guest);
        require(std::equal(mac.begin(), mac.end(), frame.begin()) || frame[0] == 0xff);
        came[guest]++;
    }
    // A connection of the good guest, there and back.
    void works() {
        drivers[good]->send(
            make_packet(router_mac, mac_of(good), {address_of(good), far, Transport::Udp, good_port, far_port}));
        last.clear();
        run();
        if (last.size() < 42 || last[13] == 6) { // its gateway is asked for
            auto const answer = network::make_arp(
                {2, number_of(gateway_mac), gateway, router_outside, number_of(uplink_mac)}, number_of(uplink_mac));
            put_in({answer.begin(), answer.end()});
        }
        require(last.size() >= 42 && network::load_big32(last.data() + 30) == far);
        u32 const before = came[good];
        put_in(make_packet(uplink_mac, gateway_mac,
                           {far, router_outside, Transport::Udp, far_port, network::load_big16(last.data() + 34)}));
        require(came[good] == before + 1);
    }
    void put_in(Bytes const& frame) {
        device.incoming.push_back(frame);
        world.events |= service::event_controller(0);
        run();
    }

    Bytes last;
    u32 came[2] = {};
};

Ipv4Address address(Input& input) {
    constexpr Ipv4Address some[] = {far,
                                    near,
                                    gateway,
                                    name_server,
                                    router_inside,
                                    router_outside,
                                    address_of(bad),
                                    address_of(good),
                                    network::ipv4_broadcast,
                                    0,
                                    router_inside + 9,
                                    ip(224, 0, 0, 9)};
    u8 const what = input.take<u8>();
    return what < std::size(some) ? some[what] : (what & 1) != 0 ? far : input.take<u32>();
}

u16 port(Input& input, Machine& machine) {
    u8 const what = input.take<u8>();
    constexpr u16 some[] = {good_port, far_port, rule_port, 53, 67, 68, 80};
    if (what < std::size(some)) return some[what];
    if (what < 128) return what;
    // That of the last packet that went out.
    return machine.last.size() >= 42 ? network::load_big16(machine.last.data() + 34 + (what & 4)) : 9;
}

Bytes dhcp(Input& input) {
    network::DhcpMessage message{};
    message.is_reply = (input.take<u8>() & 1) != 0;
    message.kind = static_cast<network::DhcpMessage::Kind>(input.take<u8>() % 10);
    message.transaction = input.take<u32>();
    message.mac = number_of(message.is_reply ? uplink_mac : mac_of(bad));
    message.client = address(input);
    message.your = address(input);
    message.requested = address(input);
    message.server = address(input);
    message.mask = lib::ipv4_mask(input.take<u8>() % 33);
    message.router = address(input);
    message.lease_seconds = input.take<u32>();
    auto const made =
        network::make_dhcp(message, {network::ethernet_broadcast, number_of(mac_of(bad)), network::ipv4_broadcast, 0});
    return {made.bytes.begin(), made.bytes.end()};
}

Bytes arp(Input& input) {
    auto const made = network::make_arp({static_cast<u16>(input.take<u8>() % 3), number_of(gateway_mac), address(input),
                                         address(input), number_of(uplink_mac)},
                                        network::ethernet_broadcast);
    return {made.begin(), made.end()};
}

// One that could be right, with the changes that the input asks for.
Bytes frame(Machine& machine, Input& input, bool is_from_inside) {
    u8 const what = input.take<u8>();
    Bytes made;
    if ((what & 7) == 0) {
        made = dhcp(input);
    } else if ((what & 7) == 1) {
        made = arp(input);
    } else {
        constexpr Transport some[] = {Transport::Udp, Transport::Tcp, Transport::Icmp, static_cast<Transport>(47)};
        PacketFields fields{address(input), address(input), some[what >> 3 & 3]};
        fields.source_port = port(input, machine);
        fields.destination_port = port(input, machine);
        fields.flags = input.take<u8>() & 31;
        fields.ttl = (what & 0x20) != 0 ? input.take<u8>() : 64;
        if ((what & 0x40) != 0 && machine.last.size() > 60)
            fields.data.assign(machine.last.begin() + 14, machine.last.begin() + 60); // as ICMP repeats it
        else
            fields.data.resize(input.take<u8>() * 6U);
        made = make_packet(broadcast, mac_of(bad), fields);
    }
    for (u32 i = 0; i < (what >> 7) * 3U; i++) {
        std::size_t const at = 14 + input.take<u8>();
        if (at < made.size()) made[at] ^= input.take<u8>();
    }
    if ((what & 0x90) == 0x90) made.resize(std::max<std::size_t>(14, made.size() * input.take<u8>() / 256));
    Mac const from = is_from_inside ? mac_of(bad) : gateway_mac;
    Mac const to = (what & 7) == 7 ? broadcast : is_from_inside ? router_mac : uplink_mac;
    std::ranges::copy(to, made.begin());
    std::ranges::copy(from, made.begin() + 6);
    return made;
}

void act(Machine& machine, Input& input) {
    u8 const what = input.take<u8>();
    switch (what & 7) {
    case 0:
    case 1:
    case 2: {
        Bytes const made = frame(machine, input, true);
        Offload offload{};
        if ((what & 8) != 0)
            offload = {1,  static_cast<u8>(what >> 4 & 1),
                       0,  input.take<u16>(),
                       34, static_cast<u16>((what & 0x20) != 0 ? 6 : 16)};
        machine.drivers[bad]->send(made, offload);
        return machine.run();
    }
    case 3:
    case 4: return machine.put_in(frame(machine, input, false));
    case 5:
        machine.world.now += input.take<u16>() * u64{what};
        machine.world.events |= service::event_controller(0);
        return machine.run();
    case 6: { // a death, after which the memory of the routers may be ruined
        auto* const memory = reinterpret_cast<u8*>(machine.world.routing.get());
        if ((what & 8) != 0)
            for (u32 i = 0; i < 8; i++)
                memory[input.take<u8>()] ^= input.take<u8>(); // of the first guest's connections
        if ((what & 16) != 0)
            reinterpret_cast<u8*>(&machine.world.routing->leases)[input.take<u8>() % 56] ^= input.take<u8>();
        return machine.begin();
    }
    default:
        machine.device.is_up = (what & 8) == 0;
        machine.world.events |= service::event_controller(0);
        return machine.run();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    static Machine& machine = *new Machine;
    Input input({data, size});
    bool const is_static = (input.take<u8>() & 1) == 0;
    machine.reset(is_static);
    while (!input.is_empty())
        act(machine, input);
    if (!is_static) return 0;
    machine.device.is_up = true;
    machine.world.now += 2 * World::second;
    machine.world.events |= service::event_controller(0);
    machine.run();
    machine.works();
    return 0;
}
