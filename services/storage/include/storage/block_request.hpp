// SPDX-License-Identifier: MIT
#pragma once
// One request of a virtio-blk driver, served from a medium in memory. [virtio/1.2] 5.2.6
//
// It is served in slices, so that a long one holds nobody up. Data goes straight between the guest's buffers and the
// medium. The chain may be cut into descriptors in any way: the header is the first 16 readable bytes, the status is
// the last writable byte.
#include <lib/guest_memory.hpp>
#include <lib/limits.hpp>
#include <lib/split_queue.hpp>
#include <span>

namespace storage {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u64 sector_size = 512;

struct Medium {
    std::span<u8> bytes; // a multiple of sector_size; not written if is_read_only
    bool is_read_only = true;
    std::array<char, 20> serial{}; // what GET_ID tells; the rest is NUL
};

class BlockRequest {
public:
    // What is beyond these limits fails with an I/O error. The device's configuration tells the driver less or the
    // same.
    static constexpr u64 max_transfer = lib::max_disk_transfer; // of one IN or OUT
    static constexpr u32 max_ranges = 16;              // of one DISCARD or WRITE_ZEROES

    // To be filled by SplitQueue::take() before begin().
    lib::SplitQueue::Chain& chain() { return chain_; }
    // Reads the header. Returns false if the chain has no room for a header or a status: the driver broke a rule.
    [[nodiscard]] bool begin(lib::GuestMemory const& memory, Medium const& medium);
    // Goes on for `budget` bytes, and takes what it has moved or zeroed from the budget. Returns true at the request's
    // end: the status has then been written.
    [[nodiscard]] bool go_on(lib::GuestMemory const& memory, Medium const& medium, u64& budget);
    // How many bytes have been written, from the first writable one on. [virtio/1.2] 2.7.8.2
    u32 written() const { return written_; }

private:
    enum class Work : u8 { None, Read, Write, Zero }; // from the driver's view: Read fills its buffers
    enum class Status : u8 { Ok = 0, IoError = 1, Unsupported = 2 };
    struct Header {
        u32 type, reserved;
        u64 sector;
    };
    struct Range {
        u64 sector;
        u32 sectors, flags;
    };

    bool measure();
    void start_transfer(Work work, Medium const& medium, u64 sector, u64 size);
    void start_zeroing(u32 type, Medium const& medium, u64 size);
    void tell_serial(lib::GuestMemory const& memory, Medium const& medium);
    void move(lib::GuestMemory const& memory, Medium const& medium, u64& budget);
    void zero(lib::GuestMemory const& memory, Medium const& medium, u64& budget);
    bool next_range(lib::GuestMemory const& memory, Medium const& medium);
    bool read_chain(lib::GuestMemory const& memory, std::span<u8> out);
    template <typename T> bool read_value(lib::GuestMemory const& memory, T& value);
    void write_status(lib::GuestMemory const& memory);
    void fail(Status status) {
        status_ = status;
        work_ = Work::None;
    }

    lib::SplitQueue::Chain chain_;
    u64 readable_ = 0, writable_ = 0; // bytes of the chain
    u16 first_writable_ = 0;          // segment
    // Where in the chain the work is.
    u16 segment_ = 0;
    u32 offset_ = 0;
    // Where in the medium, and how many bytes are left, of the transfer or of the present range.
    u64 at_ = 0, left_ = 0;
    u32 ranges_left_ = 0, type_ = 0;
    u32 written_ = 0;
    Work work_ = Work::None;
    Status status_ = Status::Ok;
};

} // namespace storage
