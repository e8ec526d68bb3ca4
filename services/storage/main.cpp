// SPDX-License-Identifier: MIT
// The storage service: drives the machine's controllers of disks, and serves the queues of guests' virtio-blk disks,
// whose media are memory or parts of the machine's disks.
#include <block/ahci.hpp>
#include <block/ide.hpp>
#include <block/nvme.hpp>
#include <block/virtio.hpp>
#include <new>
#include <runtime/machine_function.hpp>
#include <storage/catalogue.hpp>
#include <storage/storage.hpp>
#include <utility>

namespace {

namespace service = lib::service;
using lib::u32;
using lib::u64;
using lib::u8;

class Mullion final : public storage::Host {
public:
    void interrupt(u32 device, u32 queue) override { call(service::Call::Interrupt, device, queue); }
    void misuse(u32 device) override { call(service::Call::Misuse, device, 0); }
    void stopped(u32 device, u32 stops) override { call(service::Call::Stopped, device, stops); }
    static void catalogue_changed() { call(service::Call::Catalogue, 0, 0); }
    void log(std::string_view line) override { runtime::log(line); }
    u64 ticks() override { return runtime::ticks(); }
    u64 ticks_per_second() const override { return runtime::manifest().tsc_hz; }
    u8* ram_window(u32 device) override { return reinterpret_cast<u8*>(service::ram_window(device)); }
    u8* medium_window(u32 device) override { return reinterpret_cast<u8*>(service::medium_window(device)); }

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
constinit Room<storage::Storage> storage_room{};
constinit Room<storage::CatalogueWriter> catalogue_room{};
union DriverRoom {
    Room<block::Nvme> nvme;
    Room<block::Ide> ide;
    Room<block::Ahci> ahci;
    Room<block::Virtio> virtio;
};
constinit std::array<DriverRoom, service::max_controllers> driver_rooms{};
constinit storage::Controllers controllers;
constinit std::array<runtime::MachineFunction, service::max_controllers> functions{};

// The end of the memory that a controller sees is not the driver's: there, tables are read, and requests are copied
// that the controller cannot serve in the guest's memory.
constexpr u64 table_size = 16 * lib::KiB, bounce_size = 64 * lib::KiB;

block::Function::Shared part_of(block::Function::Shared const& shared, u64 before_end, u64 size) {
    u64 const at = shared.bytes.size() - before_end;
    return {shared.bytes.subspan(at, size), shared.address + at};
}

block::Controller* make_driver(service::ControllerKind kind, DriverRoom& room, block::Function& function) {
    using service::ControllerKind;
    switch (kind) {
    case ControllerKind::Nvme: return &room.nvme.make(function);
    case ControllerKind::Ide: return &room.ide.make(function);
    case ControllerKind::Ahci: return &room.ahci.make(function);
    case ControllerKind::VirtioBlk: return &room.virtio.make(function);
    case ControllerKind::E1000: // another service's
    case ControllerKind::None: break;
    }
    return nullptr;
}

void add_controllers(service::Board const& board, storage::CatalogueWriter& catalogue) {
    for (u32 i = 0; i < service::max_controllers; i++) {
        service::ControllerEntry const& entry = board.controllers[i];
        functions[i].set(i, entry);
        block::Controller* const driver = make_driver(entry.kind, driver_rooms[i], functions[i]);
        if (driver == nullptr) continue;
        auto const shared = functions[i].shared();
        controllers.add(i, *driver, part_of(shared, bounce_size, bounce_size));
        catalogue.add(i, part_of(shared, bounce_size + table_size, table_size));
    }
}

} // namespace

void runtime::service_main() {
    Mullion mullion;
    auto const& board = *reinterpret_cast<service::Board const*>(service::board_at);
    auto& catalogue = catalogue_room.make(controllers, *reinterpret_cast<service::Catalogue*>(service::catalogue_at));
    add_controllers(board, catalogue);
    auto& storage = storage_room.make(mullion, board, *reinterpret_cast<service::Records*>(service::records_at),
                                      *reinterpret_cast<service::Statistics*>(service::statistics_at), &controllers);
    constexpr u64 all_events = service::event_controller(service::max_controllers) - 1;
    u64 came = service::event_board;
    for (;;) {
        u64 const now = ticks();
        bool const has_more = storage.turn(came, now);
        if (catalogue.turn(now)) mullion.catalogue_changed();
        controllers.ring();
        came = wait(all_events, has_more ? 0 : storage.deadline());
    }
}
