// SPDX-License-Identifier: MIT
// A hostile driver of a NIC: any queue, any bytes in the rings, any frames, while the service dies and comes back with
// any record. It must touch nothing but RAM of its VM and the buffers that others offer, send no frame in another's
// name or into another network, end each turn, and serve a driver that starts again. Its network has an uplink, from
// which hostile frames come: they must reach nobody in the name of a NIC here, and no other network.
#include "input.hpp"
#include "require.hpp"

#include <network/outside.hpp>

namespace {

using fuzz::Input;
using fuzz::require;
using namespace network_test;

constexpr u64 frame_at = 0x4000, table_at = 0x5000, buffer_at = 0x8000, large_at = Guest::high_area + 0x200;
// NIC 0 is hostile. 1 and 2 hear it and each other, with and without offloads; 3 is in a network of its own.
constexpr u32 nics = 4;

// Counts the frames that the service must drop.
struct HostileOutside final : Outside {
    static constexpr u32 usual_rooms = 1000;
    u64 spoofed = 0, of_bad_size = 0;

    std::span<u8 const> next_frame() override {
        std::span<u8 const> const frame = Outside::next_frame();
        if (frame.empty()) return frame;
        bool const has_tag = frame.size() >= 14 && frame[12] == 0x81 && frame[13] == 0;
        bool const is_bad = frame.size() < 14 || frame.size() > (has_tag ? 1518U : 1514U);
        of_bad_size += is_bad ? 1 : 0;
        spoofed += !is_bad && is_forbidden(frame) ? 1 : 0;
        return frame;
    }
    static bool is_forbidden(std::span<u8 const> frame) {
        if ((frame[6] & 1) != 0) return true;
        for (u32 i = 0; i < 3; i++) // NICs of its network
            if (std::ranges::equal(frame.subspan(6, 6), mac_of(i))) return true;
        return false;
    }
    void start_again() {
        now_state = State::Ready;
        is_up = true;
        rooms_left = usual_rooms;
        incoming.clear();
    }
};

struct Machine {
    World world;
    HostileOutside outside;
    std::vector<std::unique_ptr<Driver>> drivers;
    Guest& guest = world.add_nic(0);

