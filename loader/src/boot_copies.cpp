// SPDX-License-Identifier: MIT
#include <algorithm>
#include <lib/assert.hpp>
#include <loader/boot_copies.hpp>

namespace loader {

bool BootCopies::add(GuestPhys at, std::span<u8 const> bytes, u64 zeroes) {
    auto const free = std::ranges::find_if(copies_, &Copy::is_done);
    if (free == copies_.end()) return false;
    *free = {at, bytes, zeroes};
    return true;
}

bool BootCopies::go_on(lib::GuestMemory const& memory, u64 limit) {
    for (Copy& copy : copies_) {
        u64 const count = std::min<u64>(limit, copy.bytes.size());
        ASSERT(memory.write(copy.at, copy.bytes.first(count))); // the loader has looked
        limit -= count;
        GuestPhys const after{copy.at.value + count};
        u64 const zeroed = count == copy.bytes.size() ? std::min(limit, copy.zeroes) : 0;
        ASSERT(memory.fill(after, zeroed, 0));
        limit -= zeroed;
        copy = {GuestPhys{after.value + zeroed}, copy.bytes.subspan(count), copy.zeroes - zeroed};
    }
    return std::ranges::all_of(copies_, &Copy::is_done);
}

} // namespace loader
