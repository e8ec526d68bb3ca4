// SPDX-License-Identifier: MIT
// Commands of a bus-master IDE controller that runs. Its start: ide_start.cpp. Each access to a register is a system
// call, so a command gets by with as few as the specifications allow.
#include <algorithm>
#include <cstring>

#include "ide_layout.hpp"

namespace block {

using namespace ide;

Ide::Ide(Function& function) : function_(function), shared_(function.shared()) {}

u32 Ide::poll(u64 now, std::span<Ended> ended) {
    if (state_ == State::Starting)
        start(now);
    else if (state_ == State::Ready && phase_ == Phase::UnderWay)
        look(now);
    else if (state_ == State::Ready)
        quiet();
    if (phase_ != Phase::Ended || ended.empty()) return 0;
    phase_ = Phase::None;
    ended[0] = {tag_, status_};
    return 1;
}

// Looks whether the command under way has ended. The interrupt is cleared before the drive's status is read: so one
// that the drive sends in between is seen later, and not lost. [bmide/1.0] 3.1
void Ide::look(u64 now) {
    MasterStatus const master{{read_master(channel_, master_status)}};
    if (master.get<MasterStatus::Interrupt>()) {
        write_master(channel_, master_status, channels_[channel_].kept | MasterStatus::write_to_clear);
        DriveStatus const drive{{read8(2 * channel_, STATUS)}}; // the drive takes its interrupt back
        if (drive.is_idle()) {
            // An active master has not moved all the bytes of the table. [bmide/1.0] 3.1
            bool const is_good =
                drive.is_good() &&
                (!is_transfer_ || (!master.get<MasterStatus::Active>() && !master.get<MasterStatus::Error>()));
            if (is_transfer_) write_master(channel_, master_command, 0);
            if (is_good)
                resets_ = 0;
            else
                log_error(drive.raw, master.raw);
            return end(is_good ? Status::Good : Status::Failed);
        }
    } else {
        quiet();
    }
    if (now >= deadline_) reset(now, "a command took too long");
}

// Takes back interrupts that belong to no command, which would come again and again.
void Ide::quiet() {
    for (u32 i = 0; i < channel_count; i++) {
        if (!channels_[i].is_present || (phase_ == Phase::UnderWay && i == channel_)) continue;
        if (!MasterStatus{{read_master(i, master_status)}}.get<MasterStatus::Interrupt>()) continue;
        write_master(i, master_status, channels_[i].kept | MasterStatus::write_to_clear);
        (void)read8(2 * i, STATUS);
    }
}

void Ide::log_error(u8 drive, u8 master) {
    if (log_lines_ >= 8) return;
    log_lines_++;
    char text[120];
    function_.log(lib::format_to(text, "a command ended with status {:#x}, error {:#x}, bus master's status {:#x}",
                                 drive, read8(2 * channel_, ERROR), master));
}

void Ide::end(Status status) {
    phase_ = Phase::Ended;
    status_ = status;
    deadline_ = never;
}

// What is under way ends as Failed. From here on the controller reads and writes no memory, so its buffers are free.
void Ide::reset(u64 now, std::string_view why) {
    write_master(channel_, master_command, 0);
    function_.set_bus_master(false);
    if (phase_ == Phase::UnderWay) end(Status::Failed);
    resets_++;
    char text[120];
    function_.log(lib::format_to(text, "{}{}", why, resets_ <= most_resets ? "; it is reset" : ""));
    if (resets_ > most_resets) return fail("has been reset too often without a command that succeeded");
    state_ = State::Starting;
    step_ = Step::Begin;
    is_recovering_ = true;
    deadline_ = not_before_ = now;
}

void Ide::fail(std::string_view why) {
    function_.set_bus_master(false);
    state_ = State::Failed;
    failure_ = why;
    deadline_ = never;
}

Limits Ide::limits() const {
    return {.most_bytes = most_bytes,
            .most_pieces = most_pieces,
            .alignment = 2,
            .granule = 1,
            .highest_address = 4 * lib::GiB - 1,
            .depth = 1};
}

bool Ide::submit(Command const& command, u64 now) {
    if (state_ != State::Ready || phase_ != Phase::None || command.disk >= disk_count_) return false;
    Drive const& drive = drives_[command.disk];
    tag_ = command.tag;
    channel_ = drive.slot / 2;
    is_transfer_ = command.operation != Operation::Flush;
    phase_ = Phase::UnderWay;
    if (drive.is_gone) {
        end(Status::Failed);
    } else if (!is_transfer_) {
        begin_flush(drive, now);
    } else {
        u64 bytes = 0;
        for (Piece const& piece : command.pieces)
            bytes += piece.size;
        u64 const count = bytes / sector_size, sectors = facts_[command.disk].sectors;
        // A command that breaks limits() is a mistake of the caller; it reaches no device.
        bool const is_valid = bytes % sector_size == 0 && count != 0 && bytes <= most_bytes &&
                              command.sector < sectors && count <= sectors - command.sector;
        if (is_valid && set_table(command.pieces))
            begin_transfer(command, drive, static_cast<u32>(count), now);
        else
            end(Status::Failed);
    }
    return true;
}

// No entry crosses a multiple of 64 KiB. [bmide/1.0] 1.2
bool Ide::set_table(std::span<Piece const> pieces) {
    constexpr u64 boundary = 64 * lib::KiB;
    u32 count = 0;
    Entry entry{};
    for (Piece const& piece : pieces) {
        u64 at = piece.address, left = piece.size;
        if ((at | left) % 2 != 0 || at >= 4 * lib::GiB || left > 4 * lib::GiB - at) return false;
        while (left != 0) {
            if (count == table_entries) return false;
            u64 const size = std::min(left, lib::align_down(at, boundary) + boundary - at);
            entry = {static_cast<u32>(at), static_cast<u32>(size) & 0xffff};
            std::memcpy(shared_.bytes.data() + count * sizeof(Entry), &entry, sizeof(Entry));
            count++;
            at += size;
            left -= size;
        }
    }
    if (count == 0) return false;
    entry.size |= last_entry;
    std::memcpy(shared_.bytes.data() + (count - 1) * sizeof(Entry), &entry, sizeof(Entry));
    return true;
}

// A drive that was not the selected one must be idle before it gets more. The read also takes longer than the 400 ns
// after which its status is valid. [ata/7-vol2] 7.2
bool Ide::select(Drive const& drive, u8 device) {
    u8 const number = drive.slot % 2;
    write8(2 * channel_, DEVICE, device | (number != 0 ? device_second : 0));
    if (channels_[channel_].selected == number) return true;
    channels_[channel_].selected = number;
    return DriveStatus{{read_alternate(channel_)}}.is_idle();
}

void Ide::begin_transfer(Command const& command, Drive const& drive, u32 count, u64 now) {
    u32 const bar = 2 * channel_;
    u64 const sector = command.sector;
    bool const is_read = command.operation == Operation::Read, is_short = sector + count <= most_short_sectors;
    u8 const highest = is_short ? static_cast<u8>(sector >> 24) : 0;
    if (!select(drive, device_lba | highest)) return reset(now, "a drive is busy without a command");
    if (!is_short) { // each of these registers keeps two values, of which the first one is the upper half
        write8(bar, COUNT, count >> 8);
        write8(bar, LBA_LOW, static_cast<u8>(sector >> 24));
        write8(bar, LBA_MID, static_cast<u8>(sector >> 32));
        write8(bar, LBA_HIGH, static_cast<u8>(sector >> 40));
    }
    write8(bar, COUNT, count & 0xff); // 0: 256 of the short command
    write8(bar, LBA_LOW, static_cast<u8>(sector));
    write8(bar, LBA_MID, static_cast<u8>(sector >> 8));
    write8(bar, LBA_HIGH, static_cast<u8>(sector >> 16));
    __atomic_thread_fence(__ATOMIC_RELEASE); // the table is in memory
    function_.write(4, channel_ * 8 + master_table, 4, static_cast<u32>(shared_.address));
    if (is_read)
        write8(bar, COMMAND, is_short ? READ_DMA : READ_DMA_EXT);
    else
        write8(bar, COMMAND, is_short ? WRITE_DMA : WRITE_DMA_EXT);
    write_master(channel_, master_command, master_start | (is_read ? to_memory : 0));
    deadline_ = now + milliseconds(command_seconds * 1'000);
}

// A drive without the command keeps nothing back.
void Ide::begin_flush(Drive const& drive, u64 now) {
    if (!drive.has_flush && !drive.has_flush_ext) return end(Status::Good);
    if (!select(drive, device_lba)) return reset(now, "a drive is busy without a command");
    write8(2 * channel_, COMMAND, drive.has_flush_ext ? FLUSH_CACHE_EXT : FLUSH_CACHE);
    deadline_ = now + milliseconds(flush_seconds * 1'000);
}

} // namespace block
