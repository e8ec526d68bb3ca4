// SPDX-License-Identifier: MIT
// A hostile network controller: its registers, what it writes into descriptors, and its time are the input. It often
// answers well, so that its driver gets far. Each tag comes back exactly once, each call does a bounded amount of work,
// every start and every frame has an end, and no access leaves the registers or the memory.
#include "input.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <net/e1000.hpp>
#include <set>
#include <vector>

namespace {

using fuzz::Input;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using State = net::NetDevice::State;

void require(bool condition, int line = __builtin_LINE()) {
    if (condition) return;
    std::fprintf(stderr, "broken promise at line %d\n", line);
    std::abort();
}

constexpr u64 ticks = 1000, shared_begin = 0x5000'0000;
constexpr u32 most_accesses = 60, most_lines = 4; // of one call
constexpr u32 CTRL = 0, STATUS = 8, EECD = 0x10, EERD = 0x14, ICR = 0xc0, RAL0 = 0x5400, RAH0 = 0x5404;

class Device final : public lib::DeviceFunction {
public:
    explicit Device(Input& input) : input_(input), bytes_(std::make_unique<Page[]>(page_count)), registers_(size / 4) {
        u8 const kind = input_.take<u8>();
        id_ = (kind & 1) != 0 ? 0x100e'8086 : 0x10d3'8086;
        registers_[STATUS / 4] = 0x82;
        registers_[EECD / 4] = 0x200;
        if ((kind & 2) == 0) return;
        registers_[RAL0 / 4] = 0x1200'5452;
        registers_[RAH0 / 4] = 0x8000'5634;
    }

    u32 read(u32 bar, u32 offset, u32 width) override {
        check_access(bar, offset, width);
        if (is_gone) return ~0U;
        u8 const kind = input_.take<u8>(); // 0 at the input's end
        if (kind >= 0xf8) return kind == 0xff ? ~0U : input_.take<u32>();
        if (offset == STATUS && kind >= 0xe0) registers_[STATUS / 4] ^= 2;
        if (offset == CTRL && kind < 0xf0) return registers_[0] & ~(1U << 26);
        if (offset == EERD && kind < 0xf0) return registers_[EERD / 4] | 0x12 | u32{kind} << 17;
        if (offset == ICR) return input_.take<u16>();
        return registers_[offset / 4];
    }
    void write(u32 bar, u32 offset, u32 width, u32 value) override {
        check_access(bar, offset, width);
        if (offset != STATUS) registers_[offset / 4] = value;
    }
    u64 bar_size(u32 bar) const override { return bar == 0 ? size : 0; }
    u32 configuration(u32) override { return id_; }
    void set_bus_master(bool on) override { is_bus_master = on; }
    void log(std::string_view line) override {
        require(line.size() <= 120);
        lines++;
    }
    Shared shared() override { return {{bytes_[0].bytes, net::E1000::memory_needed}, shared_begin}; }
    u64 ticks_per_millisecond() const override { return ticks; }

    // Puts a frame, or whatever the input says, into a descriptor of the ring to receive.
    void receive(u32 index) {
        u8 const kind = input_.take<u8>();
        u16 const length = kind < 0x80 ? static_cast<u16>(60 + kind) : input_.take<u16>();
        u16 const status = kind % 8 != 7 ? u16{3} : input_.take<u16>();
        put(net::E1000::receive_ring_at + index % net::E1000::receive_count * 16 + 8, length);
        put(net::E1000::receive_ring_at + index % net::E1000::receive_count * 16 + 12, status);
    }
    void report_sent(u32 index) {
        put(net::E1000::transmit_ring_at + index % net::E1000::transmit_count * 16 + 12, u8{1});
    }
    void scribble() { put(input_.take<u32>() % (net::E1000::receive_buffers_at - 8), input_.take<u64>()); }

    bool is_gone = false, is_bus_master = false;
    u32 accesses = 0, lines = 0;

private:
    static constexpr u32 size = 128 * lib::KiB, page_count = net::E1000::memory_needed / lib::page_size;
    struct Page {
        alignas(lib::page_size) u8 bytes[lib::page_size];
    };
    static_assert(page_count * lib::page_size == net::E1000::memory_needed);

