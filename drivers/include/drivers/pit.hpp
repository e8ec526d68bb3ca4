// SPDX-License-Identifier: MIT
#pragma once
// Channel 2 of the 8254, which no interrupt hangs on, as a free-running counter. [intel/8254]
// Not supported: channels 0 and 1, the speaker.
#include <lib/types.hpp>

namespace drivers {

using lib::u16;
using lib::u32;
using lib::u8;

class Pit {
public:
    static constexpr u32 hz = 1'193'182;

    // Starts the counter at 65536 with the speaker off. Ends with stop(), which gives port 0x61 back as it was.
    void start();
    void stop();
    // Two steps, so that time can be read around the first, which holds the count.
    void latch() const;
    u16 read_latched() const; // ticks since start(), modulo 65536

private:
    u8 saved_port_b_ = 0;
};

} // namespace drivers
