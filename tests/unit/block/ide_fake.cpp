// SPDX-License-Identifier: MIT
#include "ide_fake.hpp"

#include <cstring>

namespace ide_test {

u8 FakeIde::status(u32 channel) {
    if (is_empty(channel)) return floating;
    Channel const& c = channels_[channel];
    EXPECT_TRUE(c.reset_begin == 0 || (c.control & 4) == 0) << "a status is read during a reset";
    if (c.reset_end != 0) EXPECT_GE(now, c.reset_end + 2 * ticks) << "a status is read too early after a reset";
    FakeDrive const* const drive = selected(channel);
    return drive != nullptr ? drive->status : 0;
}

u32 FakeIde::read_data(u32 channel) {
    Channel& c = channels_[channel];
    FakeDrive* const drive = selected(channel);
    if (drive == nullptr || (drive->status & DRQ) == 0 || c.data_index >= 256) {
        ADD_FAILURE() << "data is read that the drive does not have";
        return 0;
    }
    u16 const word = drive->identify[c.data_index++];
    if (c.data_index == 256 && !drive->keeps_data_request) drive->status = DRDY | DSC;
    return word;
}

u32 FakeIde::read(u32 bar, u32 offset, u32 width) {
    reads++;
    EXPECT_TRUE(bar < 5 && offset + width <= bar_sizes[bar]) << "outside of BAR " << bar;
    if (bar == 4) {
        EXPECT_TRUE(width == 1 && (offset % 8 == 0 || offset % 8 == 2));
        Channel const& c = channels_[offset / 8 % 2];
        return offset % 8 == 0 ? c.master_command : c.master_status;
    }
    u32 const channel = bar / 2;
    if (bar % 2 == 1) {
        EXPECT_TRUE(offset == 2 && width == 1);
        return status(channel);
    }
    EXPECT_EQ(width, offset == 0 ? 2U : 1U);
    if (offset == 0) return read_data(channel);
    if (is_empty(channel)) return floating;
    if (offset == 7) {
        channels_[channel].line = false;
        return status(channel);
    }
    FakeDrive const* const drive = selected(channel);
    if (drive != nullptr) EXPECT_EQ(drive->status & BSY, 0) << "registers are valid only without BSY";
    if (offset == 1) return drive != nullptr ? drive->error : 0;
    if (offset == 6) return channels_[channel].device;
    return channels_[channel].pairs[offset - 2][0];
}

void FakeIde::write(u32 bar, u32 offset, u32 width, u32 value) {
    writes++;
    EXPECT_TRUE(bar < 5 && offset + width <= bar_sizes[bar]) << "outside of BAR " << bar;
    if (bar == 4) {
        EXPECT_EQ(width, offset % 8 == 4 ? 4U : 1U);
        return write_master(offset / 8 % 2, offset % 8, value);
    }
    EXPECT_EQ(width, 1U);
    EXPECT_LT(value, 256U);
    if (bar % 2 == 0) return write_command_block(bar / 2, offset, static_cast<u8>(value));
    EXPECT_EQ(offset, 2U);
    write_control(bar / 2, static_cast<u8>(value));
}

void FakeIde::write_control(u32 channel, u8 value) {
    Channel& c = channels_[channel];
    EXPECT_EQ(value & ~0x86, 0) << "reserved bits";
    bool const was_reset = (c.control & 4) != 0, is_reset = (value & 4) != 0;
    c.control = value;
    if (!was_reset && is_reset) {
        EXPECT_EQ(c.master_command & 1, 0) << "a reset with a bus master that runs";
        resets++;
        c.reset_begin = now;
        c.line = false;
        c.command = 0;
        for (auto& drive : drives[channel])
            if (drive) drive->status = BSY;
    } else if (was_reset && !is_reset) {
        EXPECT_GT(now, c.reset_begin) << "the reset is too short";
        c.reset_end = now;
        c.device = 0;
        for (auto& drive : drives[channel])
            if (drive)
                drive->status = drive->stays_busy                           ? BSY
                                : drive->is_atapi && !drive->is_ready_atapi ? u8{0}
                                                                            : u8{DRDY | DSC};
        set_signature(channel);
    }
}

void FakeIde::set_signature(u32 channel) {
    FakeDrive const* const drive = selected(channel);
    bool const is_atapi = drive != nullptr && drive->is_atapi;
    std::array<u8, 4> const values = {1, 1, is_atapi ? u8{0x14} : u8{0}, is_atapi ? u8{0xeb} : u8{0}};
    for (u32 i = 0; i < 4; i++)
        channels_[channel].pairs[i] = {values[i], 0};
}

void FakeIde::write_command_block(u32 channel, u32 offset, u8 value) {
    Channel& c = channels_[channel];
    EXPECT_TRUE((c.control & 4) == 0) << "a register is written during a reset";
    for (auto const& drive : drives[channel])
        if (drive && !drive->stays_busy && !drive->keeps_data_request && !drive->is_dead)
            EXPECT_EQ(drive->status & (BSY | DRQ), 0) << "a register is written while a drive works: " << offset;
    if (offset == 6) {
        bool const is_other = ((c.device ^ value) & 0x10) != 0;
        c.device = value;
        if (is_other && c.data_index == 0 && drives[channel][0] && drives[channel][0]->commands.empty())
            set_signature(channel);
        return;
    }
    if (offset == 7) return begin_command(channel, value);
    EXPECT_TRUE(offset >= 2 && offset <= 5) << "register " << offset;
    auto& pair = c.pairs[(offset - 2) % 4];
    pair = {value, pair[0]};
}

void FakeIde::begin_command(u32 channel, u8 command) {
    Channel& c = channels_[channel];
    FakeDrive* const drive = selected(channel);
    if (drive == nullptr) {
        ADD_FAILURE() << "a command for no drive";
        return;
    }
    EXPECT_FALSE(drive->is_atapi) << "a command for an ATAPI drive";
    drive->commands.push_back(command);
    c.line = false;
    c.command = command == 0xec ? u8{0} : command;
    drive->status = command == 0xca || command == 0x35 ? DRDY | DRQ : BSY | DRDY;
    if (drive->is_dead) return;
    if (command == 0xec) {
        c.data_index = 0;
        drive->status = drive->refuses_identify ? DRDY | ERR : DRDY | DSC | DRQ;
        raise(channel);
    } else if (command == 0xe7 || command == 0xea) {
        if (!holds) finish(channel);
    } else if (command != 0xc8 && command != 0x25 && command != 0xca && command != 0x35) {
        ADD_FAILURE() << "an unknown command " << u32{command};
    }
}

void FakeIde::set_bus_master(bool on) {
    if (on)
        for (u32 i = 0; i < 2; i++) {
            EXPECT_FALSE(is_started(i)) << "a transfer could go on";
            if (bar_sizes[2 * i] != 0) EXPECT_NE(channels_[i].reset_end, 0U) << "without a reset";
            EXPECT_EQ(channels_[i].command, 0);
        }
    bus_master = on;
    was_bus_master |= on;
}

void FakeIde::write_master(u32 channel, u32 offset, u32 value) {
    Channel& c = channels_[channel];
    if (offset == 2) {
        EXPECT_EQ((value ^ c.master_status) & 0x60, 0U) << "the firmware's bits change";
        c.master_status = static_cast<u8>(c.master_status & ~(value & 6));
        return;
    }
    if (offset == 4) {
        EXPECT_EQ(value % 4, 0U);
        EXPECT_FALSE(is_started(channel)) << "the table is changed under way";
        c.table = value;
        return;
    }
    EXPECT_EQ(offset, 0U);
    EXPECT_EQ(value & ~9U, 0U);
    bool const is_start = (value & 1) != 0;
    if (is_start) {
        EXPECT_FALSE(is_started(channel)) << "started without a stop in between";
        EXPECT_TRUE(bus_master);
        EXPECT_NE(c.command, 0) << "started without a command";
        EXPECT_EQ((value & 8) != 0, c.command == 0xc8 || c.command == 0x25) << "the direction";
    }
    c.master_command = static_cast<u8>(value);
    c.master_status = static_cast<u8>((c.master_status & ~1) | (is_start ? 1 : 0));
    if (is_start && !holds) finish(channel);
}

// Moves the data. False: the drive ends the command with an error.
bool FakeIde::transfer(Channel& c, FakeDrive& drive) {
    bool const is_long = c.command == 0x25 || c.command == 0x35, is_read = c.command == 0xc8 || c.command == 0x25;
    EXPECT_NE(c.device & 0x40, 0) << "not an LBA";
    u64 sector = c.pairs[1][0] | u64{c.pairs[2][0]} << 8 | u64{c.pairs[3][0]} << 16;
    u32 count = c.pairs[0][0];
    if (is_long) {
        EXPECT_EQ(c.device & 0xf, 0);
        sector |= u64{c.pairs[1][1]} << 24 | u64{c.pairs[2][1]} << 32 | u64{c.pairs[3][1]} << 40;
        count |= u32{c.pairs[0][1]} << 8;
        count = count != 0 ? count : 65536;
    } else {
        sector |= u64{c.device & 0xfU} << 24;
        count = count != 0 ? count : 256;
        EXPECT_LT(sector + count, 1U << 28) << "beyond the most sectors that words 60 and 61 can tell of";
    }
    if (sector + count > drive.sector_count) return false;
    if (drive.bad_sector && *drive.bad_sector >= sector && *drive.bad_sector < sector + count) return false;
    u64 left = u64{count} * 512, done = 0;
    for (u64 table = c.table;; table += 8) {
        EXPECT_LE(table + 8, c.table / 0x10000 * 0x10000 + 0x10000ULL) << "the table crosses 64 KiB";
        u32 address = 0, size = 0;
        std::memcpy(&address, &ram.at(table - ram_begin), 4);
        std::memcpy(&size, &ram.at(table + 4 - ram_begin), 4);
        bool const is_last = (size & 0x80000000) != 0;
        EXPECT_EQ((size & 0x7fff0001) | (address & 1), 0U);
        size = (size & 0xffff) != 0 ? size & 0xffff : 0x10000;
        EXPECT_EQ(address / 0x10000, (address + size - 1) / 0x10000) << "an entry crosses 64 KiB";
        EXPECT_LE(size, left);
        if (size > left) return false;
        for (u64 i = 0; i < size; i++, done++) {
            u8& here = ram.at(address - ram_begin + i);
            u64 const at = sector + done / 512;
            if (!is_read)
                drive.sectors[at][done % 512] = here;
            else
                here = drive.sectors.contains(at) ? drive.sectors[at][done % 512] : u8{0};
        }
        left -= size;
        if (is_last) break;
    }
    EXPECT_EQ(left, 0U) << "the table is too small";
    return left == 0;
}

void FakeIde::finish(u32 channel) {
    Channel& c = channels_[channel];
    FakeDrive* const drive = selected(channel);
    if (drive == nullptr || c.command == 0 || drive->is_dead) return;
    bool const is_flush = c.command == 0xe7 || c.command == 0xea;
    if (!is_flush && (!bus_master || !is_started(channel))) return;
    bool const is_good = is_flush ? !drive->bad_sector : (!stops_short && transfer(c, *drive));
    c.command = 0;
    drive->status = is_good || stops_short ? DRDY | DSC : DRDY | ERR;
    drive->error = is_good ? 0 : 0x10;
    if (!is_flush && is_good) c.master_status &= 0xfe;
    if (!is_flush && fails_transfers) c.master_status |= 2;
    raise(channel);
}

} // namespace ide_test
