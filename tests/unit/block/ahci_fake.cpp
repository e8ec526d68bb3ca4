// SPDX-License-Identifier: MIT
#include "ahci_fake.hpp"

#include <bit>
#include <cstring>

namespace ahci_test {
namespace {

constexpr u32 ST = 1, SUD = 2, POD = 4, FRE = 0x10, FR = 1U << 14, CR = 1U << 15;
constexpr u32 ERR = 1, BSY = 0x80, DRDY = 0x40;

} // namespace

u32 FakeAhci::read(u32 bar, u32 offset, u32 width) {
    reads++;
    EXPECT_EQ(bar, 5U);
    EXPECT_EQ(width, 4U);
    EXPECT_EQ(offset % 4, 0U);
    EXPECT_LT(offset, size_of_registers);
    if (is_gone) return ~0U;
    if (offset >= 0x100) return read_port((offset - 0x100) / 0x80, offset % 0x80);
    if (offset == 0) return capabilities;
    if (offset == 4) {
        if ((control_ & 1) != 0 && now >= reset_end_ && !never_resets) {
            control_ = 0;
            reset_all();
        }
        return control_;
    }
    EXPECT_NE(control_ & 1U << 31, 0U) << "AE is off";
    if (offset == 8) return causes_;
    if (offset == 0xc) return (1U << port_count) - 1;
    ADD_FAILURE() << "a read of " << offset;
    return 0;
}

void FakeAhci::write(u32 bar, u32 offset, u32 width, u32 value) {
    EXPECT_EQ(bar, 5U);
    EXPECT_EQ(width, 4U);
    EXPECT_LT(offset, size_of_registers);
    if (is_gone) return;
    if (offset >= 0x100) return write_port((offset - 0x100) / 0x80, offset % 0x80, value);
    if (offset == 4) {
        EXPECT_EQ(value & ~(1U << 31 | 3), 0U);
        EXPECT_EQ(control_ & 1, 0U) << "written during a reset";
        EXPECT_NE(value & 1U << 31, 0U) << "AE is taken away";
        if ((value & 1) != 0) {
            EXPECT_NE(control_ & 1U << 31, 0U) << "a reset without AE";
            reset_end_ = now + 2 * ticks;
            resets++;
        }
        control_ = value;
        return;
    }
    EXPECT_EQ(offset, 8U);
    causes_ &= ~value;
    for (u32 i = 0; i < port_count; i++) // the causes of the ports are levels
        if ((ports_[i].is & ports_[i].ie) != 0) causes_ |= 1U << i;
}

void FakeAhci::reset_all() {
    causes_ = 0;
    for (u32 i = 0; i < port_count; i++) {
        ports_[i] = {};
        come_up(i);
    }
}

// The signal has been sent to the disk.
void FakeAhci::come_up(u32 number) {
    Port& port = ports_[number];
    port.tfd = 0x7f | BSY;
    port.link_since = now + 10 * ticks;
    port.has_stopped_working = false;
    port.ci = port.sact = 0;
    if (disks[number]) port.serr |= 1U << 26 | 1U << 16;
}

u32 FakeAhci::read_port(u32 number, u32 offset) {
    EXPECT_LT(number, port_count) << "a port that is not implemented";
    Port& port = ports_.at(number);
    switch (offset) {
    case 0x10: return port.is;
    case 0x18: return port.cmd;
    case 0x20:
        // The first FIS of the disk comes when the link is up, and is taken when DIAG.X is clear.
        if (is_link_up(number) && !port.is_in_reset && port.tfd == (0x7f | BSY) && (port.serr & 1U << 26) == 0 &&
            (port.cmd & FRE) != 0 && !disks[number]->stays_busy) {
            port.tfd = 0x100 | DRDY;
            port.signature = disks[number]->signature;
        }
        return port.tfd;
    case 0x24: return port.signature;
    case 0x28: return port.is_in_reset ? 0U : is_link_up(number) ? 0x123U : disks[number] ? 1U : 0U;
    case 0x34: return port.sact;
    case 0x38: return port.ci;
    default: ADD_FAILURE() << "a read of port register " << offset; return 0;
    }
}

void FakeAhci::write_port(u32 number, u32 offset, u32 value) {
    EXPECT_LT(number, port_count) << "a port that is not implemented";
    EXPECT_NE(control_ & 1U << 31, 0U) << "AE is off";
    EXPECT_EQ(control_ & 1, 0U) << "written during a reset";
    Port& port = ports_.at(number);
    auto const half = [value](u64 old, bool upper) {
        return upper ? (old & 0xffff'ffff) | u64{value} << 32 : (old & ~u64{0xffff'ffff}) | value;
    };
    switch (offset) {
    case 0x00:
    case 0x04:
        EXPECT_EQ(port.cmd & (ST | CR), 0U) << "the list moves under way";
        port.clb = half(port.clb, offset == 4);
        EXPECT_EQ(port.clb % 1024, 0U);
        port.has_list = true;
        return;
    case 0x08:
    case 0x0c:
        EXPECT_EQ(port.cmd & (FRE | FR), 0U) << "the place for FISes moves under way";
        port.fb = half(port.fb, offset == 0xc);
        EXPECT_EQ(port.fb % 256, 0U);
        port.has_fis_place = true;
        return;
    case 0x10: port.is &= ~value | PCS; return; // that one is a copy of DIAG.X
    case 0x14: port.ie = value; return;
    case 0x18: return write_command(number, value);
    case 0x2c: return write_control(number, value);
    case 0x30:
        port.serr &= ~value;
        if ((port.serr & 1U << 26) == 0) port.is &= ~PCS;
        return;
    case 0x34:
        EXPECT_NE(port.cmd & ST, 0U);
        EXPECT_EQ(port.sact & value, 0U) << "a tag that is under way";
        port.sact |= value;
        return;
    case 0x38: return begin_commands(number, value);
    default: ADD_FAILURE() << "a write of port register " << offset;
    }
}

