// SPDX-License-Identifier: MIT
#pragma once
// What the network service asks of Mullion, so that its logic runs, and is fuzzed, on an ordinary Linux machine.
#include <lib/types.hpp>
#include <string_view>

namespace network {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class Host {
public:
    virtual void interrupt(u32 device, u32 queue) = 0; // tells the driver
    virtual void misuse(u32 device) = 0;               // the driver broke a rule: it must reset the device
    // Nothing is under way any more that was begun for the device before its queues were told to stop for the
    // `stops`-th time.
    virtual void stopped(u32 device, u32 stops) = 0;
    virtual void log(std::string_view line) = 0;
    // Where guest-physical address 0 of the device's VM is.
    virtual u8* ram_window(u32 device) = 0;

protected:
    ~Host() = default;
};

} // namespace network
