// SPDX-License-Identifier: MIT
#pragma once
// An AHCI controller of SATA disks. [ahci/1.3.1] [ata/8-acs]
// Not supported: ATAPI drives, port multipliers, disks without DMA or 48-bit addresses, more than max_disks. A disk
// that comes while the controller runs is not noticed.
#include <block/controller.hpp>

namespace block {

class Ahci final : public Controller {
public:
    static constexpr u32 max_disks = 4, max_slots = 32, max_ports = 32;
    // What it uses of Function::shared(), from the begin on: a page for each disk with its command list and the data of
    // IDENTIFY DEVICE, the places for received FISes of all ports, and the tables of all slots of all disks.
    static constexpr u32 fis_size = 256, table_size = 2048, first_fis_page = max_disks;
    static constexpr u32 first_table_page = first_fis_page + max_ports * fis_size / lib::page_size;
    static constexpr u32 shared_pages = first_table_page + max_disks * max_slots * table_size / lib::page_size;
    static constexpr u32 table_header = 128, most_pieces = (table_size - table_header) / 16;
    static constexpr u32 most_bytes = 512 * 1024;
    static constexpr u32 command_seconds = 10, flush_seconds = 30, ready_seconds = 31;
    static constexpr u32 most_recoveries = 3; // of a disk, without a command that succeeded in between
    static constexpr u32 most_resets = 3;     // of the controller, likewise

    explicit Ahci(Function& function);

    u32 poll(u64 now, std::span<Ended> ended) override;
    u64 deadline() const override { return deadline_; }
    State state() const override { return state_; }
    std::string_view failure() const override { return failure_; }
    std::span<DiskFacts const> disks() const override { return {facts_.data(), is_known_ ? unit_count_ : 0}; }
    Limits limits() const override;
    bool submit(Command const& command, u64 now) override;
    void ring() override;

private:
    enum class Step : u8 { Begin, WaitForReset, LookForDisks, StartDisks };
    enum class Phase : u8 {
        Link,     // waits until the disk is there and ready
        Identify, // the command is under way
        Run,
        Stop,     // waits until the port has stopped
        ComReset, // the signal is sent
        Dead,     // left out, or failed
    };
    enum class Link : u8 { Waiting, Ready, Absent };
    struct Slot {
        u32 tag = 0;
        u64 deadline = 0;
    };
    // A disk. Masks have a bit for each slot.
    struct Unit {
        u32 port = 0;
        u32 memory = 0; // which part of the shared memory is its own
        Phase phase = Phase::Link;
        u64 begin = 0, limit = 0;  // of the phase
        u32 used = 0;              // not free
        u32 prepared = 0;          // to be told to the port by ring()
        u32 issued = 0;            // to the port
        u32 waiting = 0;           // a flush, until nothing is issued
        u32 flush = 0;             // a flush, from submit() to its end
        u32 ended = 0, failed = 0; // to be given back by poll(); those of them that failed
        u32 depth = 1;             //
        u32 recoveries = 0;        //
        bool is_queued = false;    // its transfers are queued commands
        u8 flush_command = 0;      // 0: it has none
        std::array<Slot, max_slots> slots{};
    };
    struct Fis;

    // ahci_start.cpp
    void start(u64 now);
    void begin(u64 now);
    void set_up(u64 now);
    void set_up_port(u32 port);
    void look_for_disks(u64 now);
    void add_unit(u32 port);
    Link link_of(u32 port, u64 elapsed);
    void look_for_link(Unit& unit, u64 now);
    void identify(Unit& unit, u64 now);
    void look_for_identify(Unit& unit, u64 now);
    std::string_view read_facts(Unit& unit, DiskFacts& facts);
    void leave_out(Unit& unit, std::string_view why);
    void run();

    // ahci.cpp
    void look(u64 now);
    void go_on(Unit& unit, u32 events, u64 now);
    void look_for_ends(Unit& unit, u32 events, u64 now);
    void recover(Unit& unit, u64 now, std::string_view why, bool counts);
    void look_for_stop(Unit& unit, u64 now);
    void die(Unit& unit, std::string_view why);
    void reset(u64 now, std::string_view why);
    void fail(std::string_view why);
    u32 take_ends(std::span<Ended> ended);
    void set_deadline(u64 now);
    static void lose_all(Unit& unit);
    bool is_valid(Command const& command) const;
    void build(Unit const& unit, u32 slot, Fis const& fis, bool is_write, std::span<Piece const> pieces);
    void build_transfer(Unit const& unit, u32 slot, Command const& command);
    void build_simple(Unit const& unit, u32 slot, u8 command, std::span<Piece const> pieces);
    void issue(Unit& unit);
    void begin_flush(Unit& unit, u64 now);
    void say(Unit const& unit, std::string_view what);

    std::span<Unit> units() { return std::span(units_).first(unit_count_); }
    u32 read(u32 offset) { return function_.read(5, offset, 4); }
    void write(u32 offset, u32 value) { function_.write(5, offset, 4, value); }
    u32 read_port(u32 port, u32 offset) { return read(0x100 + port * 0x80 + offset); }
    void write_port(u32 port, u32 offset, u32 value) { write(0x100 + port * 0x80 + offset, value); }
    void write_address(u32 port, u32 offset, u64 address);
    u64 milliseconds(u64 count) const { return function_.ticks_per_millisecond() * count; }
    u64 list_at(Unit const& unit) const { return unit.memory * lib::page_size; } // in the shared memory
    u64 identify_at(Unit const& unit) const { return list_at(unit) + 1024; }
    u64 table_at(Unit const& unit, u32 slot) const {
        return first_table_page * lib::page_size + (unit.memory * max_slots + slot) * u64{table_size};
    }

    Function& function_;
    Function::Shared shared_;
    State state_ = State::Starting;
    Step step_ = Step::Begin;
    std::string_view failure_;
    u64 deadline_ = 0;                          // of the next call
    u64 step_begin_ = 0, step_limit_ = 0;       //
    u32 ports_ = 0;                             // that are implemented
    u32 unseen_ = 0, found_ = 0;                // ports that may still have a disk; those that have one
    u32 controller_slots_ = 1;                  //
    bool has_queues_ = false, is_wide_ = false; // CAP.SNCQ, CAP.S64A
    bool is_known_ = false;                     // the disks are known
    bool must_reset_ = false;
    u32 resets_ = 0;
    u32 log_lines_ = 0;
    std::array<Unit, max_disks> units_{};
    std::array<DiskFacts, max_disks> facts_{};
    u32 unit_count_ = 0;
};

} // namespace block
