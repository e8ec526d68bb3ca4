// SPDX-License-Identifier: MIT
#pragma once
// The machine's disks in tests: memory as devices see it, and a controller that fails the test on every command that
// its limits forbid. Commands end when, and in which order, the test says.
#include "driver.hpp"

#include <cstdio>
#include <cstdlib>
#include <functional>

namespace storage_test {

// What a broken promise means: a fuzzer ends, and unit tests put a failure in its place.
inline void (*on_broken_promise)(char const*) = [](char const* what) {
    std::fprintf(stderr, "broken promise: %s\n", what);
    std::abort();
};
inline void demand(bool condition, char const* what) {
    if (!condition) on_broken_promise(what);
}

// What is where for devices.
class DeviceSpace {
public:
    void add(u64 address, std::span<u8> bytes) { regions_.push_back({address, bytes}); }
    u8* at(u64 address, u64 size) const {
        for (Region const& region : regions_)
            if (address >= region.address && size <= region.bytes.size() &&
                address - region.address <= region.bytes.size() - size)
                return region.bytes.data() + (address - region.address);
        return nullptr;
    }

private:
    struct Region {
        u64 address;
        std::span<u8> bytes;
    };
    std::vector<Region> regions_;
};

// Outlives the instances of the service.
struct MachineDisk {
    block::DiskFacts facts;
    std::vector<u8> bytes;

    static constexpr u32 usual_id = 100;
    MachineDisk(u64 sectors, u32 size, u32 id = usual_id)
        : facts{sectors, size, false, true, {}, {}, id}, bytes(sectors * size) {}
};

class FakeController final : public block::Controller {
public:
    struct UnderWay {
        block::Command command;
        std::vector<block::Piece> pieces;
        u32 number; // of commands before it
    };
    State now_state = State::Ready;
    block::Limits now_limits{128 * lib::KiB, 32, 4, lib::page_size, ~u64{0}, 8};
    bool takes = true;      // not while it recovers
    bool may_share = false; // memory of a guest that gives the same to two requests
    bool ends = false;      // all commands at each poll, the last one first
    u64 next_call = never;
    std::vector<UnderWay> under_way;
    std::vector<block::Ended> ended;
    u32 flushes = 0, commands = 0, refused = 0, not_rung = 0;
    u64 largest = 0;

    FakeController(DeviceSpace const& space, std::vector<MachineDisk*> disks) : space_(space), disks_(disks) {
        for (MachineDisk const* disk : disks)
            facts_.push_back(disk->facts);
    }

    // Does what a command under way says, and ends it.
    void end(std::size_t index, bool is_good = true) {
        UnderWay const one = under_way[index];
        under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(index));
        if (is_good) move(one, ~u64{0});
        ended.push_back({one.command.tag, is_good ? block::Status::Good : block::Status::Failed});
    }
    void end_all(bool is_good = true) {
        while (!under_way.empty())
            end(under_way.size() - 1, is_good);
    }
    // Moves the first bytes only, as when it stops in the middle.
    void move(UnderWay const& one, u64 most) {
        if (one.command.operation == block::Operation::Flush) return;
        MachineDisk& disk = *disks_[one.command.disk];
        u8* at = disk.bytes.data() + one.command.sector * disk.facts.sector_size;
        for (block::Piece const& piece : one.pieces) {
            u64 const size = std::min<u64>(piece.size, most);
            u8* const memory = space_.at(piece.address, piece.size);
            if (memory == nullptr || size == 0) return;
            if (one.command.operation == block::Operation::Read)
                std::memcpy(memory, at, size);
            else
                std::memcpy(at, memory, size);
            at += size;
            most -= size;
        }
    }

