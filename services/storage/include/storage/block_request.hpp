// SPDX-License-Identifier: MIT
#pragma once
// One request of a virtio-blk driver. [virtio/1.2] 5.2.6
//
// A medium in memory is served in slices, so that a long request holds nobody up. For a part of a machine's disk, a
// request is a row of commands to the disk's controller, several of which may be under way at once. Data goes straight
// between the guest's buffers and the medium, except where the controller does not reach them: then it goes through the
// bounce memory. The chain may be cut into descriptors in any way: the header is the first 16 readable bytes, the
// status is the last writable byte.
#include <lib/guest_memory.hpp>
#include <lib/limits.hpp>
#include <lib/split_queue.hpp>
#include <span>
#include <storage/disk_part.hpp>

namespace storage {

inline constexpr u64 sector_size = 512;

struct Medium {
    u64 size = 0;                   // bytes, a multiple of sector_size
    std::span<u8> bytes;            // of a medium in memory; not written if is_read_only
    DiskPart const* disk = nullptr; // of any other
    bool is_read_only = true;
    bool is_out_of_order = false;  // no request succeeds
    std::array<char, 20> serial{}; // what GET_ID tells; the rest is NUL
};

class BlockRequest {
public:
    // What is beyond these limits fails with an I/O error. The device's configuration tells the driver less or the
    // same.
    static constexpr u64 max_transfer = lib::max_disk_transfer; // of one IN or OUT
    static constexpr u32 max_ranges = 16;                       // of one DISCARD or WRITE_ZEROES

    // A command to the disk's controller.
    struct Slice {
        block::Operation operation = block::Operation::Flush;
        u64 at = 0; // byte of the medium
        u32 bytes = 0, piece_count = 0;
        bool is_bounced = false;
    };
    enum class Next : u8 {
        Nothing,     // all commands have begun, or the request has failed
        Slice,       //
        NeedsBounce, // there is one when the bounce memory is free
    };

    // To be filled by SplitQueue::take() before begin().
    lib::SplitQueue::Chain& chain() { return chain_; }
    // Reads the header. Returns false if the chain has no room for a header or a status: the driver broke a rule.
    [[nodiscard]] bool begin(lib::GuestMemory const& memory, Medium const& medium);
    // Goes on with a medium in memory for `budget` bytes, and takes what it has moved or zeroed from the budget.
    void go_on(lib::GuestMemory const& memory, Medium const& medium, u64& budget);

    // Says what the next command for the disk is. What it writes through the bounce memory has then been put there.
    [[nodiscard]] Next next_slice(lib::GuestMemory const& memory, Medium const& medium, bool can_bounce,
                                  std::span<block::Piece, DiskPart::max_pieces> pieces, Slice& slice);
    void begun(Slice const& slice); // the controller took it
    // A command has ended. With `memory`, what was read through the bounce memory is put where it belongs.
    void ended(bool is_good, bool is_bounced, lib::GuestMemory const* memory, Medium const& medium);
    void drop() { work_ = Work::None; } // begins no more commands

    bool has_more() const { return work_ != Work::None; } // to be done, or commands to begin
    bool is_under_way() const { return under_way_ != 0; }
    bool moves_data() const { return work_ != Work::None && work_ != Work::Flush; }
    lib::service::DiskRequest kind() const;
    bool is_good() const { return status_ == Status::Ok; } // so far
    bool is_done() const { return !has_more() && !is_under_way(); }
    // Writes the status of a request that is done.
    void finish(lib::GuestMemory const& memory);
    // After that, how many bytes have been written, from the first writable one on. [virtio/1.2] 2.7.8.2
    u32 written() const { return written_; }

private:
    enum class Work : u8 { None, Read, Write, Zero, Flush }; // from the driver's view: Read fills its buffers
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
    Next next_zeroes(lib::GuestMemory const& memory, Medium const& medium, std::span<block::Piece> pieces,
                     Slice& slice);
    Next next_transfer(lib::GuestMemory const& memory, Medium const& medium, bool can_bounce,
                       std::span<block::Piece, DiskPart::max_pieces> pieces, Slice& slice);
    bool copy(lib::GuestMemory const& memory, Cursor from, std::span<u8> bytes, bool is_to_guest) const;
    bool next_range(lib::GuestMemory const& memory, Medium const& medium);
    bool read_chain(lib::GuestMemory const& memory, std::span<u8> out);
    template <typename T> bool read_value(lib::GuestMemory const& memory, T& value);
    void fail(Status status) {
        status_ = status;
        work_ = Work::None;
    }

    lib::SplitQueue::Chain chain_;
    u64 readable_ = 0, writable_ = 0; // bytes of the chain
    u16 first_writable_ = 0;          // segment
    Cursor cursor_;                   // where in the chain the work is
    // Where in the medium, and how many bytes are left, of the transfer or of the present range.
    u64 at_ = 0, left_ = 0;
    u32 ranges_left_ = 0, type_ = 0;
    u32 written_ = 0;
    u32 under_way_ = 0; // commands
    // What was read through the bounce memory belongs there.
    Cursor bounced_to_;
    u32 bounced_ = 0;
    Work work_ = Work::None;
    Status status_ = Status::Ok;
};

} // namespace storage
