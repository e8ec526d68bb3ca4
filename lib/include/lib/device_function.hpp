// SPDX-License-Identifier: MIT
#pragma once
// A PCI function as its driver reaches it: by Mullion's system calls in a service, by a strict fake in tests.
#include <lib/types.hpp>
#include <span>
#include <string_view>

namespace lib {

class DeviceFunction {
public:
    // One access of 1, 2 or 4 bytes to a register. `offset` is a multiple of the width and inside of the BAR's size.
    virtual u32 read(u32 bar, u32 offset, u32 width) = 0;
    virtual void write(u32 bar, u32 offset, u32 width, u32 value) = 0;
    // 0: it has no such BAR.
    virtual u64 bar_size(u32 bar) const = 0;
    // Four bytes of configuration space, at a multiple of 4 below 256; all ones if they cannot be read. [pci/3.0] 6.1
    virtual u32 configuration(u32 offset) = 0;
    // Whether it may read and write memory. It is off when a driver is made. A driver turns it on only when the device
    // has been reset, so that nothing is left of what another one began.
    virtual void set_bus_master(bool on) = 0;
    virtual void log(std::string_view line) = 0;

    // Memory that both see: zeroed, page-aligned, contiguous for the device, whose address of its begin is `address`.
    struct Shared {
        std::span<u8> bytes;
        u64 address;
    };
    virtual Shared shared() = 0;
    virtual u64 ticks_per_millisecond() const = 0; // of the clock that the driver is told of

protected:
    ~DeviceFunction() = default;
};

} // namespace lib
