// SPDX-License-Identifier: MIT
// The storage service: serves the queues of guests' virtio-blk disks, whose media are memory.
#include <new>
#include <runtime/service.hpp>
#include <storage/storage.hpp>

namespace {

namespace service = lib::service;
using lib::u32;
using lib::u64;
using lib::u8;

class Mullion final : public storage::Host {
public:
    void interrupt(u32 device, u32 queue) override { call(service::Call::Interrupt, device, queue); }
    void misuse(u32 device) override { call(service::Call::Misuse, device, 0); }
    void log(std::string_view line) override { runtime::log(line); }
    u8* ram_window(u32 device) override { return reinterpret_cast<u8*>(service::ram_window(device)); }
    u8* medium_window(u32 device) override { return reinterpret_cast<u8*>(service::medium_window(device)); }

private:
    // The answer says at most that the device is gone, which event_board tells as well.
    static void call(service::Call number, u64 first, u64 second) {
        (void)runtime::system_call(static_cast<u64>(number), first, second);
    }
};

// Too large for the stack, and made when the program starts.
alignas(storage::Storage) constinit std::array<std::byte, sizeof(storage::Storage)> room{};

} // namespace

void runtime::service_main() {
    Mullion mullion;
    auto& storage =
        *new (room.data()) storage::Storage(mullion, *reinterpret_cast<service::Board const*>(service::board_at),
                                            *reinterpret_cast<service::Records*>(service::records_at));
    constexpr u64 events = service::event_doorbell(service::max_devices) - 1;
    bool has_more = storage.turn(service::event_board);
    for (;;)
        has_more = storage.turn(wait(events, has_more ? 0 : service::no_deadline));
}
