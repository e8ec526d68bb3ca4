// SPDX-License-Identifier: MIT
#pragma once
// The machine's controllers of disks, and for whom each command under way was begun.
//
// Every command gets a tag that no other one had for long, so that an end that a driver reports late or twice meets
// nobody. Nothing here waits: a command that is not taken is tried again after the next poll().
#include <block/controller.hpp>
#include <lib/service_board.hpp>

namespace storage {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

class Controllers {
public:
    static constexpr u32 max_commands = 128; // of one controller, under way at once

    // A part of the service that submits commands.
    class Client {
    public:
        // The command that was submitted with this token has ended. Called inside of poll(), once for each.
        virtual void ended(u32 token, block::Status status) = 0;

    protected:
        ~Client() = default;
    };

    Controllers() = default;
    Controllers(Controllers const&) = delete;
    Controllers& operator=(Controllers const&) = delete;

    // `number` is the one of the board. `bounce` is a part of the memory that both see, for copies; it begins at a page
    // for both. The driver does not use it, and both outlive this object.
    void add(u32 number, block::Controller& controller, block::Function::Shared bounce);

    // Brings the controllers forward that `events` names, whose deadline has come, or that had more to say; tells the
    // clients what has ended. With event_board all of them.
    void poll(u64 events, u64 now);
    // When poll() must be called at the latest.
    u64 deadline() const;

    // All numbers of controllers are below it.
    u32 end() const { return end_; }
    // Null: there is none of this number.
    block::Controller* find(u32 number) const { return number < units_.size() ? units_[number].controller : nullptr; }
    block::Function::Shared bounce(u32 number) const { return units_[number].bounce; }
    // Gives a command to an existing controller; its tag is chosen here. False: nothing was taken.
    [[nodiscard]] bool submit(u32 number, Client& client, u32 token, block::Command command, u64 now);
    // Tells the devices of what was submitted since the last call.
    void ring();

private:
    struct Slot {
        Client* client = nullptr; // null: free
        u32 token = 0, tag = 0;
    };
    struct Unit {
        block::Controller* controller = nullptr;
        block::Function::Shared bounce{};
        bool has_more = false; // ended commands
        bool must_ring = false;
        u32 free_count = 0, generation = 0;
        std::array<u8, max_commands> free{};
        std::array<Slot, max_commands> slots{};
    };
    // Those up to the last one that has a controller: each turn of the service looks at all of them.
    std::span<Unit> used() { return std::span(units_).first(end_); }
    std::span<Unit const> used() const { return std::span(units_).first(end_); }
    static void poll(Unit& unit, u64 now);
    static void end(Unit& unit, block::Ended const& ended);

    std::array<Unit, lib::service::max_controllers> units_{};
    u32 end_ = 0; // of those in use
};

} // namespace storage
