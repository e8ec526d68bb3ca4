// SPDX-License-Identifier: MIT
#pragma once
// Finds the device for an access. Ports below 0x1000 are found by one table look-up; regions above and MMIO regions, of
// which there are few, by comparison, each kind in a list of its own.
//
// The first byte of an access decides: when nobody claims it, the whole access floats (so a dword at 0xcf8 never
// reaches the reset register at 0xcf9). An access wider than its device is cut into pieces of the device's width, and
// one that runs over the end of its region into bytes, as an ISA bridge does.
#include <array>
#include <lib/result.hpp>
#include <platform/abi.hpp>
#include <span>

namespace platform {

class Bus {
public:
    static constexpr u32 max_regions = 48;
    static constexpr u64 direct_ports = 0x1000;
    static constexpr u64 port_count = 0x10000;

    Bus() = default;
    Bus(Bus const&) = delete;
    Bus& operator=(Bus const&) = delete;

    // A region attached later covers earlier ones.
    lib::Result<void> attach(Device& device, Region const& region);

    IoReply io(Space space, u64 address, u8 size, Op op, u64 data) {
        Slot const* const slot = find(space, address);
        if (slot == nullptr) return floating_bus;
        u64 const offset = address - slot->region.base;
        if (size > slot->region.width || size > slot->region.size - offset) [[unlikely]]
            return split(*slot, address, size, op, data);
        return slot->device->io(IoRequest{offset, data, slot->region.number, size, op, 0});
    }
    // The accesses of an INS or OUTS: bytes.size() / size of them at one port.
    void io_string(u64 port, u8 size, Op op, std::span<u8> bytes);
    u32 region_count() const { return used_ - 1; }

private:
    struct Slot {
        Device* device;
        Region region;
        Slot const* before; // the one of this list that was attached before this
    };
    Slot const* find(Space space, u64 address) const {
        if (space == Space::Pio && address < direct_ports) [[likely]] {
            u8 const index = ports_.data()[address];
            return index == 0 ? nullptr : &slots_.data()[index];
        }
        Slot const* slot = space == Space::Mmio ? last_in_memory_ : last_high_port_;
        while (slot != nullptr && address - slot->region.base >= slot->region.size)
            slot = slot->before;
        return slot;
    }
    IoReply split(Slot const& slot, u64 address, u8 size, Op op, u64 data);

    std::array<u8, direct_ports> ports_{}; // index into slots_; 0: nobody
    std::array<Slot, max_regions + 1> slots_{};
    Slot const* last_in_memory_ = nullptr;
    Slot const* last_high_port_ = nullptr;
    u32 used_ = 1;
};

} // namespace platform
