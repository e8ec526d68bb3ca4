// SPDX-License-Identifier: MIT
#pragma once
// The large copies of a start, kernel, initrd and modules, and the zeroes after an ELF segment's bytes: a loader says
// what goes where, whoever starts the VM carries it out bit by bit, so that other work has its turn in between.
#include <array>
#include <lib/guest_memory.hpp>

namespace loader {

using lib::GuestPhys;
using lib::u64;
using lib::u8;

class BootCopies {
public:
    static constexpr u64 capacity = 138; // all segments of an ELF file, the initrd and eight modules

    void clear() { used_ = 0; }
    // `zeroes` follow the bytes. False: it takes no more, copy at once. `bytes` must stay as they are until all is
    // done.
    bool add(GuestPhys at, std::span<u8 const> bytes, u64 zeroes = 0);
    // Writes at most `limit` bytes; true when nothing is left to be written.
    bool go_on(lib::GuestMemory const& memory, u64 limit);

private:
    struct Copy {
        GuestPhys at;
        std::span<u8 const> bytes;
        u64 zeroes;
        bool is_done() const { return bytes.empty() && zeroes == 0; }
    };
    std::array<Copy, capacity> copies_{}; // what is left of them
    u64 used_ = 0;                        // the first so many: a kernel has a handful
};

} // namespace loader
