// SPDX-License-Identifier: MIT
#include <drivers/pm_timer.hpp>

#include <lib/x86/instructions.hpp>

namespace drivers {

u32 PmTimer::read() const {
    u32 const value = is_memory_ ? lib::x86::load32(address_) : lib::x86::in32(static_cast<u16>(address_));
    return value & mask();
}

} // namespace drivers
