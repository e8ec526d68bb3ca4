// SPDX-License-Identifier: MIT
#pragma once
// A bus-master IDE controller with two channels of two drives each. [bmide/1.0] [ata/8-acs]
// Not supported: ATAPI drives, drives without DMA or LBA, sectors other than 512 bytes. The timings and transfer modes
// stay as the firmware has set them. One command is under way at once, on all the channels together.
#include <block/controller.hpp>

namespace block {

class Ide final : public Controller {
public:
    static constexpr u32 channel_count = 2, max_drives = 4;
    static constexpr u32 sector_size = 512, most_bytes = 256 * sector_size;
    // What it uses of Function::shared(), from the begin on: the table of a command's pieces. A piece is cut at each
    // multiple of 64 KiB. Together they have 128 KiB, so that each is cut once and two more cuts are possible at most.
    static constexpr u32 shared_pages = 1;
    static constexpr u32 table_entries = lib::page_size / 8, most_pieces = (table_entries - 2) / 2;
    static constexpr u32 command_seconds = 10;
    static constexpr u32 flush_seconds = 40; // a full cache can take more than half a minute
    static constexpr u32 reset_seconds = 31; // that a drive may take after a software reset. [ata/7-vol2] SRST
    static constexpr u32 most_resets = 3;    // without a command that succeeded in between

    explicit Ide(Function& function);

    u32 poll(u64 now, std::span<Ended> ended) override;
    u64 deadline() const override { return phase_ == Phase::Ended ? 0 : deadline_; }
    State state() const override { return state_; }
    std::string_view failure() const override { return failure_; }
    std::span<DiskFacts const> disks() const override { return {facts_.data(), disk_count_}; }
    Limits limits() const override;
    bool submit(Command const& command, u64 now) override;
    void ring() override {} // submit() has begun it

private:
    enum class Step : u8 {
        Begin,
        EndReset,
        SelectFirst,
        WaitForDrive, // after the reset
        WaitForIdentify,
        WaitForIdle, // after its data
    };
    enum class Phase : u8 { None, UnderWay, Ended };
    struct Channel {
        bool is_present = false;
        u8 kept = 0; // bits of the bus master's status that belong to the firmware
        u8 selected = 0;
    };
    struct Drive {
        u8 slot = 0; // twice the channel, and 1 for the second drive
        bool has_lba48 = false, has_flush = false, has_flush_ext = false;
        bool is_gone = false; // it did not come back after a reset
    };

    // ide_start.cpp
    void start(u64 now);
    void begin(u64 now);
    void end_reset(u64 now);
    void next_drive(u32 first, u64 now);
    void select_for_start(u64 now);
    void look_for_drive(u64 now);
    void look_for_identify(u64 now);
    void look_for_idle(u64 now);
    void take_identify(std::span<u16 const> words);
    void leave_out(std::string_view why);
    void run();
    void wait(Step step, u64 now, u64 pause, u64 limit);
    bool is_known() const; // whether the present drive was a disk before the reset

    // ide.cpp
    void look(u64 now);
    void quiet();
    void reset(u64 now, std::string_view why);
    void fail(std::string_view why);
    void end(Status status);
    bool set_table(std::span<Piece const> pieces);
    bool select(Drive const& drive, u8 device);
    void begin_transfer(Command const& command, Drive const& drive, u32 count, u64 now);
    void begin_flush(Drive const& drive, u64 now);
    void log_error(u8 drive, u8 master);

    u8 read8(u32 bar, u32 offset) { return static_cast<u8>(function_.read(bar, offset, 1)); }
    void write8(u32 bar, u32 offset, u32 value) { function_.write(bar, offset, 1, value); }
    u8 read_master(u32 channel, u32 offset) { return read8(4, channel * 8 + offset); }
    void write_master(u32 channel, u32 offset, u32 value) { write8(4, channel * 8 + offset, value); }
    u8 read_alternate(u32 channel) { return read8(2 * channel + 1, 2); }
    void write_control(u32 channel, u32 value) { write8(2 * channel + 1, 2, value); }
    u64 milliseconds(u64 count) const { return function_.ticks_per_millisecond() * count; }

    Function& function_;
    Function::Shared shared_;
    State state_ = State::Starting;
    Step step_ = Step::Begin;
    std::string_view failure_;
    u64 deadline_ = 0;   // of the next call
    u64 not_before_ = 0; // when the present step may look at a register
    u64 step_begin_ = 0, step_limit_ = 0;
    u32 slot_ = 0;               // that the present step is about
    bool is_recovering_ = false; // the disks are known
    u32 resets_ = 0;
    u32 log_lines_ = 0;
    // The command under way.
    Phase phase_ = Phase::None;
    Status status_ = Status::Good;
    bool is_transfer_ = false;
    u32 tag_ = 0;
    u32 channel_ = 0;
    std::array<Channel, channel_count> channels_{};
    std::array<Drive, max_drives> drives_{};
    std::array<DiskFacts, max_drives> facts_{};
    u32 disk_count_ = 0;
};

} // namespace block
