// SPDX-License-Identifier: MIT
// The network service: serves the queues of guests' virtio-net devices, drives the machine's NICs that are uplinks, and
// is the switch between them.
#include <net/e1000.hpp>
#include <network/network.hpp>
#include <new>
#include <runtime/machine_function.hpp>
#include <utility>

namespace {

namespace service = lib::service;
using lib::u32;
using lib::u64;
using lib::u8;

class Mullion final : public network::Host {
public:
    void interrupt(u32 device, u32 queue) override { call(service::Call::Interrupt, device, queue); }
    void misuse(u32 device) override { call(service::Call::Misuse, device, 0); }
    void stopped(u32 device, u32 stops) override { call(service::Call::Stopped, device, stops); }
    void log(std::string_view line) override { runtime::log(line); }
    u8* ram_window(u32 device) override { return reinterpret_cast<u8*>(service::ram_window(device)); }

private:
    // The answer says at most that the device is gone, which event_board tells as well.
    static void call(service::Call number, u64 first, u64 second) {
        (void)runtime::system_call(static_cast<u64>(number), first, second);
    }
};

// Too large for the stack, and made when the program starts.
template <typename T> struct alignas(T) Room {
    std::array<std::byte, sizeof(T)> bytes;
    template <typename... Args> T& make(Args&&... args) { return *new (bytes.data()) T(std::forward<Args>(args)...); }
};
constinit Room<network::Network> network_room{};
constinit std::array<Room<net::E1000>, service::max_controllers> driver_rooms{};
constinit std::array<runtime::MachineFunction, service::max_controllers> functions{};

void add_uplinks(service::Board const& board, network::Network& network) {
    for (u32 i = 0; i < service::max_controllers; i++) {
        service::ControllerEntry const& entry = board.controllers[i];
        if (entry.kind != service::ControllerKind::E1000) continue;
        functions[i].set(i, entry);
        network.add_uplink(i, driver_rooms[i].make(functions[i], entry.has_interrupt != 0), entry.network);
    }
}

} // namespace

void runtime::service_main() {
    Mullion mullion;
    auto const& board = *reinterpret_cast<service::Board const*>(service::board_at);
    auto& records = *reinterpret_cast<service::Records*>(service::records_at);
    auto& counts = *reinterpret_cast<service::PortTable*>(service::statistics_at);
    auto& routing = *reinterpret_cast<service::Routing*>(service::routing_at);
    auto& network = network_room.make(mullion, board, records, counts, routing, manifest().tsc_hz);
    add_uplinks(board, network);
    constexpr u64 all_events = service::event_controller(service::max_controllers) - 1;
    u64 came = service::event_board;
    for (;;) {
        bool const has_more = network.turn(came, ticks());
        came = wait(all_events, has_more ? 0 : network.deadline());
    }
}
