// SPDX-License-Identifier: MIT
#pragma once
// Numbers that nobody outside can guess, for ports and identifiers: SipHash-2-4 of a counter, with a key that Mullion
// has drawn. Without a source in the machine the key is only the time of the start. [siphash]
#include <network/host.hpp>

namespace network {

class Random {
public:
    constexpr Random() = default;
    Random(u64 first, u64 second) : key_{first, second} {}
    u64 next() { return siphash(counter_++); }
    u64 siphash(u64 word) const; // of 8 bytes

private:
    u64 key_[2] = {};
    u64 counter_ = 0;
};

} // namespace network
