// SPDX-License-Identifier: MIT
#pragma once
// The Internet's checksum over bytes that lie in several pieces of any length. [rfc/1071]
#include <lib/types.hpp>
#include <span>

namespace network {

class Checksum {
public:
    void add(std::span<lib::u8 const> bytes);
    // The checksum of everything that was added, in the order of its bytes in the packet: to be stored as it is.
    lib::u16 value() const;

private:
    lib::u64 sum_ = 0;
    bool is_odd_ = false; // an odd number of bytes was added
};

} // namespace network
