// SPDX-License-Identifier: MIT
#pragma once
// What every driver of a controller of disks does. Nothing of it waits: poll() brings everything forward, and the
// driver says when it wants to be called again. A device is hostile: whatever it answers, every wait ends, no read
// leaves the driver's memory, and a command ends exactly once.
#include <array>
#include <block/function.hpp>
#include <lib/format.hpp>

namespace block {

// Memory, by the address that the device must use.
struct Piece {
    u64 address;
    u32 size;
};

enum class Operation : u8 { Read, Write, Flush };

struct Command {
    Operation operation;
    u32 disk;
    u32 tag;                       // comes back with its end; no two commands under way have the same
    u64 sector;                    // in the disk's sector size
    std::span<Piece const> pieces; // whole sectors together; none for Flush. Used during submit() only
};

// What the pieces of one command must be like.
struct Limits {
    u32 most_bytes;      // a multiple of 4096
    u32 most_pieces;     //
    u32 alignment;       // of the address and size of each piece; at most 512
    u32 granule;         // each piece except the first begins at a multiple of it, each except the last ends at one
    u64 highest_address; // of any byte
    u32 depth;           // commands under way at once; at least 1
};

struct DiskFacts {
    u64 sectors;
    u32 sector_size; // 512 to 4096, a power of two
    bool is_read_only;
    bool has_write_cache;        // Flush is needed
    std::array<char, 24> serial; // printable, without spaces around it; the rest is NUL
    std::array<char, 44> model;
    // Which disk of the controller it is, by the device's own numbers: after a restart, another one never has it.
    u32 id = 0;
};

enum class Status : u8 { Good, Failed };
struct Ended {
    u32 tag;
    Status status;
};

class Controller {
public:
    enum class State : u8 { Starting, Ready, Failed };
    static constexpr u64 never = ~u64{0};

    // Looks at what the device has done, goes on with its start or recovery, and gives commands up that take too long.
    // Called at each interrupt and at deadline() at the latest, with the present time in ticks. Returns how many
    // commands have ended; as many as there is room for: it must be called again.
    virtual u32 poll(u64 now, std::span<Ended> ended) = 0;
    virtual u64 deadline() const = 0; // never: no call is needed
    virtual State state() const = 0;
    // Why it failed, as a sentence without its subject.
    virtual std::string_view failure() const = 0;
    // While Ready, and after it.
    virtual std::span<DiskFacts const> disks() const = 0;
    virtual Limits limits() const = 0;

    // Takes a command that lies inside of its disk and obeys limits(); it may begin at once or with ring(). False: as
    // many are under way as can be, or the controller is recovering or has failed; nothing was taken.
    [[nodiscard]] virtual bool submit(Command const& command, u64 now) = 0;
    // Tells the device of what was submitted.
    virtual void ring() = 0;

protected:
    ~Controller() = default;
};

} // namespace block
