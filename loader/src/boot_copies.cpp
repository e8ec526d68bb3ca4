#include <algorithm>
#include <lib/assert.hpp>
#include <loader/boot_copies.hpp>

namespace loader {

bool BootCopies::add(GuestPhys at, std::span<u8 const> bytes) {
    auto const free = std::ranges::find_if(copies_, [](Copy const& copy) { return copy.bytes.empty(); });
    if (free == copies_.end()) return false;
    *free = {at, bytes};
    return true;
}

bool BootCopies::go_on(lib::GuestMemory const& memory, u64 limit) {
    for (Copy& copy : copies_) {
        u64 const count = std::min<u64>(limit, copy.bytes.size());
        ASSERT(memory.write(copy.at, copy.bytes.first(count))); // the loader has looked
        copy = {GuestPhys{copy.at.value + count}, copy.bytes.subspan(count)};
        limit -= count;
    }
    return std::ranges::all_of(copies_, [](Copy const& copy) { return copy.bytes.empty(); });
}

} // namespace loader