void FakeAhci::write_command(u32 number, u32 value) {
    Port& port = ports_[number];
    EXPECT_EQ(value & ~(ST | SUD | POD | FRE), 0U);
    EXPECT_EQ(value & (SUD | POD), SUD | POD);
    if ((value & FRE) != 0 && (port.cmd & FRE) == 0) {
        EXPECT_TRUE(port.has_fis_place);
        EXPECT_TRUE(bus_master);
    }
    if ((value & FRE) == 0 && (port.cmd & FRE) != 0) EXPECT_EQ(port.cmd & (ST | CR), 0U);
    if ((value & ST) != 0 && (port.cmd & ST) == 0) {
        EXPECT_EQ(port.cmd & CR, 0U) << "started before it has stopped";
        EXPECT_NE(value & FRE, 0U);
        EXPECT_TRUE(port.has_list);
        EXPECT_TRUE(is_link_up(number)) << "started without a disk";
        EXPECT_EQ(port.tfd & (BSY | 8), 0U) << "started while the disk is busy";
        EXPECT_EQ(port.serr, 0U);
    }
    bool const was_running = (port.cmd & CR) != 0;
    port.cmd = value | ((value & FRE) != 0 ? FR : 0);
    if ((value & ST) != 0 || (was_running && never_stops)) port.cmd |= CR;
    if ((value & ST) == 0 && (port.cmd & CR) == 0) port.ci = port.sact = 0;
}

void FakeAhci::write_control(u32 number, u32 value) {
    Port& port = ports_[number];
    EXPECT_EQ(port.cmd & (ST | CR), 0U) << "the link is changed under way";
    EXPECT_LE(value & 0xf, 1U);
    bool const is_reset = (value & 0xf) == 1;
    if (port.is_in_reset && !is_reset) {
        EXPECT_GE(now - port.reset_begin, ticks) << "the signal must last for 1 ms";
        link_resets++;
        port.is_in_reset = false;
        come_up(number);
    } else if (is_reset) {
        port.is_in_reset = true;
        port.reset_begin = now;
    }
    port.sctl = value;
}

void FakeAhci::set_bus_master(bool on) {
    if (on && !bus_master) EXPECT_GT(resets, 0U) << "without a reset";
    if (on)
        for (Port const& port : ports_)
            EXPECT_EQ(port.cmd & CR, 0U) << "a transfer could go on";
    bus_master = on;
    was_bus_master |= on;
}

void FakeAhci::raise(u32 number, u32 cause) {
    ports_[number].is |= cause;
    if ((ports_[number].is & ports_[number].ie) != 0) causes_ |= 1U << number;
}

void FakeAhci::fail(u32 number, u32 cause) {
    Port& port = ports_[number];
    port.has_stopped_working = true;
    if (cause == TFES) port.tfd = 0x4000 | DRDY | ERR;
    raise(number, cause);
}

void FakeAhci::begin_commands(u32 number, u32 slots) {
    Port& port = ports_[number];
    EXPECT_NE(slots, 0U);
    EXPECT_NE(port.cmd & ST, 0U);
    EXPECT_EQ(slots & port.ci, 0U) << "a slot that is under way";
    EXPECT_EQ(slots >> 1 >> (capabilities >> 8 & 31), 0U) << "a slot that there is not";
    if (!disks[number]) return;
    bool const is_queued = (port.sact & slots) != 0;
    if (is_queued) {
        EXPECT_EQ(port.sact & slots, slots) << "queued commands together with others";
        EXPECT_NE(disks[number]->identify[76] >> 8 & 1, 0) << "the disk has no queue";
        EXPECT_NE(capabilities >> 30 & 1, 0U) << "the controller has no queue";
        EXPECT_LE(static_cast<u32>(std::bit_width(slots)), disks[number]->identify[75] + 1U) << "too large a tag";
    }
    if (port.ci != 0 || (port.sact & ~slots) != 0) EXPECT_EQ(is_queued, port.is_queued) << "queued meets another";
    if (!is_queued) {
        EXPECT_EQ(std::popcount(slots), 1);
        EXPECT_EQ(port.ci, 0U);
    }
    port.is_queued = is_queued;
    port.ci |= slots;
    if (!holds) finish(number, slots);
}

