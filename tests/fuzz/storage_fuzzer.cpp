// SPDX-License-Identifier: MIT
// A hostile driver of a disk: any queue, any bytes in the rings, while the service dies and comes back with any record.
// It must touch nothing but RAM and medium of this VM, end each turn, and serve a driver that starts again. The medium
// is memory or a part of a machine's disk; then commands end in any order, fail, or are not taken, and each must obey
// the controller's limits.
#include "input.hpp"
#include "require.hpp"

#include <storage/disks.hpp>

namespace {

using fuzz::Input;
using fuzz::require;
using namespace storage_test;

constexpr u64 sectors = 16, header_at = 0x4000, table_at = 0x5000, status_at = 0x6000, data_at = 0x7000;
constexpr u32 queues = 2;
constexpr u64 part_at = 8;  // the sector of the machine's disk at which the medium begins
constexpr u8 theirs = 0x5a; // in the other VM's memory and medium

struct Machine {
    bool const is_disk;
    DiskWorld disks{8 * lib::KiB};
    World& world = disks.world;
    MachineDisk disk{64, sector};
    Guest& guest = world.add_disk(sectors, false, queues);
    Guest& other = world.add_disk(sectors, false, queues);
    Driver drivers[queues] = {{world, 0, 0, 64}, {world, 0, 1, 8}};
    Driver other_driver{world, 1};
    u32 begun_before_stop = 0; // commands

