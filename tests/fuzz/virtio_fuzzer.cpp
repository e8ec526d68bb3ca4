// SPDX-License-Identifier: MIT
// A hostile driver of a virtio device: any register, any bytes in the rings, while the device reads them. It must
// touch nothing but RAM, do bounded work for each access and in each period, and work after a reset.
#include "input.hpp"
#include "require.hpp"

#include <cstring>
#include <fakes/fake_host.hpp>
#include <memory>
#include <platform/virtio_rng.hpp>
#include <vector>

namespace {

using fuzz::Input;
using fuzz::require;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using platform::Op;
using platform::VirtioRng;

constexpr u64 ram_size = 0x1000, descriptors_at = 0x100, available_at = 0x200, used_at = 0x300, buffers_at = 0x800;
constexpr u32 status_at = 20, queue_size_at = 24, queue_enable_at = 28, queue_addresses_at = 32;
constexpr u16 registers = 0, msix = 2, doorbells = 4; // BARs
constexpr u8 NEEDS_RESET = 64;

struct World {
    fakes::FakeHost host;
    std::vector<u64> ram = std::vector<u64>(ram_size / 8); // ASan sees each byte beyond it
    lib::RamPiece piece{{0}, ram_size, reinterpret_cast<u8*>(ram.data())};
    std::unique_ptr<VirtioRng> device;

    World() {
        host.memory = lib::GuestMemory({&piece, 1});
        device = std::make_unique<VirtioRng>(host.plug());
        device->function().write(1, 6, ~0U);
        host.deliver_to([this](platform::Event const& event) { device->on(event); });
    }
    u64 io(Op op, u16 bar, u64 offset, u8 size, u64 value) {
        return device->io({offset, value, bar, size, op, 0}).data;
    }
    void out(u64 offset, u64 value, u8 size) { io(Op::Write, registers, offset, size, value); }
    u8 status() { return static_cast<u8>(io(Op::Read, registers, status_at, 1, 0)); }
    template <typename T> void put(u64 at, T value) { (void)host.memory.write<T>({at % (ram_size - 8)}, value); }

    void start(u32 features) {
        out(status_at, 0, 1);
        require(status() == 0);
        out(status_at, 3, 1);
        for (u32 half = 0; half < 2; half++) {
            out(8, half, 4);
            out(12, half == 0 ? features & 3U << 28 : 1, 4);
        }
        out(status_at, 11, 1);
        out(queue_size_at, 8, 2);
        u64 const parts[] = {descriptors_at, available_at, used_at};
        for (u32 i = 0; i < 3; i++)
            out(queue_addresses_at + i * 8, parts[i], 8);
        out(queue_enable_at, 1, 2);
        out(status_at, 15, 1);
    }
    // Whatever came before, a driver that starts again and plays by the rules gets its numbers.
    void works_after_reset() {
        device->function().write(1, 6, ~0U);
        std::ranges::fill(ram, 0);
        start(0);
        require(status() == 15);
        put<u64>(descriptors_at, buffers_at);
        put<u32>(descriptors_at + 8, 16);
        put<u16>(descriptors_at + 12, 2);
        put<u16>(available_at + 2, 1);
        io(Op::Write, doorbells, 0, 2, 0);
        require(host.memory.read<u16>({used_at + 2}).value() == 1);
        require((status() & NEEDS_RESET) == 0);
    }
};

void act(World& world, Input& input) {
    u8 const what = input.take<u8>();
    u8 const size = static_cast<u8>(1U << (what >> 4 & 3));
    Op const op = (what & 0x40) != 0 ? Op::Read : Op::Write;
    switch (what & 15) {
    case 0:
    case 1: world.io(op, registers, input.take<u8>() % 72, size, input.take<u64>()); return;
    case 2: world.io(op, registers, input.take<u16>() % 0x3ff8, size, input.take<u32>()); return;
    case 3: world.io(op, msix, input.take<u16>() % 0xff8, size, input.take<u32>()); return;
    case 4: world.device->function().write(input.take<u8>() % 64, input.take<u32>(), ~0U); return;
    case 5: (void)world.device->function().read(input.take<u8>() % 64); return;
    case 6: return world.start(input.take<u32>());
    case 7: { // a descriptor, mostly one that could be right
        u64 const at = (what & 0x80) != 0 ? descriptors_at : buffers_at;
        u64 const entry = at + input.take<u8>() % 12 * 16;
        world.put<u64>(entry, (what & 0x40) != 0 ? u64{input.take<u16>() % ram_size} : input.take<u64>());
        world.put<u32>(entry + 8, (what & 0x20) != 0 ? input.take<u8>() : input.take<u32>());
        world.put<u16>(entry + 12, input.take<u8>() & 7);
        world.put<u16>(entry + 14, input.take<u8>() % 10);
        return;
    }
    case 8: world.put<u16>(available_at + input.take<u8>() % 24, input.take<u16>()); return;
    case 9: world.put<u16>(available_at + 2, input.take<u8>() % 32); return;
    case 10: world.put<u16>(available_at + 4 + input.take<u8>() % 8 * 2, input.take<u8>() % 9); return;
    case 11: world.put<u64>(input.take<u16>(), input.take<u64>()); return;
    case 12: world.host.random_numbers = input.take<u8>() % 80; return;
    case 13: return world.host.advance(input.take<u32>());
    case 14: {
        auto const state = world.device->save();
        if (world.device->restore(state)) {
            auto const again = world.device->save();
            require(std::memcmp(&state, &again, sizeof(state)) == 0);
        }
        return;
    }
    default: world.io(op, doorbells, what >> 4 & 3, size > 4 ? 1 : size, 0); return;
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    World world;
    Input input({data, size});
    while (!input.is_empty()) {
        std::size_t const armed = world.host.timers_armed, fired = world.host.timers_fired,
                          messages = world.host.messages.size(), calls = world.host.random_calls;
        act(world, input);
        std::size_t const events = world.host.timers_fired - fired + 2; // a register, a start and each timer may serve
        require(world.host.timers_armed - armed <= events);
        require(world.host.messages.size() - messages <= 4 * events);
        require(world.host.random_calls - calls <= (VirtioRng::buffers_per_period + 1) * events);
    }
    u64 const periods = world.host.clock / VirtioRng::period.value + 2;
    require(world.host.random_calls <= periods * VirtioRng::buffers_per_period);
    world.host.advance(2 * VirtioRng::period.value);
    world.host.random_numbers = 64;
    world.works_after_reset();
    return 0;
}
