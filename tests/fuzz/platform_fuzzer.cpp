// SPDX-License-Identifier: MIT
// Streams of accesses, steps of time and events to a whole platform. It must neither crash nor hang, do bounded work
// per request, and keep its promises to the host: no unknown line, no timer storm, at most the bytes that were offered.
#include "input.hpp"
#include "require.hpp"

#include <fakes/fake_host.hpp>
#include <map>
#include <memory>
#include <platform/platform.hpp>
#include <vector>

namespace {

using fuzz::Input;
using fuzz::require;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::Space;

constexpr u16 interesting_ports[] = {0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40,  0x41,  0x42,  0x43,  0x61,
                                     0x60,  0x64,  0x70,  0x71,  0x72,  0x73,  0x80,  0x92,  0xed,  0x3f8, 0x3f9,
                                     0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x600, 0x602, 0x604, 0x608, 0xcf8,
                                     0xcf9, 0xcfc, 0xcfe, 0x5f,  0x6f,  0x3f7, 0x5ff, 0x607, 0xffff};

struct World {
    // The expiries of one timer. Their deadlines are at least a floor apart; a host that was late makes it one more.
    struct Rate {
        u64 since = 0, count = 0;
    };
    std::map<std::pair<u16, u32>, Rate> rates;
    fakes::FakeHost host;
    std::unique_ptr<platform::Platform> platform = std::make_unique<platform::Platform>(
        host, host.memory,
        platform::MachineFacts{1'700'000'000,
                               4,
                               lib::GiB,
                               lib::GiB,
                               40,
                               true,
                               {{{4096, 4, true, false}, {8, 1, true, true}, {}, {64, 2, true, false}}},
                               {{{{2, 0, 0, 0, 0, 1}, true}, {}}}});