void FakeAhci::finish(u32 number, u32 slots) {
    Port& port = ports_[number];
    for (u32 left = (port.ci | port.sact) & slots; left != 0; left &= left - 1) {
        if (port.has_stopped_working || disks[number]->is_dead) return;
        auto const slot = static_cast<u32>(std::countr_zero(left));
        if (!execute(number, slot)) return fail(number, TFES);
        port.tfd = DRDY;
        port.ci &= ~(1U << slot);
        port.sact &= ~(1U << slot);
        raise(number, port.is_queued ? SDBS : DHRS);
    }
}

// False: the disk ends the command with an error.
bool FakeAhci::execute(u32 number, u32 slot) {
    FakeDisk& disk = *disks[number];
    Port const& port = ports_[number];
    u8 const* const header = memory(port.clb + slot * 32, 32);
    u64 table_at = 0;
    std::memcpy(&table_at, header + 8, 8);
    EXPECT_EQ(table_at % 128, 0U);
    EXPECT_EQ(header[0] & 0xbf, 5) << "the size of the FIS";
    EXPECT_EQ(header[1], 0);
    u8 const* const fis = memory(table_at, 128);
    EXPECT_EQ(fis[0], 0x27);
    EXPECT_EQ(fis[1], 0x80);
    u8 const command = fis[2];
    disk.commands.push_back(command);
    bool const is_queued = command == 0x60 || command == 0x61;
    EXPECT_EQ(is_queued, (port.sact >> slot & 1) != 0) << "the command and the kind of its slot";
    if (command == 0xec) {
        std::vector<u8> data(512);
        std::memcpy(data.data(), disk.identify.data(), 512);
        FakeDisk page;
        page.sectors[0] = data;
        return !disk.refuses_identify && transfer(page, header, 0, 1, false);
    }
    if (command == 0xea) {
        EXPECT_EQ(header[2] | header[3], 0);
        return !disk.bad_sector;
    }
    EXPECT_EQ(fis[7], 0x40);
    u64 sector = 0;
    for (u32 i = 0; i < 3; i++)
        sector |= u64{fis[4 + i]} << i * 8 | u64{fis[8 + i]} << (24 + i * 8);
    if (is_queued) EXPECT_EQ(fis[12], slot << 3) << "the tag";
    u32 const count = is_queued ? fis[3] | u32{fis[11]} << 8 : fis[12] | u32{fis[13]} << 8;
    EXPECT_TRUE(is_queued || command == 0x25 || command == 0x35) << "an unknown command " << u32{command};
    bool const is_write = command == 0x61 || command == 0x35;
    EXPECT_EQ((header[0] & 0x40) != 0, is_write) << "the direction";
    if (sector + count > disk.sector_count) return false;
    if (disk.bad_sector && *disk.bad_sector >= sector && *disk.bad_sector < sector + count) return false;
    return transfer(disk, header, sector, count, is_write);
}

bool FakeAhci::transfer(FakeDisk& disk, u8 const* header, u64 sector, u32 count, bool is_write) {
    u64 table_at = 0, done = 0, const_size = u64{count} * disk.sector_size;
    std::memcpy(&table_at, header + 8, 8);
    u32 const regions = header[2] | u32{header[3]} << 8;
    for (u32 i = 0; i < regions; i++) {
        u8 const* const region = memory(table_at + 128 + i * 16, 16);
        u64 address = 0;
        u32 last = 0;
        std::memcpy(&address, region, 8);
        std::memcpy(&last, region + 12, 4);
        EXPECT_EQ(address % 2, 0U);
        EXPECT_EQ(last & 0xffc0'0001, 1U) << "the size of a piece";
        if ((capabilities >> 31) == 0) EXPECT_EQ(address >> 32, 0U);
        u8* const here = memory(address, last + 1);
        for (u64 j = 0; j <= last; j++, done++) {
            auto& there = disk.sectors[sector + done / disk.sector_size];
            there.resize(disk.sector_size);
            if (is_write)
                there[done % disk.sector_size] = here[j];
            else
                here[j] = there[done % disk.sector_size];
        }
    }
    EXPECT_EQ(done, const_size) << "the pieces and the sectors";
    return done == const_size;
}

} // namespace ahci_test
