// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/bus.hpp>
#include <utility>

namespace platform {
namespace {

constexpr u64 low_bytes(u64 value, u32 count) { return count >= 8 ? value : value & ((u64{1} << (count * 8)) - 1); }

// Ports are 16 bits wide: a dword at 0xffff runs on at port 0.
constexpr u64 wrapped(Space space, u64 address) { return space == Space::Pio ? address % Bus::port_count : address; }

} // namespace

lib::Result<void> Bus::attach(Device& device, Region const& region) {
    if (used_ == slots_.size()) return lib::fail(lib::Errc::NoMemory);
    if (region.size == 0 || region.base + region.size < region.base) return lib::fail(lib::Errc::OutOfRange);
    if (region.space == Space::Pio && region.base + region.size > port_count) return lib::fail(lib::Errc::OutOfRange);
    u8 const index = static_cast<u8>(used_++);
    Slot& slot = slots_[index];
    slot = Slot{&device, region, nullptr};
    if (region.space == Space::Mmio)
        slot.before = std::exchange(last_in_memory_, &slot);
    else if (region.base + region.size > direct_ports)
        slot.before = std::exchange(last_high_port_, &slot);
    if (region.space == Space::Pio)
        for (u64 port = region.base; port < std::min(region.base + region.size, direct_ports); port++)
            ports_[port] = index;
    return {};
}

void Bus::io_string(u64 port, u8 size, Op op, std::span<u8> bytes) {
    Slot const* const slot = find(Space::Pio, port);
    if (slot != nullptr && size <= slot->region.width && size <= slot->region.size - (port - slot->region.base))
        return slot->device->io_string(IoRequest{port - slot->region.base, 0, slot->region.number, size, op, 0}, bytes);
    for (u8* at = bytes.data(); at != bytes.data() + bytes.size(); at += size) {
        IoReply const reply = io(Space::Pio, port, size, op, op == Op::Write ? lib::load_sized(at, size) : 0);
        if (op == Op::Read) lib::store_sized(at, size, reply.data);
    }
}

IoReply Bus::split(Slot const& slot, u64 address, u8 size, Op op, u64 data) {
    if (size > 8) return floating_bus;
    bool const fits = size <= slot.region.size - (address - slot.region.base);
    u8 const step = fits ? slot.region.width : u8{1};
    u64 result = 0;
    for (u32 done = 0; done < size; done += step) {
        // A piece fits its region and width, or is one byte: this never nests further.
        u64 const port = wrapped(slot.region.space, address + done);
        IoReply const reply = io(slot.region.space, port, step, op, low_bytes(data >> (done * 8), step));
        result |= low_bytes(reply.data, step) << (done * 8);
    }
    return {result};
}

} // namespace platform
