// SPDX-License-Identifier: MIT
#pragma once
// The main counter of a High Precision Event Timer. [intel/hpet] 2.3
// Not supported: its comparators; the legacy replacement route stays as it is.
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace drivers {

using lib::u32;
using lib::u64;
using lib::u8;

class Hpet {
public:
    // `base` is the virtual address of the register block's uncached mapping, at least 0x100 bytes.
    explicit constexpr Hpet(u64 base) : base_(base) {}
    // Reads the period and lets the counter run. Unsupported if no sound HPET answers.
    lib::Result<void> start();
    u64 period_femtoseconds() const { return period_; }
    // The lower half: one atomic read of every HPET. Wraps after minutes.
    u32 read() const;

private:
    u64 base_;
    u64 period_ = 0;
};

} // namespace drivers