    Machine() {
        testing::GTEST_FLAG(break_on_failure) = true; // Driver::next() expects
        for (u32 i = 1; i < nics; i++)
            world.add_nic(i == 3 ? 1 : 0);
        for (u32 i = 0; i < nics; i++)
            drivers.push_back(std::make_unique<Driver>(world, i, static_cast<u16>(i == 0 ? 16 : 64)));
    }
    Driver& bad() { return *drivers[0]; }
    Driver& good(u32 number) { return *drivers[number]; }
    void reset() {
        guest.fill(0, 0, 0x1'0000);
        guest.fill(Guest::high_area, 0, 0x1000);
        *world.records = {};
        world.board->devices[0].stops = 0;
        bad().rx.stop();
        bad().tx.stop();
        bad().features = all_offloads;
        start_good(1, large_frames, 200);
        start_good(2, 0, Driver::usual_buffer);
        start_good(3, all_offloads, Driver::usual_buffer);
        outside.start_again();
        outside.spoofed = outside.of_bad_size = 0;
        *world.counts = {};
        start_service();
        world.run();
    }
    void start_service() {
        world.start();
        outside.ring(); // the next instance resets it: all buffers are its own again
        outside.sent.clear();
        world.instance->add_uplink(0, outside, 0);
    }
    void start_good(u32 number, u32 features, u32 buffer_size) {
        good(number).start(features, number == 1, buffer_size);
        good(number).add_buffers(64);
    }
    void turn() {
        std::memset(world.interrupts, 0, sizeof(world.interrupts));
        std::memset(world.misuses, 0, sizeof(world.misuses));
        world.answers[0].clear();
        world.turn();
        for (u32 const stops : world.answers[0])
            require(stops == world.board->devices[0].stops);
        require(world.misuses[0] <= 2); // by its entries, and by what it had in the rings
        for (u32 i = 0; i < nics; i++) {
            require(i == 0 || world.misuses[i] == 0);
            for (u32 const queue : {receive, transmit})
                require(world.interrupts[i][queue] <= 5);
        }
        for (u32 i = 1; i < nics; i++)
            take_frames(good(i), i);
        look_outside();
    }
    void look_outside() {
        network::Statistics const& counts = world.instance->uplink(0).statistics();
        require(counts[Drop::Spoofed] == outside.spoofed && counts[Drop::BadSize] == outside.of_bad_size);
        for (Bytes const& frame : outside.sent) {
            require(frame.size() >= 14 && frame.size() <= Outside::largest_frame);
            Mac from;
            std::copy_n(frame.begin() + 6, 6, from.begin());
            require(from == mac_of(0) || from == mac_of(1));
            constexpr u8 reserved[] = {0x01, 0x80, 0xc2, 0, 0};
            require(!std::equal(std::begin(reserved), std::end(reserved), frame.begin()) || frame[5] > 15);
        }
        outside.sent.clear();
    }
    void take_frames(Driver& driver, u32 number) {
        while (auto const received = driver.next()) {
            require(number != 3);
            std::size_t const most = received->offload.gso_type != 0 ? 65'550 : 1518;
            require(received->bytes.size() >= 14 && received->bytes.size() <= most);
            Mac from;
            std::copy_n(received->bytes.begin() + 6, 6, from.begin());
            bool const is_from_outside = !HostileOutside::is_forbidden(received->bytes);
            require(is_from_outside || from == mac_of(0) || (number == 2 && from == mac_of(1)));
            require(!is_from_outside || received->offload.gso_type == 0);
            Offload const& offload = received->offload;
            if (offload.flags != 0)
                require(offload.checksum_start >= 34 &&
                        offload.checksum_start + offload.checksum_offset + 2U <= received->bytes.size());
        }
        while (driver.rx.available_index != driver.rx.used_index + 64)
            driver.add_buffers(1);
    }
    void settle() {
        for (u32 turns = 0; world.has_more || world.events != 0; turns++) {
            require(turns < 100);
            turn();
        }
    }
    void works_after_reset() {
        outside.start_again();
        bad().start();
        bad().add_buffers(8);
        settle();
        Bytes const frame = make_frame(mac_of(2), mac_of(0), 500, 9), answer = make_frame(mac_of(0), mac_of(1), 400, 8);
        u64 const before = world.statistics(2).received_frames;
        bad().send(frame);
        settle();
        require(world.statistics(2).received_frames == before + 1);
        good(1).send(answer);
        settle();
        auto const received = bad().next();
        require(received && received->bytes == answer);
    }
};

u64 address(Input& input) {
    u8 const what = input.take<u8>();
    u64 const low = input.take<u8>();
    switch (what % 8) {
    case 0: return input.take<u64>();
    case 1: return Guest::high_area + low * 16;
    case 2: return Guest::high_area + Guest::area_size - low; // the end of RAM
    case 3: return Guest::area_size - low;
    case 4: return frame_at + low * 4;
    default: return buffer_at + what / 8 * u64{512} + low % 16;
    }
}

u32 size(Input& input) {
    u8 const what = input.take<u8>();
    if (what >= 0xf0) return input.take<u32>();
    return (what & 0x80) != 0 ? (what & 0x7fU) * 16U : what & 0x3fU;
}

// Headers of TCP, where the input says nothing else, for a frame that asks to be cut.
Offload ask_to_be_cut(Bytes& frame, Input& input) {
    u8 const what = input.take<u8>();
    bool const is_ipv6 = (what & 1) != 0;
    u32 const ip = (what & 2) != 0 ? 18 : 14, tcp = ip + (is_ipv6 ? 40 : 20);
    u16 const type = is_ipv6 ? 0xdd86 : 0x0008;
    frame.resize(std::max<std::size_t>(frame.size(), tcp + 20));
    if (ip == 18) frame[12] = 0x81, frame[13] = 0;
    std::memcpy(frame.data() + ip - 2, &type, 2);
    frame[ip] = is_ipv6 ? 0x60 : 0x45;
    if (!is_ipv6) frame[ip + 9] = 6;
    frame[tcp + 12] = (what & 4) != 0 ? input.take<u8>() : 0x50;
    if ((what & 8) != 0) frame[input.take<u8>() % frame.size()] = input.take<u8>();
    return {1, static_cast<u8>(is_ipv6 ? 4 : 1), 0, input.take<u16>(), static_cast<u16>(tcp), 16};
}

// A frame that could be right except for what the input says of it.
void add_frame(Machine& machine, Input& input) {
    u8 const what = input.take<u8>();
    Mac const to = (what & 8) != 0 ? broadcast : mac_of(input.take<u8>() % 5);
    Mac from = mac_of(0);
    if ((what & 0x10) != 0) from[input.take<u8>() % 6] ^= input.take<u8>();
    u16 const length = input.take<u16>();
    bool const is_large = (what & 2) != 0;
    Bytes frame = make_frame(to, from, length % (is_large ? 12'000 : 1540), what, (what & 0x20) != 0 ? 0x8100 : 0x800);
    Offload offload{};
    if ((what & 1) != 0) offload = {1, 0, 0, 0, input.take<u8>(), input.take<u8>()};
    if (is_large) offload = ask_to_be_cut(frame, input);
    if ((what & 4) != 0) {
        offload.checksum_start = input.take<u16>();
        offload.gso_type = input.take<u8>();
    }
    u64 const begin = is_large ? large_at : frame_at;
    u32 left = machine.bad().put_frame(begin, frame, offload);
    std::vector<Buffer> chain;
    for (u64 at = begin; left != 0;) {
        u32 const part = chain.size() < 8 && (what & 0x40) != 0 ? std::min<u32>(left, input.take<u8>()) : left;
        chain.push_back({at, part, false});
        at += part;
        left -= part;
    }
    if ((what & 0x80) != 0)
        machine.bad().tx.add_indirect(table_at, chain);
    else
        machine.bad().tx.add(chain);
}

void add_buffer(Ring& ring, Input& input, bool is_writable) {
    u8 const what = input.take<u8>();
    std::vector<Buffer> chain;
    for (u32 i = 0; i <= what % 4U; i++)
        chain.push_back({address(input), size(input), is_writable != ((what & 0x70) == 0x70)});
    if ((what & 0x80) != 0)
        ring.add_indirect(table_at + 0x400, chain);
    else
        ring.add(chain);
}

// A frame from outside: any length and tag, the address of any NIC, of a group or of a station outside.
void come(Machine& machine, Input& input) {
    u8 const what = input.take<u8>();
    Mac const to = (what & 8) != 0 ? broadcast : mac_of(what & 7);
    Mac from = (what & 0x10) != 0 ? outside_station : mac_of(input.take<u8>() % 5);
    if ((what & 0x20) != 0) from[input.take<u8>() % 6] ^= input.take<u8>();
    u16 const length = input.take<u16>() % 2049;
    Bytes frame = make_frame(to, from, std::max<u16>(length, 1), what, (what & 0x40) != 0 ? 0x8100 : 0x800);
    if ((what & 0x80) != 0) frame[input.take<u8>() % frame.size()] = input.take<u8>();
    machine.outside.incoming.push_back(frame);
    machine.world.events |= service::event_controller(0);
    machine.turn();
}

void change_outside(Machine& machine, Input& input) {
    u8 const what = input.take<u8>();
    machine.outside.is_up = (what & 1) == 0;
    machine.outside.now_state = (what & 2) == 0 ? net::NetDevice::State::Ready : net::NetDevice::State::Failed;
    machine.outside.rooms_left = (what & 4) == 0 ? HostileOutside::usual_rooms : what >> 3;
}

void act(Machine& machine, Input& input) {
    u8 const what = input.take<u8>();
    bool const is_transmit = (what & 0x10) != 0;
    Ring& ring = is_transmit ? machine.bad().tx : machine.bad().rx;
    switch (what & 15) {
    case 0: return ring.start(input.take<u16>() & large_frames, (what & 0x20) != 0, (what & 0x40) != 0);
    case 1: { // a queue as no driver sets it up
        service::QueueEntry& entry = ring.entry();
        u64* const parts[] = {&entry.descriptors, &entry.available, &entry.used};
        *parts[input.take<u8>() % 3] = address(input);
        if ((what & 0x20) != 0) entry.size = input.take<u16>();
        if ((what & 0x40) != 0) entry.epoch += 1U << 31; // as start() never makes it
        return machine.world.change_board();
    }
    case 2: return ring.stop();
    case 3:
    case 4: return add_frame(machine, input);
    case 5: return add_buffer(ring, input, !is_transmit);
    case 6: return ring.make_available(input.take<u8>());
    case 7: return machine.guest.put<u16>(ring.available() + 2, input.take<u16>());
    case 8: return machine.guest.put<u16>(ring.used() + 2, input.take<u8>());
    case 9: return machine.guest.put<u64>(input.take<u16>() % 0xfff8, input.take<u64>());
    case 10: // one descriptor
        return ring.describe(ring.descriptors(input.take<u8>() % 16), {address(input), size(input), (what & 0x20) != 0},
                             input.take<u8>() & 7, input.take<u8>() % 18);
    case 11: // the service dies; its record may be ruined
        if ((what & 0x20) != 0) {
            service::QueueRecord& record = machine.world.records->queues[0][is_transmit ? transmit : receive];
            record.next = input.take<u16>();
            if ((what & 0x40) != 0) record.used_index = record.next;
        }
        machine.start_service();
        return machine.turn();
    case 12: // a frame for it
        if ((what & 0x20) != 0) return come(machine, input);
        if ((what & 0x40) != 0) return change_outside(machine, input);
        machine.good(1).send(make_frame(mac_of(0), mac_of(1), input.take<u16>() % 1501 + 14));
        return machine.turn();
    case 13: machine.world.now += input.take<u16>() * u64{16}; return;
    case 14:
        if ((what & 0x20) == 0) return machine.settle();
        machine.world.board->devices[0].stops++;
        machine.bad().rx.stop();
        machine.bad().tx.stop();
        return machine.turn();
    default: machine.world.ring(0); return machine.turn();
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    static Machine& machine = *new Machine;
    Input input({data, size});
    machine.reset();
    while (!input.is_empty())
        act(machine, input);
    machine.settle();
    machine.works_after_reset();
    return 0;
}
