// SPDX-License-Identifier: MIT
// The network service: serves the queues of guests' virtio-net devices, and is the switch between them.
#include <network/network.hpp>
#include <new>
#include <runtime/service.hpp>

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
alignas(network::Network) constinit std::array<std::byte, sizeof(network::Network)> network_room{};

} // namespace

void runtime::service_main() {
    Mullion mullion;
    auto const& board = *reinterpret_cast<service::Board const*>(service::board_at);
    auto& records = *reinterpret_cast<service::Records*>(service::records_at);
    auto& network = *new (network_room.data()) network::Network(mullion, board, records, manifest().tsc_hz);
    constexpr u64 all_events = service::event_doorbell(service::max_devices) - 1;
    u64 came = service::event_board;
    for (;;) {
        bool const has_more = network.turn(came, ticks());
        came = wait(all_events, has_more ? 0 : network.deadline());
    }
}
