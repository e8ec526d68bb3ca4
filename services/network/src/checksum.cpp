// SPDX-License-Identifier: MIT
#include <lib/memory.hpp>
#include <network/checksum.hpp>

namespace network {
namespace {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

// The carries of a sum of 16-bit words are added to its low end. [rfc/1071] 1
u64 fold(u64 sum) {
    sum = (sum & 0xffff'ffff) + (sum >> 32); // below 2^33
    sum = (sum & 0xffff) + (sum >> 16);      // below 2^18
    sum = (sum & 0xffff) + (sum >> 16);      // at most 0x10002
    return (sum & 0xffff) + (sum >> 16);
}

u64 add_with_carry(u64 sum, u64 value) {
    sum += value;
    return sum + (sum < value ? 1 : 0);
}

// Of pairs of bytes from the first one on; a last single byte is the first of a pair with zero.
u64 sum_of(std::span<u8 const> bytes) {
    u64 sum = 0;
    u8 const* at = bytes.data();
    u64 left = bytes.size();
    for (; left >= 8; at += 8, left -= 8)
        sum = add_with_carry(sum, lib::load<u64>(at));
    if (left >= 4) {
        sum = add_with_carry(sum, lib::load<u32>(at));
        at += 4;
        left -= 4;
    }
    if (left >= 2) {
        sum = add_with_carry(sum, lib::load<u16>(at));
        at += 2;
        left -= 2;
    }
    return left != 0 ? add_with_carry(sum, *at) : sum;
}

} // namespace

void Checksum::add(std::span<u8 const> bytes) {
    u64 sum = fold(sum_of(bytes));
    // After an odd number of bytes every pair begins with its other byte: the same sum with its bytes exchanged.
    // [rfc/1071] 2 (B)
    if (is_odd_) sum = (sum & 0xff) << 8 | sum >> 8;
    sum_ += sum; // 16 bits: no carry is lost in 2^48 pieces
    is_odd_ ^= bytes.size() % 2 != 0;
}

u16 Checksum::value() const { return static_cast<u16>(~fold(sum_)); }

} // namespace network
