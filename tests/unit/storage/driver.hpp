// SPDX-License-Identifier: MIT
#pragma once
// What the storage service meets in tests: VMs with a virtio-blk driver each, their disks, and a Mullion that counts.
#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <sanitizer/asan_interface.h>
#include <storage/storage.hpp>
#include <string>
#include <vector>

namespace storage_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
namespace service = lib::service;

inline constexpr u32 IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13;
inline constexpr u8 OK = 0, IOERR = 1, UNSUPP = 2, untouched = 0xaa;
inline constexpr u16 NEXT = 1, WRITE = 2, INDIRECT = 4; // of a descriptor
inline constexpr u64 sector = storage::sector_size;

// Memory of one VM in two areas with nothing between them, and its disk. ASan sees each byte beyond them.
struct Guest {
    static constexpr u64 high_area = 0x10'0000;
    u64 const area_size; // of both
    std::vector<u64> ram = std::vector<u64>((high_area + area_size) / 8);
    std::vector<u8> medium;

    Guest(u64 medium_size, u64 area) : area_size(area), medium(medium_size) {
        __asan_poison_memory_region(hole(), high_area - area_size);
    }
    ~Guest() { __asan_unpoison_memory_region(hole(), high_area - area_size); }
    Guest(Guest const&) = delete;
    Guest& operator=(Guest const&) = delete;

    u8* bytes() { return reinterpret_cast<u8*>(ram.data()); }
    u8* hole() { return bytes() + area_size; }
    template <typename T> T get(u64 at) {
        T value;
        std::memcpy(&value, bytes() + at, sizeof(T));
        return value;
    }
    template <typename T> void put(u64 at, T value) { std::memcpy(bytes() + at, &value, sizeof(T)); }
    void fill(u64 at, u8 value, u64 size) { std::memset(bytes() + at, value, size); }
    bool is_filled(u64 at, u8 value, u64 size) {
        return std::all_of(bytes() + at, bytes() + at + size, [value](u8 byte) { return byte == value; });
    }
    bool medium_is(u64 first, u8 value, u64 count = 1) {
        auto const begin = medium.begin() + static_cast<std::ptrdiff_t>(first * sector);
        return std::all_of(begin, begin + static_cast<std::ptrdiff_t>(count * sector),
                           [value](u8 byte) { return byte == value; });
    }
};

// Mullion: VMs with one disk each, the board, the records, and the instance of the service that runs now.
class World final : public storage::Host {
public:
    std::vector<std::unique_ptr<Guest>> guests;
    std::unique_ptr<service::Board> board = std::make_unique<service::Board>();
    std::unique_ptr<service::Records> records = std::make_unique<service::Records>();
    std::unique_ptr<service::Statistics> statistics = std::make_unique<service::Statistics>();
    std::function<void(storage::Controllers&)> connect; // for each instance; empty: there are no controllers
    // Both in the same place each time: new places would cost most of the time of tests that start many.
    std::optional<storage::Controllers> controllers;
    std::optional<storage::Storage> instance;
    u32 interrupts[service::max_devices][service::max_device_queues] = {};
    u32 misuses[service::max_devices] = {};
    std::vector<u32> answers[service::max_devices]; // about stops
    u32 lines = 0;
    u64 events = 0, now = 0;
    bool has_more = false;

    Guest& add_disk(u64 sectors, bool is_read_only = false, u32 queues = 1, u64 area = 0x1'0000) {
        service::DeviceEntry& entry = board->devices[guests.size()];
        Guest& guest = *guests.emplace_back(std::make_unique<Guest>(sectors * sector, area));
        entry = {};
        entry.kind = service::DeviceKind::Block;
        entry.queue_count = queues;
        entry.ram_area_count = 2;
        entry.is_read_only = is_read_only ? 1 : 0;
        entry.medium_size = guest.medium.size();
        entry.ram[0] = {0, area};
        entry.ram[1] = {Guest::high_area, area};
        std::strncpy(entry.serial, "mullion-disk", sizeof(entry.serial));
        return guest;
    }
    // Starts the next instance; what the last one had in its own memory is gone.
    void start() {
        instance.reset();
        controllers.reset();
        if (connect) {
            connect(controllers.emplace());
        }
        instance.emplace(*this, *board, *records, *statistics, controllers ? &*controllers : nullptr);
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
        } while ((has_more || events != 0 || instance->deadline() <= now) && turns < 10'000);
        return turns;
    }

    void interrupt(u32 device, u32 queue) override { interrupts[device][queue]++; }
    void misuse(u32 device) override { misuses[device]++; }
    void stopped(u32 device, u32 stops) override { answers[device].push_back(stops); }
    void log(std::string_view) override { lines++; }
    static constexpr u64 hz = 1'000'000'000;
    u64 ticks() override { return now; }
    u64 ticks_per_second() const override { return hz; }
    u8* ram_window(u32 device) override { return guests[device]->bytes(); }
    u8* medium_window(u32 device) override { return guests[device]->medium.data(); }
};

struct Buffer {
    u64 at;
    u32 size;
    bool is_writable;
};

// The driver of one queue: it plays by the rules unless a test breaks them.
class Driver {
public:
    struct Used {
        u32 id, written;
    };
    u16 available_index = 0, used_index = 0;

    Driver(World& world, u32 device, u32 queue = 0, u16 size = 16)
        : world_(world), guest_(*world.guests[device]), device_(device), queue_(queue), size_(size),
          base_(queue * 0x1000) {}

    service::QueueEntry& entry() { return world_.board->devices[device_].queues[queue_]; }
    void start(bool has_event_index = false, bool has_indirect = false) {
        static u32 epoch = 0;
        entry() = {descriptors(0), available(), used(), size_, has_event_index, has_indirect, ++epoch, 0, 0};
        guest_.fill(base_, 0, 0x1000);
        available_index = used_index = next_ = 0;
        world_.change_board();
    }
    void stop() {
        entry() = {};
        world_.change_board();
    }
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
    void ring() { world_.ring(device_); }
    bool has_used() { return device_index() != used_index; }
    Used next_used() {
        u64 const at = used() + 4 + used_index++ % size_ * u64{8};
        return {guest_.get<u32>(at), guest_.get<u32>(at + 4)};
    }
    // Puts a header at `at`.
    void put_header(u64 at, u32 type, u64 first) {
        guest_.put<u32>(at, type);
        guest_.put<u32>(at + 4, 0);
        guest_.put<u64>(at + 8, first);
    }

private:
    World& world_;
    Guest& guest_;
    u32 device_, queue_;
    u16 size_, next_ = 0;
    u64 base_;
};

} // namespace storage_test