    World() {
        host.console_device = platform::Devices::number_of<platform::SerialPort>();
        host.console_room = 64;
        host.deliver_to([this](platform::Event const& event) { platform->on(event); });
    }
    void access(Input& input, Space space, u64 address) {
        u8 const shape = input.take<u8>();
        u8 const size = static_cast<u8>(1U << (shape & (space == Space::Mmio ? 3 : 1)) << (shape & 4 ? 1 : 0));
        u8 const width = std::min<u8>(size, space == Space::Mmio ? 8 : 4);
        u64 data = (shape & 0x80) != 0 ? input.take<u32>() : input.take<u8>();
        if (width < 8) data &= (u64{1} << (width * 8)) - 1;
        platform->io(space, address, width, (shape & 0x40) != 0 ? Op::Read : Op::Write, data);
    }
    // Configuration space of the functions of bus 0, mostly those that are there, and the windows of BARs.
    void touch_pci(Input& input, u8 where) {
        u32 const slot = (where & 1) != 0 ? 31 : (where & 2) != 0 ? 3 : (where & 4) != 0 ? where >> 3 : 0;
        u32 const at = input.take<u8>();
        if ((where & 0x20) != 0) {
            u32 const address = 0x8000'0000 | slot << 11 | (at & 0xfc);
            platform->io(Space::Pio, 0xcf8, 4, Op::Write, address);
            return access(input, Space::Pio, 0xcfc + (at & 3));
        }
        u64 const function = 0xe000'0000 + (u64{slot} << 15);
        if ((where & 0x18) != 0) return access(input, Space::Mmio, function + at * 2);
        access(input, Space::Mmio, (at & 1) != 0 ? 0xc000'0000 + at * 8 : 0x1'4000'0000 + at * 8);
    }
    // Time passes, but a machine that only counts fires no more timers than its fastest one allows.
    void step(u64 nanoseconds) {
        for (unsigned fired = 0; fired < 64; fired++) {
            auto const next =
                std::ranges::min_element(host.timers, {}, [](auto const& timer) { return timer.second.deadline; });
            if (next == host.timers.end() || next->second.deadline > host.clock + nanoseconds) break;
            u64 const due = std::max(next->second.deadline, host.clock);
            nanoseconds -= due - host.clock;
            u64 const before = host.clock;
            host.clock = due;
            platform::Event const event{next->second.generation, next->first.second, next->first.first,
                                        platform::EventKind::Timer, 0};
            Rate& rate = rates.try_emplace(next->first, Rate{host.clock, 0}).first->second;
            rate.count++;
            require(rate.count <= (host.clock - rate.since) / platform::Timer::floor.value + 2);
            host.timers.erase(next);
            std::size_t const armed = host.timers_armed;
            platform->on(event);
            require(host.timers_armed - armed <= 3); // the HPET's three may be due together
            require(host.clock >= before);
        }
        host.clock += nanoseconds;
    }
    void round_trip() {
        std::vector<u8> saved(platform->saved_size()), again(saved.size());
        require(platform->save(saved).has_value());
        require(platform->restore(saved).has_value());
        require(platform->save(again).has_value());
        require(saved == again);
    }
};

void act(World& world, Input& input) {
    u8 const what = input.take<u8>();
    switch (what % 16) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
    case 5: return world.access(input, Space::Pio, interesting_ports[input.take<u8>() % std::size(interesting_ports)]);
    case 6: return world.access(input, Space::Pio, input.take<u16>());
    case 7: {
        u8 const where = input.take<u8>();
        if (where < 0x40) return world.access(input, Space::Mmio, 0xfec0'0000 + where / 4 * 16);
        return world.touch_pci(input, where);
    }
    case 8: {
        u16 const where = input.take<u16>();
        return world.access(input, Space::Mmio,
                            (where & 0x8000) != 0 ? 0xfecf'fff0 + where % 0x440 : 0xfebf'fff0 + where);
    }
    case 9: return world.step(u64{input.take<u16>()} * 1000);
    case 10: return world.step(u64{input.take<u32>()} << (input.take<u8>() % 12));
    case 11: {
        u8 const pins = input.take<u8>();
        return world.platform->set_irq_line(pins & 31, (pins & 0x80) != 0);
    }
    case 12: {
        u8 const vector = world.platform->acknowledge_interrupt();
        world.platform->end_of_interrupt(input.take<u8>());
        static_cast<void>(world.platform->eoi_wanted(vector));
        return;
    }
    case 13: {
        u8 const bytes = input.take<u8>();
        if ((bytes & 1) != 0)
            world.host.type(std::string(bytes, 'x'));
        else
            world.host.make_room(bytes);
        return;
    }
    case 14: {
        platform::Event event{};
        event.generation = input.take<u8>();
        event.device = input.take<u8>() % 16;
        event.id = input.take<u8>() % 4;
        event.kind = static_cast<platform::EventKind>(input.take<u8>() % 3);
        return world.platform->on(event);
    }
    default:
        if ((what & 0xf0) == 0) { // the one that serves disks and NICs
            u8 const where = input.take<u8>();
            u32 const device = where & 7, queue = where >> 4;
            world.platform->served_interrupt(device, queue);
            if ((where & 8) != 0) world.platform->served_misused(device);
            if (queue > 8) world.platform->served_stopped(device);
            return;
        }
        if ((what & 0x10) != 0) return world.round_trip();
        if ((what & 0x20) != 0) return world.platform->power_button();
        if ((what & 0xc0) == 0xc0) world.platform->reset();
        return;
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    World world;
    Input input({data, size});
    while (!input.is_empty()) {
        std::size_t const lines = world.host.line_changes.size(), messages = world.host.messages.size(),
                          armed = world.host.timers_armed, intr = world.host.intr_changes;
        act(world, input);
        require(world.host.line_changes.size() == lines); // the platform keeps its lines to itself
        // Each access is at most eight pieces, each step at most 64 events, and none of them sends more than all
        // inputs.
        require(world.host.messages.size() - messages <= 64 * 24);
        require(world.host.timers_armed - armed <= 64 * 3);
        require(world.host.intr_changes - intr <= 64 * 8);
    }
    return 0;
}
