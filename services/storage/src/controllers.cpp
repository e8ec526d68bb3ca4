// SPDX-License-Identifier: MIT
#include <algorithm>
#include <storage/controllers.hpp>

namespace storage {
namespace {

constexpr u32 rounds_of_a_poll = 8, ends_of_a_round = 32;

} // namespace

void Controllers::add(u32 number, block::Controller& controller, block::Function::Shared bounce) {
    if (number >= units_.size() || units_[number].controller != nullptr) return;
    Unit& unit = units_[number];
    unit.controller = &controller;
    end_ = std::max(end_, number + 1);
    unit.bounce = bounce;
    for (u32 i = 0; i < max_commands; i++)
        unit.free[i] = static_cast<u8>(max_commands - 1 - i);
    unit.free_count = max_commands;
}

void Controllers::poll(u64 events, u64 now) {
    bool const is_first = (events & lib::service::event_board) != 0;
    for (u32 i = 0; i < end_; i++) {
        Unit& unit = units_[i];
        if (unit.controller == nullptr) continue;
        bool const has_event = (events & lib::service::event_controller(i)) != 0;
        if (is_first || has_event || unit.has_more || unit.controller->deadline() <= now) poll(unit, now);
    }
}

void Controllers::poll(Unit& unit, u64 now) {
    std::array<block::Ended, ends_of_a_round> ended{};
    unit.has_more = true;
    for (u32 round = 0; round < rounds_of_a_poll; round++) {
        u32 const count = std::min(unit.controller->poll(now, ended), ends_of_a_round);
        for (block::Ended const& one : std::span(ended).first(count))
            end(unit, one);
        if (count < ends_of_a_round) {
            unit.has_more = false;
            return;
        }
    }
}

// An end of no command that is under way is a mistake of the driver.
void Controllers::end(Unit& unit, block::Ended const& ended) {
    Slot& slot = unit.slots[ended.tag % max_commands];
    if (slot.client == nullptr || slot.tag != ended.tag) return;
    Client& client = *slot.client;
    slot.client = nullptr;
    unit.free[unit.free_count++] = static_cast<u8>(ended.tag % max_commands);
    client.ended(slot.token, ended.status);
}

u64 Controllers::deadline() const {
    u64 first = block::Controller::never;
    for (Unit const& unit : used()) {
        if (unit.controller == nullptr) continue;
        first = std::min(first, unit.has_more ? 0 : unit.controller->deadline());
    }
    return first;
}

bool Controllers::submit(u32 number, Client& client, u32 token, block::Command command, u64 now) {
    Unit& unit = units_[number];
    if (unit.free_count == 0) return false;
    u32 const index = unit.free[unit.free_count - 1];
    command.tag = unit.generation * max_commands + index; // the generation wraps around with the tag
    if (!unit.controller->submit(command, now)) return false;
    unit.generation++;
    unit.free_count--;
    unit.slots[index] = {&client, token, command.tag};
    unit.must_ring = true;
    return true;
}

void Controllers::ring() {
    for (Unit& unit : used()) {
        if (!unit.must_ring) continue;
        unit.must_ring = false;
        unit.controller->ring();
    }
}

} // namespace storage
