// SPDX-License-Identifier: MIT
#include <algorithm>
#include <lib/assert.hpp>
#include <loader/boot_copies.hpp>

namespace loader {

bool BootCopies::add(GuestPhys at, std::span<u8 const> bytes, u64 zeroes) {
    auto const in_use = std::span(copies_).first(used_);
    auto const free = std::ranges::find_if(in_use, &Copy::is_done);
    if (free == in_use.end() && used_ == capacity) return false;
    Copy& copy = free == in_use.end() ? copies_[used_++] : *free;
    copy = {at, bytes, zeroes};
    return true;
}

bool BootCopies::go_on(lib::GuestMemory const& memory, u64 limit) {
    auto const in_use = std::span(copies_).first(used_);
    for (Copy& copy : in_use) {
        if (copy.is_done()) continue;
        u64 const count = std::min<u64>(limit, copy.bytes.size());
        ASSERT(memory.write(copy.at, copy.bytes.first(count))); // the loader has looked
        limit -= count;
        GuestPhys const after{copy.at.value + count};
        u64 const zeroed = count == copy.bytes.size() ? std::min(limit, copy.zeroes) : 0;
        ASSERT(memory.fill(after, zeroed, 0));
        limit -= zeroed;
        copy = {GuestPhys{after.value + zeroed}, copy.bytes.subspan(count), copy.zeroes - zeroed};
    }
    return std::ranges::all_of(in_use, &Copy::is_done);
}

} // namespace loader
