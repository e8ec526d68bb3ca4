// SPDX-License-Identifier: MIT
#pragma once
// What the network service meets in tests: VMs with a virtio-net driver each, and a Mullion that counts.
#include <algorithm>
#include <array>
#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <network/network.hpp>
#include <optional>
#include <sanitizer/asan_interface.h>
#include <string>
#include <utility>
#include <vector>

namespace network_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using network::Drop;
namespace service = lib::service;
namespace feature = lib::service::net_feature;

inline constexpr u16 NEXT = 1, WRITE = 2, INDIRECT = 4; // of a descriptor
inline constexpr u32 header_size = 12, receive = 0, transmit = 1;
using Bytes = std::vector<u8>;

// Memory of one VM in two areas with nothing between them. ASan sees each byte beyond them.
struct Guest {
    static constexpr u64 area_size = 0x8'0000, high_area = 0x10'0000;
    std::vector<u64> ram = std::vector<u64>((high_area + area_size) / 8);

    Guest() { __asan_poison_memory_region(bytes() + area_size, high_area - area_size); }
    ~Guest() { __asan_unpoison_memory_region(bytes() + area_size, high_area - area_size); }
    Guest(Guest const&) = delete;
    Guest& operator=(Guest const&) = delete;

    u8* bytes() { return reinterpret_cast<u8*>(ram.data()); }
    template <typename T> T get(u64 at) {
        T value;
        std::memcpy(&value, bytes() + at, sizeof(T));
        return value;
    }
    template <typename T> void put(u64 at, T value) { std::memcpy(bytes() + at, &value, sizeof(T)); }
    void put_bytes(u64 at, Bytes const& what) { std::ranges::copy(what, bytes() + at); }
    Bytes get_bytes(u64 at, u64 size) { return {bytes() + at, bytes() + at + size}; }
    void fill(u64 at, u8 value, u64 size) { std::memset(bytes() + at, value, size); }
};

using Mac = std::array<u8, 6>;
inline constexpr Mac broadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
inline Mac mac_of(u32 device) { return {0x52, 0x54, 0, 0, 0, static_cast<u8>(device + 1)}; }

// Mullion: VMs with one NIC each, the board, the records, and the instance of the service that runs now.
class World final : public network::Host {
public:
    static constexpr u64 second = 1000; // ticks
    std::vector<std::unique_ptr<Guest>> guests;
    std::unique_ptr<service::Board> board = std::make_unique<service::Board>();
    std::unique_ptr<service::Records> records = std::make_unique<service::Records>();
    std::unique_ptr<service::PortTable> counts = std::make_unique<service::PortTable>();
    std::unique_ptr<service::Routing> routing = std::make_unique<service::Routing>();
    std::optional<network::Network> instance;
    u32 interrupts[service::max_devices][service::max_device_queues] = {};
    u32 misuses[service::max_devices] = {};
    std::vector<u32> answers[service::max_devices]; // about stops
    u32 lines = 0;
    u64 events = 0, now = 1'000'000;
    bool has_more = false;

