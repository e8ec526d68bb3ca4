// SPDX-License-Identifier: MIT
// Commands of an AHCI controller that runs, and their errors. Its start: ahci_start.cpp.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "ahci_layout.hpp"

namespace block {

using namespace ahci;

Ahci::Ahci(Function& function) : function_(function), shared_(function.shared()) { static_assert(sizeof(Fis) == 20); }

u32 Ahci::poll(u64 now, std::span<Ended> ended) {
    if (state_ == State::Starting)
        start(now);
    else if (state_ == State::Ready)
        look(now);
    if (std::exchange(must_reset_, false) && state_ != State::Failed) reset(now, "a port does not stop");
    u32 const count = take_ends(ended);
    set_deadline(now);
    return count;
}

// The causes are cleared first in the port, then in the controller, and only then it is looked for what has ended: an
// end that comes in between makes an interrupt of its own. [ahci/1.3.1] 5.6.4
void Ahci::look(u64 now) {
    u32 const causes = read(IS);
    if (causes == ~0U && read(GHC) == ~0U) return fail("is gone");
    std::array<u32, max_disks> events{};
    for (u32 i = 0; i < unit_count_; i++) {
        u32 const port = units_[i].port;
        if ((causes >> port & 1) == 0) continue;
        events[i] = read_port(port, PxIS);
        write_port(port, PxIS, events[i]);
    }
    if (causes != 0) write(IS, causes);
    for (u32 i = 0; i < unit_count_; i++)
        go_on(units_[i], events[i], now);
}

void Ahci::go_on(Unit& unit, u32 events, u64 now) {
    switch (unit.phase) {
    case Phase::Link: return look_for_link(unit, now);
    case Phase::Identify: return look_for_identify(unit, now);
    case Phase::Run: return look_for_ends(unit, events, now);
    case Phase::Stop: return look_for_stop(unit, now);
    case Phase::ComReset:
        if (now < unit.limit) return;
        write_port(unit.port, PxSCTL, no_power_states);
        unit.phase = Phase::Link;
        unit.begin = now;
        return;
    case Phase::Dead: return;
    }
}

void Ahci::look_for_ends(Unit& unit, u32 events, u64 now) {
    if ((events & link_changes) != 0) return recover(unit, now, "the link was lost", true);
    bool is_error = (events & command_errors) != 0;
    if (unit.issued != 0 && !is_error) {
        u32 const running = read_port(unit.port, PxCI) | (unit.is_queued ? read_port(unit.port, PxSACT) : 0);
        u32 const done = unit.issued & ~running;
        // Some controllers take a command that failed off the list.
        is_error = done != 0 && (read_port(unit.port, PxTFD) & (ERR | DF)) != 0;
        if (done != 0 && !is_error) {
            unit.issued &= ~done;
            unit.ended |= done;
            unit.recoveries = resets_ = 0;
        }
    }
    // The disk has answered that it cannot do something, so it does not count as broken.
    bool const is_answer = (events & command_errors & ~TFES) == 0;
    if (is_error) return recover(unit, now, is_answer ? "a command failed" : "a transfer failed", !is_answer);
    for (u32 left = unit.issued | unit.prepared; left != 0; left &= left - 1)
        if (unit.slots[static_cast<u32>(std::countr_zero(left))].deadline <= now)
            return recover(unit, now, "a command took too long", true);
    if (unit.waiting != 0 && (unit.issued | unit.prepared) == 0) {
        begin_flush(unit, now);
        issue(unit);
    }
}

// Stops the port. All that is under way ends as Failed when it has stopped; before, the controller may still write to
// memory.
void Ahci::recover(Unit& unit, u64 now, std::string_view why, bool counts) {
    if (counts) unit.recoveries++;
    char text[120];
    if (log_lines_ < 16) {
        log_lines_++;
        say(unit, lib::format_to(text, "{}: status {:#x}, link {:#x}; it is reset", why, read_port(unit.port, PxTFD),
                                 read_port(unit.port, PxSSTS)));
    }
    write_port(unit.port, PxIE, 0);
    write_port(unit.port, PxCMD, SUD | POD | FRE);
    unit.phase = Phase::Stop;
    unit.limit = now + milliseconds(500); // [ahci/1.3.1] 10.1.2
    look_for_stop(unit, now);
}

void Ahci::look_for_stop(Unit& unit, u64 now) {
    if ((read_port(unit.port, PxCMD) & CR) != 0) {
        if (now >= unit.limit) must_reset_ = true;
        return;
    }
    lose_all(unit);
    if (unit.recoveries > most_recoveries) return die(unit, "it was reset too often without a command that succeeded");
    // After an error of a queued command, a disk takes no other ones without this. [ahci/1.3.1] 10.4.2
    write_port(unit.port, PxSCTL, no_power_states | det_reset);
    unit.phase = Phase::ComReset;
    unit.limit = now + milliseconds(2); // at least 1 ms
}

void Ahci::lose_all(Unit& unit) {
    u32 const lost = unit.used & ~unit.ended;
    unit.ended |= lost;
    unit.failed |= lost;
    unit.issued = unit.prepared = unit.waiting = 0;
}

void Ahci::die(Unit& unit, std::string_view why) {
    char text[120];
    say(unit, lib::format_to(text, "given up: {}", why));
    write_port(unit.port, PxIE, 0);
    write_port(unit.port, PxCMD, SUD | POD | FRE);
    unit.phase = Phase::Dead;
}

// Of the whole controller. From here on it reads and writes no memory, so all buffers are free.
void Ahci::reset(u64 now, std::string_view why) {
    function_.set_bus_master(false);
    for (Unit& unit : units())
        lose_all(unit);
    resets_++;
    char text[120];
    function_.log(lib::format_to(text, "{}{}", why, resets_ <= most_resets ? "; the controller is reset" : ""));
    if (resets_ > most_resets) return fail("has been reset too often without a command that succeeded");
    state_ = State::Starting;
    step_ = Step::Begin;
    step_begin_ = now;
}

void Ahci::fail(std::string_view why) {
    function_.set_bus_master(false);
    for (Unit& unit : units())
        lose_all(unit);
    state_ = State::Failed;
    failure_ = why;
}

u32 Ahci::take_ends(std::span<Ended> ended) {
    u32 count = 0;
    for (Unit& unit : units()) {
        while (unit.ended != 0 && count < ended.size()) {
            auto const slot = static_cast<u32>(std::countr_zero(unit.ended));
            u32 const bit = 1U << slot;
            ended[count++] = {unit.slots[slot].tag, (unit.failed & bit) != 0 ? Status::Failed : Status::Good};
            unit.ended &= ~bit;
            unit.failed &= ~bit;
            unit.used &= ~bit;
            unit.flush &= ~bit;
        }
    }
    return count;
}

void Ahci::set_deadline(u64 now) {
    deadline_ = state_ == State::Starting ? now + milliseconds(1) : never;
    for (Unit const& unit : units()) {
        if (unit.ended != 0) deadline_ = now;
        if (state_ != State::Ready) continue;
        if (unit.phase == Phase::Dead) continue;
        if (unit.phase != Phase::Run) {
            deadline_ = std::min(deadline_, now + milliseconds(1));
            continue; // what is under way ends with this phase
        }
        for (u32 left = unit.issued | unit.prepared; left != 0; left &= left - 1)
            deadline_ = std::min(deadline_, unit.slots[static_cast<u32>(std::countr_zero(left))].deadline);
    }
}

Limits Ahci::limits() const {
    u32 depth = 0;
    for (Unit const& unit : std::span(units_).first(unit_count_))
        depth += unit.depth;
    return {.most_bytes = most_bytes,
            .most_pieces = most_pieces,
            .alignment = 2,
            .granule = 1,
            .highest_address = is_wide_ ? ~u64{0} : 4 * lib::GiB - 1,
            .depth = std::max(depth, 1U)};
}

// A command that breaks limits() is a mistake of the caller; it reaches no device.
bool Ahci::is_valid(Command const& command) const {
    DiskFacts const& disk = facts_[command.disk];
    u64 const highest = limits().highest_address;
    u64 bytes = 0;
    for (Piece const& piece : command.pieces) {
        if (piece.size == 0 || (piece.address | piece.size) % 2 != 0) return false;
        if (piece.address > highest || piece.size - 1 > highest - piece.address) return false;
        bytes += piece.size;
    }
    u64 const count = bytes / disk.sector_size;
    return command.pieces.size() <= most_pieces && bytes % disk.sector_size == 0 && count != 0 && bytes <= most_bytes &&
           command.sector < disk.sectors && count <= disk.sectors - command.sector;
}

bool Ahci::submit(Command const& command, u64 now) {
    if (state_ != State::Ready || command.disk >= unit_count_) return false;
    Unit& unit = units_[command.disk];
    u32 const every = unit.depth == max_slots ? ~0U : (1U << unit.depth) - 1;
    u32 const free = every & ~unit.used;
    if ((unit.phase != Phase::Run && unit.phase != Phase::Dead) || unit.flush != 0 || free == 0) return false;
    auto const slot = static_cast<u32>(std::countr_zero(free));
    u32 const bit = 1U << slot;
    unit.used |= bit;
    unit.slots[slot] = {.tag = command.tag, .deadline = now + milliseconds(command_seconds * 1'000)};
    bool const is_flush = command.operation == Operation::Flush;
    if (unit.phase == Phase::Dead || (!is_flush && !is_valid(command))) {
        unit.ended |= bit;
        unit.failed |= bit;
        deadline_ = now;
    } else if (!is_flush) {
        build_transfer(unit, slot, command);
        unit.prepared |= bit;
        deadline_ = std::min(deadline_, unit.slots[slot].deadline);
    } else if (unit.flush_command == 0) { // it keeps nothing back
        unit.ended |= bit;
        deadline_ = now;
    } else {
        unit.flush = unit.waiting = bit;
        if ((unit.issued | unit.prepared) == 0) begin_flush(unit, now);
    }
    return true;
}

// It is not a queued command, and must not meet one. [ata/8-acs] 4.14
void Ahci::begin_flush(Unit& unit, u64 now) {
    auto const slot = static_cast<u32>(std::countr_zero(unit.waiting));
    build_simple(unit, slot, unit.flush_command, {});
    unit.slots[slot].deadline = now + milliseconds(flush_seconds * 1'000);
    unit.prepared |= std::exchange(unit.waiting, 0);
    deadline_ = std::min(deadline_, unit.slots[slot].deadline);
}

void Ahci::ring() {
    if (state_ != State::Ready) return;
    for (Unit& unit : units())
        if (unit.phase == Phase::Run && unit.prepared != 0) issue(unit);
}

void Ahci::issue(Unit& unit) {
    __atomic_thread_fence(__ATOMIC_RELEASE); // lists and tables are in memory
    if (unit.is_queued && (unit.prepared & unit.flush) == 0) write_port(unit.port, PxSACT, unit.prepared);
    write_port(unit.port, PxCI, unit.prepared);
    unit.issued |= std::exchange(unit.prepared, 0);
}

void Ahci::build(Unit const& unit, u32 slot, Fis const& fis, bool is_write, std::span<Piece const> pieces) {
    u64 const at = table_at(unit, slot);
    u8* const table = shared_.bytes.data() + at;
    std::memset(table, 0, table_header);
    std::memcpy(table, &fis, sizeof(Fis));
    u32 count = 0;
    for (Piece const& piece : pieces) {
        Region const region{.address = piece.address, .reserved = 0, .last = piece.size - 1};
        std::memcpy(table + table_header + count * sizeof(Region), &region, sizeof(Region));
        count++;
    }
    Header const header{.flags = static_cast<u32>(sizeof(Fis) / 4) | (is_write ? header_is_write : 0) | count << 16,
                        .moved = 0,
                        .table = shared_.address + at,
                        .reserved = {}};
    std::memcpy(shared_.bytes.data() + list_at(unit) + slot * sizeof(Header), &header, sizeof(Header));
}

void Ahci::build_transfer(Unit const& unit, u32 slot, Command const& command) {
    bool const is_write = command.operation == Operation::Write;
    u64 bytes = 0;
    for (Piece const& piece : command.pieces)
        bytes += piece.size;
    auto const count = static_cast<u32>(bytes / facts_[command.disk].sector_size);
    Fis fis{};
    fis.device = device_lba;
    for (u32 i = 0; i < 3; i++) {
        fis.lba_low[i] = static_cast<u8>(command.sector >> i * 8);
        fis.lba_high[i] = static_cast<u8>(command.sector >> (24 + i * 8));
    }
    auto const low = static_cast<u8>(count), high = static_cast<u8>(count >> 8);
    if (unit.is_queued) { // the count is where features are, and the tag where the count is. [ata/8-acs] 7.38
        fis.command = is_write ? WRITE_FPDMA_QUEUED : READ_FPDMA_QUEUED;
        fis.features_low = low;
        fis.features_high = high;
        fis.count_low = static_cast<u8>(slot << 3);
    } else {
        fis.command = is_write ? WRITE_DMA_EXT : READ_DMA_EXT;
        fis.count_low = low;
        fis.count_high = high;
    }
    build(unit, slot, fis, is_write, command.pieces);
}

void Ahci::build_simple(Unit const& unit, u32 slot, u8 command, std::span<Piece const> pieces) {
    Fis fis{};
    fis.command = command;
    build(unit, slot, fis, false, pieces);
}

void Ahci::say(Unit const& unit, std::string_view what) {
    char text[160];
    function_.log(lib::format_to(text, "the disk at port {}: {}", unit.port, what));
}

void Ahci::write_address(u32 port, u32 offset, u64 address) {
    write_port(port, offset, static_cast<u32>(address));
    write_port(port, offset + 4, static_cast<u32>(address >> 32));
}

} // namespace block