    void check_access(u32 bar, u32 offset, u32 width) {
        require(bar == 0 && width == 4 && offset % 4 == 0 && offset < size);
        accesses++;
    }
    template <typename T> void put(u32 at, T value) { std::memcpy(bytes_[0].bytes + at, &value, sizeof(T)); }

    Input& input_;
    std::unique_ptr<Page[]> bytes_;
    std::vector<u32> registers_;
    u32 id_ = 0;
};

struct World {
    Input& input;
    Device device{input};
    net::E1000 driver;
    std::set<u32> live;
    u64 now = 0;
    u32 tag = 0, next_sent = 0, next_received = 0;

    explicit World(Input& from) : input(from), driver(device, (from.take<u8>() & 1) != 0) {}

    void poll(u32 room, bool is_interrupted) {
        std::vector<u32> sent(room); // ASan sees its end
        device.accesses = device.lines = 0;
        u32 const count = driver.poll(now, is_interrupted, sent);
        require(count <= room && device.accesses <= most_accesses && device.lines <= most_lines);
        for (u32 i = 0; i < count; i++)
            require(live.erase(sent[i]) == 1);
        check();
    }
    void check() const {
        State const state = driver.state();
        require(state == State::Failed || driver.deadline() <= now + u64{1000} * ticks);
        require(live.empty() || driver.deadline() != net::NetDevice::never);
        require(state != State::Ready || device.is_bus_master);
        require(state != State::Failed || (!device.is_bus_master && !driver.failure().empty() && !driver.has_link()));
        require(state != State::Ready || (driver.address()[0] & 1) == 0);
    }
    void send(u8 shape) {
        if (shape % 4 == 0) {
            auto const room = driver.frame_room();
            require(room.empty() || (room.size() == driver.limits().largest && driver.has_link()));
            u32 const size = input.take<u16>() % 1600;
            if (!room.empty()) std::memset(room.data(), shape, std::min<std::size_t>(size, room.size()));
            return driver.transmit_room(size, now);
        }
        std::vector<net::Piece> pieces(shape % 40);
        for (net::Piece& piece : pieces)
            piece = {input.take<u64>(), input.take<u8>() * 5U};
        bool const is_taken = driver.transmit(pieces, tag, now);
        require(!is_taken || (driver.has_link() && live.size() < net::E1000::transmit_count));
        if (is_taken) live.insert(tag++);
    }
    void take_frames() {
        u32 count = 0;
        for (auto frame = driver.next_frame(); !frame.empty(); frame = driver.next_frame()) {
            require(++count < net::E1000::receive_count && frame.size() >= 14 &&
                    frame.size() <= net::E1000::buffer_size);
            u8 const volatile last = frame.back(); // ASan sees what is beyond
            (void)last;
        }
        driver.ring();
    }
    void act() {
        u8 const what = input.take<u8>();
        switch (what & 15) {
        case 0:
        case 1:
        case 2: now = std::max(now, driver.deadline() == net::NetDevice::never ? 0 : driver.deadline()); break;
        case 3:
        case 4: return send(input.take<u8>());
        case 5: return driver.ring();
        case 6:
        case 7: return device.report_sent(next_sent++);
        case 8:
        case 9: return device.receive(next_received++);
        case 10: return take_frames();
        case 11: return device.scribble();
        case 12: return device.report_sent(input.take<u8>());
        case 13: now += input.take<u16>() * u64{16}; break;
        case 14: return poll(what >> 4, true);
        default: return device.receive(input.take<u8>());
        }
        poll(64, (what & 16) != 0);
    }
    // Whatever the device does from here on, what is under way ends.
    void finish(bool is_gone) {
        device.is_gone = is_gone;
        for (u32 polls = 0; !live.empty() || driver.state() == State::Starting; polls++) {
            require(polls < 20'000);
            now = std::max(now + ticks, driver.deadline());
            poll(64, false);
        }
        now += 1'100 * ticks;
        poll(64, true);
        require(!is_gone || driver.state() == State::Failed || driver.state() == State::Starting);
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    Input input({data, size});
    World world(input);
    while (!input.is_empty())
        world.act();
    world.finish((size & 1) != 0);
    return 0;
}
