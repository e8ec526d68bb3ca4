// SPDX-License-Identifier: MIT
#pragma once
// What the storage service asks of Mullion, so that its logic runs, and is fuzzed, on an ordinary Linux machine.
#include <lib/types.hpp>
#include <string_view>

namespace storage {

class Host {
public:
    virtual void interrupt(lib::u32 device, lib::u32 queue) = 0; // tells the driver
    virtual void misuse(lib::u32 device) = 0;                    // the driver broke a rule: it must reset the device
    // Nothing is under way any more that was begun for the device before its queues were told to stop for the
    // `stops`-th time.
    virtual void stopped(lib::u32 device, lib::u32 stops) = 0;
    virtual void log(std::string_view line) = 0;
    virtual lib::u64 ticks() = 0; // the time, later than the begin of the turn
    virtual lib::u64 ticks_per_second() const = 0;
    // Where guest-physical address 0 of the device's VM is, and byte 0 of its medium.
    virtual lib::u8* ram_window(lib::u32 device) = 0;
    virtual lib::u8* medium_window(lib::u32 device) = 0;

protected:
    ~Host() = default;
};

} // namespace storage