    u32 poll(u64, std::span<block::Ended> out) override {
        if (ends) end_all();
        u32 count = 0;
        for (; count < out.size() && !ended.empty(); count++) {
            out[count] = ended.front();
            ended.erase(ended.begin());
        }
        return count;
    }
    u64 deadline() const override { return ends && !under_way.empty() ? 0 : next_call; }
    State state() const override { return now_state; }
    std::string_view failure() const override { return "is broken"; }
    std::span<block::DiskFacts const> disks() const override { return facts_; }
    block::Limits limits() const override { return now_limits; }
    bool submit(block::Command const& command, u64) override {
        demand(now_state == State::Ready, "a command for a controller that is not ready");
        if (!takes || under_way.size() == now_limits.depth) {
            refused++;
            return false;
        }
        check(command);
        under_way.push_back({command, {command.pieces.begin(), command.pieces.end()}, commands});
        commands++;
        not_rung++;
        if (command.operation == block::Operation::Flush) flushes++;
        return true;
    }
    void ring() override {
        demand(not_rung != 0, "a needless ring");
        not_rung = 0;
    }

private:
    void check(block::Command const& command) {
        for (UnderWay const& other : under_way)
            demand(other.command.tag != command.tag, "a tag twice");
        demand(command.disk < disks_.size(), "a disk that is not there");
        if (command.operation == block::Operation::Flush) return demand(command.pieces.empty(), "a flush with data");
        demand(command.operation == block::Operation::Read || !disks_[command.disk]->facts.is_read_only, "no write");
        demand(!command.pieces.empty() && command.pieces.size() <= now_limits.most_pieces, "number of pieces");
        u64 size = 0;
        for (std::size_t i = 0; i < command.pieces.size(); i++) {
            check_piece(command, i);
            size += command.pieces[i].size;
        }
        block::DiskFacts const& facts = disks_[command.disk]->facts;
        demand(size != 0 && size <= now_limits.most_bytes && size % facts.sector_size == 0, "size of a command");
        u64 const sectors = size / facts.sector_size;
        demand(command.sector <= facts.sectors && sectors <= facts.sectors - command.sector, "beyond the disk");
        largest = std::max(largest, size);
    }
    void check_piece(block::Command const& command, std::size_t index) {
        block::Piece const& piece = command.pieces[index];
        block::Limits const& limits = now_limits;
        demand(piece.size != 0 && piece.size % limits.alignment == 0, "size of a piece");
        demand(piece.address % limits.alignment == 0, "alignment of a piece");
        u64 const end = piece.address + piece.size;
        demand(end - 1 <= limits.highest_address, "too high an address");
        demand(index == 0 || piece.address % limits.granule == 0, "begin of a piece");
        demand(index + 1 == command.pieces.size() || end % limits.granule == 0, "end of a piece");
        demand(space_.at(piece.address, piece.size) != nullptr, "memory of nobody");
        // Of two commands under way, only readers of memory may share it.
        for (UnderWay const& other : under_way)
            for (block::Piece const& theirs : other.pieces) {
                bool const is_read =
                    command.operation == block::Operation::Read || other.command.operation == block::Operation::Read;
                bool const is_apart = theirs.address >= end || piece.address >= theirs.address + theirs.size;
                demand(is_apart || !is_read || may_share, "memory of another command");
            }
    }

    DeviceSpace const& space_;
    std::vector<MachineDisk*> disks_;
    std::vector<block::DiskFacts> facts_;
};

// A machine with one controller, whose driver begins again with each instance of the service.
class DiskWorld {
public:
    static constexpr u64 bounce_at = 0x20'0000;

    World world;
    DeviceSpace space;
    std::vector<MachineDisk*> disks;
    std::unique_ptr<FakeController> controller;
    std::function<void(FakeController&)> prepare = [](FakeController&) {}; // each new one
    std::vector<u64> bounce;

    explicit DiskWorld(u64 bounce_size = 16 * lib::KiB) : bounce(bounce_size / 8) {
        space.add(bounce_at, bounce_bytes());
        world.connect = [this](storage::Controllers& controllers) {
            controller = std::make_unique<FakeController>(space, disks);
            prepare(*controller);
            std::ranges::fill(bounce, 0);
            controllers.add(0, *controller, {bounce_bytes(), bounce_at});
        };
    }
    std::span<u8> bounce_bytes() { return {reinterpret_cast<u8*>(bounce.data()), bounce.size() * 8}; }
    // Makes a guest's disk a part of a disk of the machine. Devices find its memory in pieces of `piece` bytes, the
    // last one first, with gaps between them.
    void use_disk(u32 device, u64 begin, u64 size, u64 piece = 0x4000, u64 address = 0x1000'0000) {
        service::DeviceEntry& entry = world.board->devices[device];
        entry.medium_kind = service::MediumKind::Disk;
        entry.controller = 0;
        entry.unit = MachineDisk::usual_id;
        entry.medium_begin = begin;
        entry.medium_size = size;
        entry.ram_piece_count = 0;
        address += device * u64{0x1000'0000};
        Guest& guest = *world.guests[device];
        for (u32 i = 0; i < entry.ram_area_count; i++)
            for (u64 done = 0; done < entry.ram[i].size; done += piece) {
                u32 const number = entry.ram_piece_count++;
                u64 const base = entry.ram[i].base + done, rest = std::min(piece, entry.ram[i].size - done);
                u64 const at = address + (service::max_ram_pieces - number) * 2 * piece;
                entry.pieces[number] = {base, rest, at};
                space.add(at, {guest.bytes() + base, rest});
            }
    }
    void interrupt() { world.events |= service::event_controller(0); }
    // Serves until the service sleeps and nothing is under way. Commands end in an order that `choose` says.
    void settle(std::function<std::size_t(std::size_t)> const& choose = [](std::size_t count) { return count - 1; }) {
        for (u32 i = 0; i < 10'000; i++) {
            world.run();
            if (controller->under_way.empty() && controller->ended.empty()) return;
            if (!controller->under_way.empty()) controller->end(choose(controller->under_way.size()));
            interrupt();
        }
        demand(false, "it does not end");
    }
};

} // namespace storage_test
