// SPDX-License-Identifier: MIT
#pragma once
// A strict AHCI controller with its disks: it does what the specifications say, and fails the test on what they forbid.
// [ahci/1.3.1] [ata/8-acs]
#include <block/ahci.hpp>
#include <gtest/gtest.h>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace ahci_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u64 ticks = 1000; // of a millisecond
inline constexpr u32 ata = 0x101, atapi = 0xeb140101;
inline constexpr u32 DHRS = 1, SDBS = 8, PCS = 0x40, IFS = 1U << 27, TFES = 1U << 30;

struct FakeDisk {
    u32 signature = ata;
    std::array<u16, 256> identify{};
    std::map<u64, std::vector<u8>> sectors; // those that were written
    u64 sector_count = 0;
    u32 sector_size = 512;
    // Misbehaviour.
    bool is_dead = false;          // never ends a command
    bool stays_busy = false;       // after a reset
    bool refuses_identify = false; //
    std::optional<u64> bad_sector; // ends with an error
    std::vector<u8> commands;

    void set_text(u32 word, u32 words, std::string text) {
        text.resize(words * 2, ' ');
        for (u32 i = 0; i < words; i++)
            identify[word + i] = static_cast<u16>(static_cast<u8>(text[i * 2]) << 8 | static_cast<u8>(text[i * 2 + 1]));
    }
    static FakeDisk disk(u64 count, u32 queue_depth = 32, u32 size = 512) {
        FakeDisk disk;
        disk.sector_count = count;
        disk.sector_size = size;
        auto& words = disk.identify;
        disk.set_text(10, 10, "  SN-1234");
        disk.set_text(27, 20, "A model of a disk");
        words[0] = 0x0040;
        words[49] = 1 << 9 | 1 << 8;
        words[83] = 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10;
        words[85] = 1 << 5;
        for (u32 i = 0; i < 4; i++)
            words[100 + i] = static_cast<u16>(count >> 16 * i);
        words[75] = static_cast<u16>(queue_depth != 0 ? queue_depth - 1 : 0);
        words[76] = static_cast<u16>(queue_depth != 0 ? 1 << 8 | 6 : 6);
        if (size != 512) {
            words[106] = 1 << 14 | 1 << 12;
            words[117] = static_cast<u16>(size / 2);
        }
        return disk;
    }
};

class FakeAhci final : public block::Function {
public:
    static constexpr u64 ram_begin = 0x100000, shared_at = ram_begin, shared_size = 0x80000, own_size = 0x60000;
    static constexpr u32 port_count = 6;
    std::array<std::optional<FakeDisk>, port_count> disks;
    u64 size_of_registers = 0x1000;
    std::vector<u8> ram = std::vector<u8>(0x400000);
    u64 shared_address = shared_at;
    u64 now = 5;
    u32 capabilities = 1U << 31 | 1U << 30 | 1U << 18 | 31U << 8 | (port_count - 1);
    bool holds = false;   // commands end at finish() only
    bool is_gone = false; // reads all ones
    bool never_resets = false, never_stops = false;
    bool bus_master = false, was_bus_master = false;
    u32 resets = 0, link_resets = 0, reads = 0;
    std::vector<std::string> lines;

    FakeAhci() = default;
    FakeAhci(FakeAhci const&) = delete;
    FakeAhci& operator=(FakeAhci const&) = delete;
    ~FakeAhci() {
        for (u64 i = own_size; i < shared_size; i++)
            if (ram[i] != 0) {
                ADD_FAILURE() << "the driver has written to memory that is not its own";
                return;
            }
    }

    u32 read(u32 bar, u32 offset, u32 width) override;
    void write(u32 bar, u32 offset, u32 width, u32 value) override;
    u64 bar_size(u32 bar) const override { return bar == 5 ? size_of_registers : 0; }
    u32 configuration(u32) override { return 0; }
    void set_bus_master(bool on) override;
    void log(std::string_view line) override { lines.emplace_back(line); }
    Shared shared() override { return {{ram.data(), shared_size}, shared_address}; }
    u64 ticks_per_millisecond() const override { return ticks; }

    bool has_line(std::string_view text) const {
        return std::ranges::any_of(lines, [&](auto const& line) { return line.find(text) != std::string::npos; });
    }
    // Ends what is under way at the port, of all slots or of one.
    void finish(u32 port, u32 slots = ~0U);
    void fail(u32 port, u32 cause); // the port stops working with this cause
    bool has_interrupt() const { return (control_ & 2) != 0 && causes_ != 0; }
    u32 under_way(u32 port) const { return ports_[port].ci | ports_[port].sact; }

private:
    struct Port {
        u64 clb = 0, fb = 0;
        u32 is = 0, ie = 0, cmd = 0, tfd = 0x7f, signature = ~0U, sctl = 0, serr = 0, sact = 0, ci = 0;
        bool has_list = false, has_fis_place = false, has_stopped_working = false, is_in_reset = false;
        u64 reset_begin = 0;
        u64 link_since = ~u64{0}; // when the link comes up
        bool is_queued = false;   // what is under way
    };
    bool is_link_up(u32 number) const { return disks[number] && now >= ports_[number].link_since; }
    u32 read_port(u32 number, u32 offset);
    void write_port(u32 number, u32 offset, u32 value);
    void write_command(u32 number, u32 value);
    void write_control(u32 number, u32 value);
    void begin_commands(u32 number, u32 slots);
    void reset_all();
    void come_up(u32 number);
    void raise(u32 number, u32 cause);
    bool execute(u32 number, u32 slot);
    bool transfer(FakeDisk& disk, u8 const* header, u64 sector, u32 count, bool is_write);
    u8* memory(u64 address, u64 size) {
        EXPECT_TRUE(bus_master) << "the device reaches memory";
        EXPECT_GE(address, ram_begin);
        EXPECT_LE(address + size, ram_begin + ram.size());
        return &ram.at(address - ram_begin);
    }

    std::array<Port, port_count> ports_{};
    u32 control_ = 0, causes_ = 0;
    u64 reset_end_ = ~u64{0};
};

} // namespace ahci_test
