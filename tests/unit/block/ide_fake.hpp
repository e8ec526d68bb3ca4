// SPDX-License-Identifier: MIT
#pragma once
// A strict bus-master IDE controller with its drives: it does what the specifications say, and fails the test on what
// they forbid. [bmide/1.0] [ata/7-vol2] [ata/8-acs]
#include <block/ide.hpp>
#include <gtest/gtest.h>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ide_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u64 ticks = 1000; // of a millisecond
inline constexpr u8 ERR = 0x01, DRQ = 0x08, DSC = 0x10, DRDY = 0x40, BSY = 0x80;

struct FakeDrive {
    bool is_atapi = false;
    bool is_ready_atapi = false; // as some show it after a reset
    std::array<u16, 256> identify{};
    std::map<u64, std::array<u8, 512>> sectors; // those that were written
    u64 sector_count = 0;
    // Misbehaviour.
    bool is_dead = false;            // never ends a command
    bool stays_busy = false;         // after a reset
    bool refuses_identify = false;   //
    bool keeps_data_request = false; // after IDENTIFY
    std::optional<u64> bad_sector;   // ends with an error
    // State.
    u8 status = DRDY | DSC, error = 1;
    std::vector<u8> commands;

    void set_text(u32 word, u32 words, std::string text) {
        text.resize(words * 2, ' ');
        for (u32 i = 0; i < words; i++)
            identify[word + i] = static_cast<u16>(static_cast<u8>(text[i * 2]) << 8 | static_cast<u8>(text[i * 2 + 1]));
    }
    static FakeDrive atapi(bool is_ready) {
        FakeDrive drive;
        drive.is_atapi = true;
        drive.is_ready_atapi = is_ready;
        return drive;
    }
    static FakeDrive disk(u64 count, bool lba48) {
        FakeDrive drive;
        drive.sector_count = count;
        auto& words = drive.identify;
        drive.set_text(10, 10, "  SN-1234");
        drive.set_text(27, 20, "A model of a disk");
        words[0] = 0x0040;
        words[49] = 1 << 9 | 1 << 8;
        u64 const small = count < 0xfffffff ? count : 0xfffffff;
        words[60] = static_cast<u16>(small);
        words[61] = static_cast<u16>(small >> 16);
        words[82] = 1 << 5;
        words[83] = static_cast<u16>(1 << 14 | 1 << 12 | (lba48 ? 1 << 13 | 1 << 10 : 0));
        words[85] = 1 << 5;
        words[87] = 1 << 14;
        if (lba48)
            for (u32 i = 0; i < 4; i++)
                words[100 + i] = static_cast<u16>(count >> 16 * i);
        return drive;
    }
};

class FakeIde final : public block::Function {
public:
    static constexpr u64 ram_begin = 0x100000, shared_at = ram_begin, shared_size = 0x40000;
    std::array<std::array<std::optional<FakeDrive>, 2>, 2> drives;
    std::array<u64, 5> bar_sizes = {8, 4, 8, 4, 16};
    std::vector<u8> ram = std::vector<u8>(0x200000);
    u64 shared_address = shared_at;
    u64 now = 5;
    u8 floating = 0xff; // what a channel without drives reads
    bool holds = false; // commands end at finish() only
    bool bus_master = false, was_bus_master = false;
    bool loses_interrupts = false, fails_transfers = false, stops_short = false;
    u32 reads = 0, writes = 0, resets = 0;
    std::vector<std::string> lines;

    FakeIde() = default;
    FakeIde(FakeIde const&) = delete;
    FakeIde& operator=(FakeIde const&) = delete;
    ~FakeIde() {
        for (u64 i = lib::page_size; i < shared_size; i++)
            if (ram[i] != 0) {
                ADD_FAILURE() << "the driver has written to memory that is not its own";
                return;
            }
    }

    u32 read(u32 bar, u32 offset, u32 width) override;
    void write(u32 bar, u32 offset, u32 width, u32 value) override;
    u64 bar_size(u32 bar) const override { return bar < 5 ? bar_sizes[bar] : 0; }
    u32 configuration(u32) override { return 0; }
    void set_bus_master(bool on) override;
    void log(std::string_view line) override { lines.emplace_back(line); }
    Shared shared() override { return {{ram.data(), shared_size}, shared_address}; }
    u64 ticks_per_millisecond() const override { return ticks; }

    bool has_line(std::string_view text) const {
        return std::ranges::any_of(lines, [&](auto const& line) { return line.find(text) != std::string::npos; });
    }
    // Ends what is under way on the channel, as far as the drive does it.
    void finish(u32 channel);
    void raise(u32 channel) { // the drive's interrupt, by its edge
        Channel& c = channels_[channel];
        if ((c.control & 2) != 0) return;
        c.line = true;
        if (!loses_interrupts) c.master_status |= 4;
    }
    bool has_line_raised(u32 channel) const { return channels_[channel].line; }
    u8 master_status(u32 channel) const { return channels_[channel].master_status; }
    void set_master_status(u32 channel, u8 value) { channels_[channel].master_status = value; }
    bool is_started(u32 channel) const { return (channels_[channel].master_command & 1) != 0; }

private:
    struct Channel {
        std::array<std::array<u8, 2>, 4> pairs{}; // count, LBA: the later and the earlier value
        u8 device = 0, control = 0;
        u8 master_command = 0, master_status = 0x60;
        u32 table = 0;
        bool line = false, must_stop = false;
        u8 command = 0; // under way
        u32 data_index = 0;
        u64 reset_begin = 0, reset_end = 0;
    };
    FakeDrive* selected(u32 channel) {
        auto& drive = drives[channel][channels_[channel].device >> 4 & 1];
        return drive ? &*drive : nullptr;
    }
    bool is_empty(u32 channel) const { return !drives[channel][0] && !drives[channel][1]; }
    u8 status(u32 channel);
    u32 read_data(u32 channel);
    void write_command_block(u32 channel, u32 offset, u8 value);
    void write_control(u32 channel, u8 value);
    void write_master(u32 channel, u32 offset, u32 value);
    void begin_command(u32 channel, u8 command);
    void set_signature(u32 channel);
    bool transfer(Channel& c, FakeDrive& drive);
    std::array<Channel, 2> channels_;
};

} // namespace ide_test
