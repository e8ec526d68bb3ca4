#pragma once
// The large copies of a start, kernel and initrd: a loader says what goes where, whoever starts the VM carries it out
// bit by bit, so that other work has its turn in between.
#include <array>
#include <lib/guest_memory.hpp>

namespace loader {

using lib::GuestPhys;
using lib::u64;
using lib::u8;

class BootCopies {
public:
    // False: it takes no more, copy at once. `bytes` must stay as they are until all is done.
    bool add(GuestPhys at, std::span<u8 const> bytes);
    // Copies at most `limit` bytes; true when nothing is left to be copied.
    bool go_on(lib::GuestMemory const& memory, u64 limit);

private:
    struct Copy {
        GuestPhys at;
        std::span<u8 const> bytes;
    };
    std::array<Copy, 2> copies_{}; // what is left of them
};

} // namespace loader