    explicit Machine(bool on_disk) : is_disk(on_disk) {
        if (!is_disk) {
            world.connect = {};
            return;
        }
        disks.disks = {&disk};
        disks.use_disk(0, part_at * sector, sectors * sector, 0x1000);
        disks.use_disk(1, (part_at + 2 * sectors) * sector, sectors * sector, 0x1000);
        disks.prepare = [this](FakeController& made) {
            made.now_limits = {4096, 5, 4, 4096, 0x1010'0000, 6};
            made.may_share = true;
            begun_before_stop = 0;
        };
    }
    FakeController& controller() { return *disks.controller; }
    u8* medium() { return is_disk ? disk.bytes.data() + part_at * sector : guest.medium.data(); }
    void reset() {
        guest.fill(0, 0, guest.area_size);
        guest.fill(Guest::high_area, 0, guest.area_size);
        other.fill(0x2000, theirs, other.area_size - 0x2000);
        other.fill(Guest::high_area, theirs, other.area_size);
        std::ranges::fill(other.medium, theirs);
        std::ranges::fill(disk.bytes, theirs);
        std::memset(medium(), 0, sectors * sector);
        *world.records = {};
        world.board->devices[0].is_read_only = 0;
        world.board->devices[0].stops = 0;
        for (Driver& driver : drivers)
            driver.stop();
        other_driver.start();
        world.start();
        world.run();
    }
    void turn() {
        std::memset(world.interrupts, 0, sizeof(world.interrupts));
        std::memset(world.misuses, 0, sizeof(world.misuses));
        world.answers[0].clear();
        world.turn();
        for (u32 const stops : world.answers[0]) {
            require(stops == world.board->devices[0].stops);
            if (!is_disk) continue;
            for (FakeController::UnderWay const& one : controller().under_way)
                require(one.number >= begun_before_stop || one.command.sector >= part_at + sectors);
        }
        for (auto const& device : world.interrupts)
            for (u32 const count : device)
                // Each one is for a request that was given back, or for a start.
                require(count <= storage::BlockDevice::turn_budget / storage::BlockDevice::request_cost + 1);
        require(world.misuses[0] <= 2 && world.misuses[1] == 0);
    }
    void run() {
        u32 turns = 0;
        do {
            turn();
            require(++turns <= 2 * queues * 64);
        } while (world.has_more);
    }
    // Until nothing is under way.
    void settle() {
        run();
        for (u32 i = 0; is_disk && (!controller().under_way.empty() || !controller().ended.empty()); i++) {
            require(i < 10'000);
            controller().end_all();
            disks.interrupt();
            run();
        }
    }
    void stop() {
        for (Driver& driver : drivers)
            driver.stop();
        world.board->devices[0].stops++;
        if (is_disk) begun_before_stop = controller().commands;
    }
    // What a controller does.
    void act_on_controller(Input& input) {
        u8 const what = input.take<u8>();
        auto& under_way = controller().under_way;
        switch (what % 8) {
        case 0: controller().takes = (what & 8) != 0; break;
        case 1: controller().ended.push_back({input.take<u32>() & 0x3ffU, block::Status::Good}); break;
        case 2:
            if ((what & 0x18) == 0x18) controller().now_state = block::Controller::State::Failed;
            break;
        default:
            if (!under_way.empty()) controller().end(what / 16 % under_way.size(), (what & 8) != 0);
            break;
        }
        disks.interrupt();
        turn();
    }
    void works_after_reset() {
        world.board->devices[0].is_read_only = 0;
        if (is_disk && controller().now_state != block::Controller::State::Ready) world.start();
        if (is_disk) controller().takes = true;
        stop();
        settle();
        require(!is_disk || world.instance->deadline() == lib::service::no_deadline);
        drivers[0].start();
        run();
        guest.fill(data_at, 0x77, sector);
        drivers[0].put_header(header_at, OUT, 3);
        guest.put<u8>(status_at, untouched);
        drivers[0].add({{header_at, 16, false}, {data_at, sector, false}, {status_at, 1, true}});
        drivers[0].ring();
        settle();
        require(drivers[0].has_used());
        require(drivers[0].next_used().written == 1);
        require(guest.get<u8>(status_at) == OK && medium()[3 * sector] == 0x77 && medium()[4 * sector - 1] == 0x77);
    }
    void other_vm_is_untouched() {
        require(other.medium_is(0, theirs, sectors));
        for (u64 i = 0; is_disk && i < disk.bytes.size(); i++)
            require(disk.bytes[i] == theirs || (i >= part_at * sector && i < (part_at + sectors) * sector));
        require(other.is_filled(0x2000, theirs, other.area_size - 0x2000));
        require(other.is_filled(Guest::high_area, theirs, other.area_size));
        require(!other_driver.has_used());
    }
};

u64 address(Input& input) {
    u8 const what = input.take<u8>();
    u64 const low = input.take<u8>();
    switch (what % 8) {
    case 0: return input.take<u64>();
    case 1: return Guest::high_area + low * 64;
    case 2: return Guest::high_area + 0x1'0000 - low; // the end of RAM
    case 3: return 0x1'0000 - low;
    case 4: return header_at + low * 16;
    default: return data_at + what / 8 * u64{512} + low % 16;
    }
}

u32 size(Input& input) {
    u8 const what = input.take<u8>();
    if (what >= 0xf0) return input.take<u32>();
    return (what & 0x80) != 0 ? (what & 0x7fU) * u32{sector} : what & 0x3fU;
}

// A chain that could be right but for what the input says of it.
void add_chain(Machine& machine, Driver& driver, Input& input) {
    u8 const what = input.take<u8>();
    constexpr u32 types[] = {IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 99, OUT};
    u32 const type = types[what % 8];
    u64 const header = header_at + what / 8 % 8 * u64{16};
    driver.put_header(header, type, (what & 0x80) != 0 ? input.take<u64>() : input.take<u8>() % (sectors + 2));
    std::vector<Buffer> chain;
    for (u32 left = 16; left != 0;) {
        u32 const part = std::min<u32>(left, (what & 0x40) != 0 ? input.take<u8>() % 16 + 1 : 16);
        chain.push_back({header + 16 - left, part, false});
        left -= part;
    }
    u32 const buffers = input.take<u8>() % 6;
    for (u32 i = 0; i < buffers; i++) {
        u64 const at = address(input);
        chain.push_back({at, size(input), type == IN || type == GET_ID});
        if ((type == DISCARD || type == WRITE_ZEROES) && at % 8 == 0 && at < 0xf000) {
            machine.guest.put<u64>(at, input.take<u8>() % (sectors + 1));
            machine.guest.put<u64>(at + 8, u64{input.take<u8>()} << (input.take<u8>() % 36));
            chain.back().size = 16;
        }
    }
    chain.push_back({status_at + what % 64, 1, true});
    if ((what & 0x20) != 0)
        driver.add_indirect(table_at, chain);
    else
        driver.add(chain);
}

void act(Machine& machine, Input& input) {
    u8 const what = input.take<u8>();
    u32 const number = what >> 4 & 1;
    Driver& driver = machine.drivers[number];
    switch (what & 15) {
    case 0: return driver.start((what & 0x20) != 0, (what & 0x40) != 0);
    case 1: { // a queue as no driver sets it up
        service::QueueEntry& entry = driver.entry();
        u64* const parts[] = {&entry.descriptors, &entry.available, &entry.used};
        *parts[input.take<u8>() % 3] = address(input);
        if ((what & 0x20) != 0) entry.size = input.take<u16>();
        if ((what & 0x40) != 0) entry.epoch += 1U << 31; // as start() never makes it
        return machine.world.change_board();
    }
    case 2: return driver.stop();
    case 3:
    case 4:
    case 5: return add_chain(machine, driver, input);
    case 6: return driver.make_available(input.take<u8>());
    case 7: return machine.guest.put<u16>(driver.available() + 2, input.take<u16>());
    case 8: return machine.guest.put<u16>(driver.used() + 2, input.take<u8>());
    case 9: return machine.guest.put<u64>(input.take<u16>() % 0xfff8, input.take<u64>());
    case 10: // one descriptor
        return driver.describe(driver.descriptors(input.take<u8>() % 64),
                               {address(input), size(input), (what & 0x20) != 0}, input.take<u8>() & 7,
                               input.take<u8>() % 66);
    case 11: // the service dies; its record may be ruined
        if ((what & 0x20) != 0) {
            service::QueueRecord& record = machine.world.records->queues[0][number];
            record.next = input.take<u16>();
            if ((what & 0x40) != 0) record.used_index = record.next;
        }
        machine.world.start();
        return machine.turn();
    case 12: machine.world.board->devices[0].is_read_only = what >> 5 & 1; return machine.world.change_board();
    case 13: return machine.run();
    case 14:
        if ((what & 0x20) != 0) return machine.stop();
        if (machine.is_disk) return machine.act_on_controller(input);
        return machine.turn();
    default: driver.ring(); return machine.turn();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    static Machine& memory = *new Machine(false);
    static Machine& on_disk = *new Machine(true);
    Input input({data, size});
    Machine& machine = (input.take<u8>() & 1) != 0 ? on_disk : memory;
    machine.reset();
    while (!input.is_empty())
        act(machine, input);
    machine.settle();
    machine.works_after_reset();
    machine.other_vm_is_untouched();
    return 0;
}