    Guest& add_nic(u32 network = 0) {
        u32 const device = static_cast<u32>(guests.size());
        service::DeviceEntry& entry = board->devices[device];
        entry = {};
        entry.kind = service::DeviceKind::Net;
        entry.queue_count = 2;
        entry.ram_area_count = 2;
        entry.ram[0] = {0, Guest::area_size};
        entry.ram[1] = {Guest::high_area, Guest::area_size};
        entry.network = network;
        std::ranges::copy(mac_of(device), entry.mac);
        return *guests.emplace_back(std::make_unique<Guest>());
    }
    // Starts the next instance; what the last one had in its own memory is gone.
    void start() {
        instance.reset();
        instance.emplace(*this, *board, *records, *counts, *routing, second);
        events = service::event_board;
        has_more = false;
    }
    void turn() { has_more = instance->turn(std::exchange(events, 0), now); }
    void change_board() { events |= service::event_board; }
    void ring(u32 device) { events |= service::event_doorbell(device); }
    // Returns the number of turns until the service sleeps.
    u32 run() {
        u32 turns = 0;
        do {
            turn();
            turns++;
        } while ((has_more || events != 0) && turns < 10'000);
        EXPECT_LT(turns, 10'000U);
        return turns;
    }
    network::Statistics const& statistics(u32 device) { return instance->nic(device).statistics(); }
    u64 dropped(u32 device, Drop reason) { return statistics(device)[reason]; }

    void interrupt(u32 device, u32 queue) override { interrupts[device][queue]++; }
    void misuse(u32 device) override { misuses[device]++; }
    void stopped(u32 device, u32 stops) override { answers[device].push_back(stops); }
    void log(std::string_view) override { lines++; }
    u8* ram_window(u32 device) override { return guests[device]->bytes(); }
};

struct Buffer {
    u64 at;
    u32 size;
    bool is_writable;
};

// The driver's side of one queue: it plays by the rules unless a test breaks them.
class Ring {
public:
    struct Used {
        u32 id, written;
    };
    u16 available_index = 0, used_index = 0;

    Ring(World& world, u32 device, u32 queue, u16 size)
        : world_(world), guest_(*world.guests[device]), device_(device), queue_(queue), size_(size),
          base_(queue * 0x1000) {}

    service::QueueEntry& entry() { return world_.board->devices[device_].queues[queue_]; }
    void start(u32 features, bool has_event_index = false, bool has_indirect = false) {
        static u32 epoch = 0;
        entry() = {base_, available(), used(), size_, has_event_index, has_indirect, ++epoch, features, 0};
        guest_.fill(base_, 0, 0x1000);
        available_index = used_index = next_ = 0;
        world_.change_board();
    }
    void stop() {
        entry() = {};
        world_.change_board();
    }
    u16 size() const { return size_; }
    u64 descriptors(u64 index) const { return base_ + index * 16; }
    u64 available() const { return base_ + 0x400; }
    u64 used() const { return base_ + 0x800; }
    u64 avail_event() const { return used() + 4 + size_ * u64{8}; }
    u64 used_event() const { return available() + 4 + size_ * u64{2}; }
    u16 device_index() { return guest_.get<u16>(used() + 2); }

    void describe(u64 at, Buffer const& buffer, u16 flags, u16 next) {
        guest_.put<u64>(at, buffer.at);
        guest_.put<u32>(at + 8, buffer.size);
        guest_.put<u16>(at + 12, static_cast<u16>(flags | (buffer.is_writable ? WRITE : 0)));
        guest_.put<u16>(at + 14, next);
    }
    u16 add(std::vector<Buffer> const& buffers) {
        u16 const head = next_;
        for (std::size_t i = 0; i < buffers.size(); i++) {
            u16 const at = next_;
            next_ = static_cast<u16>((next_ + 1) % size_);
            describe(descriptors(at), buffers[i], i + 1 == buffers.size() ? 0 : NEXT, next_);
        }
        make_available(head);
        return head;
    }
    // The same by one descriptor that leads to a table at `table`.
    u16 add_indirect(u64 table, std::vector<Buffer> const& buffers) {
        u16 const head = next_;
        next_ = static_cast<u16>((next_ + 1) % size_);
        for (std::size_t i = 0; i < buffers.size(); i++)
            describe(table + i * 16, buffers[i], i + 1 == buffers.size() ? 0 : NEXT, static_cast<u16>(i + 1));
        describe(descriptors(head), {table, static_cast<u32>(buffers.size() * 16), false}, INDIRECT, 0);
        make_available(head);
        return head;
    }
    void make_available(u16 head) {
        guest_.put<u16>(available() + 4 + available_index % size_ * u64{2}, head);
        guest_.put<u16>(available() + 2, ++available_index);
    }
    bool has_used() { return device_index() != used_index; }
    Used next_used() {
        u64 const at = used() + 4 + used_index++ % size_ * u64{8};
        return {guest_.get<u32>(at), guest_.get<u32>(at + 4)};
    }

private:
    World& world_;
    Guest& guest_;
    u32 device_, queue_;
    u16 size_, next_ = 0;
    u64 base_;
};

inline constexpr u32 all_offloads = feature::CSUM | feature::GUEST_CSUM | feature::MRG_RXBUF;
inline constexpr u32 large_frames =
    feature::HOST_TSO4 | feature::HOST_TSO6 | feature::GUEST_TSO4 | feature::GUEST_TSO6 | all_offloads;

// What a sender says of a frame in its virtio header.
struct Offload {
    u8 flags = 0, gso_type = 0;
    u16 header_length = 0, gso_size = 0, checksum_start = 0, checksum_offset = 0;
};

// A frame as its receiver's driver finds it.
struct Received {
    Offload offload;
    u16 buffers; // that it fills
    Bytes bytes;
};

// A driver of one NIC with buffers of one size. Buffer N of a queue of 64 is at its own place.
class Driver {
public:
    static constexpr u64 receive_at = 0x1'0000, transmit_at = Guest::high_area, place = 0x800;
    static constexpr u32 usual_buffer = 1600;
    u32 const device;
    Guest& guest;
    Ring rx, tx;
    u32 features = 0, buffer_size = usual_buffer;

    Driver(World& world, u32 number, u16 size = 64)
        : device(number), guest(*world.guests[number]), rx(world, number, receive, size),
          tx(world, number, transmit, size), world_(world) {}

    void start(u32 accepted = all_offloads, bool has_event_index = false, u32 size_of_buffers = usual_buffer) {
        features = accepted;
        buffer_size = size_of_buffers;
        rx.start(accepted, has_event_index, true);
        tx.start(accepted, has_event_index, true);
    }
    void add_buffers(u32 count) {
        while (count-- != 0)
            rx.add({{receive_at + rx.available_index % rx.size() * place, buffer_size, true}});
    }
    // Puts a frame, with its virtio header before it, into the next place for frames, in one piece.
    void send(Bytes const& frame, Offload const& offload = {}) {
        u64 const at = transmit_at + tx.available_index % tx.size() * place;
        tx.add({{at, put_frame(at, frame, offload), false}});
        world_.ring(device);
    }
    u32 put_frame(u64 at, Bytes const& frame, Offload const& offload) {
        guest.put(at, offload);
        guest.put<u16>(at + 10, 0);
        guest.put_bytes(at + header_size, frame);
        return header_size + static_cast<u32>(frame.size());
    }
    // The next frame that has come, read as the standard says. The buffers are single descriptors of add_buffers().
    std::optional<Received> next() {
        if (!rx.has_used()) return std::nullopt;
        Bytes all;
        u16 count = 1;
        for (u16 i = 0; i < count; i++) {
            EXPECT_TRUE(rx.has_used()) << "buffers of a frame come together";
            if (!rx.has_used()) return std::nullopt;
            u64 const at = receive_at + rx.used_index % rx.size() * place;
            auto const used = rx.next_used();
            EXPECT_LE(used.written, buffer_size);
            Bytes const part = guest.get_bytes(at, used.written);
            all.insert(all.end(), part.begin(), part.end());
            if (i != 0) continue;
            EXPECT_GE(all.size(), header_size);
            std::memcpy(&count, all.data() + 10, 2);
            EXPECT_GE(count, 1);
            EXPECT_TRUE(count == 1 || (features & feature::MRG_RXBUF) != 0);
        }
        Received received{{}, count, {all.begin() + header_size, all.end()}};
        std::memcpy(&received.offload, all.data(), sizeof(Offload));
        EXPECT_EQ(received.offload.flags & ~1, 0);
        EXPECT_TRUE(received.offload.flags == 0 || (features & feature::GUEST_CSUM) != 0);
        u8 const gso_type = received.offload.gso_type;
        EXPECT_TRUE(gso_type == 0 || (gso_type == 1 && (features & feature::GUEST_TSO4) != 0) ||
                    (gso_type == 4 && (features & feature::GUEST_TSO6) != 0));
        EXPECT_TRUE(gso_type == 0 || received.offload.flags == 1);
        return received;
    }
    u32 count_received() {
        u32 count = 0;
        while (next())
            count++;
        return count;
    }

private:
    World& world_;
};

// An Ethernet frame with a payload that tells it from others.
inline Bytes make_frame(Mac const& to, Mac const& from, std::size_t size = 60, u8 mark = 0, u16 type = 0x0800) {
    Bytes frame(size);
    for (std::size_t i = 14; i < size; i++)
        frame[i] = static_cast<u8>(mark + i * 7);
    std::copy_n(to.begin(), std::min<std::size_t>(size, 6), frame.begin());
    if (size >= 12) std::ranges::copy(from, frame.begin() + 6);
    if (size >= 14) frame[12] = static_cast<u8>(type >> 8), frame[13] = static_cast<u8>(type);
    return frame;
}

// A world with a number of NICs of network 0, whose drivers have started and offer buffers.
struct NetworkTest : testing::Test {
    World world;
    std::vector<std::unique_ptr<Driver>> drivers;

    Driver& add(u32 network = 0, u32 features = all_offloads, u32 buffers = 32, u32 buffer_size = Driver::usual_buffer,
                bool has_event_index = false) {
        world.add_nic(network);
        Driver& driver = *drivers.emplace_back(std::make_unique<Driver>(world, static_cast<u32>(drivers.size())));
        driver.start(features, has_event_index, buffer_size);
        driver.add_buffers(buffers);
        return driver;
    }
    void start() {
        world.start();
        world.run();
    }
    // Lets the switch learn where the NICs are, and forgets the frames.
    void learn_all() {
        for (auto const& driver : drivers)
            driver->send(make_frame(mac_of(driver->device), mac_of(driver->device)));
        world.run();
    }
    void expect_received(Driver& driver, Bytes const& frame) {
        auto const received = driver.next();
        ASSERT_TRUE(received);
        EXPECT_EQ(received->bytes, frame);
    }
};

} // namespace network_test
