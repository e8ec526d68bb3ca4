// SPDX-License-Identifier: MIT
#pragma once
// A NIC of the machine that takes and gives frames as net::NetDevice says, for tests of what stands before it.
#include "nics.hpp"
#include <deque>
#include <network/uplink.hpp>

namespace network_test {

class Outside : public net::NetDevice {
public:
    static constexpr u32 largest_frame = 1518, most_given = 127; // frames between two calls of ring()

    virtual ~Outside() = default;

    u32 poll(u64 now, bool is_interrupted, std::span<u32>) override {
        polls++;
        interrupts += is_interrupted ? 1 : 0;
        next_deadline = now + 500;
        return 0;
    }
    u64 deadline() const override { return next_deadline; }
    State state() const override { return now_state; }
    std::string_view failure() const override { return "hangs"; }
    net::Address address() const override { return mac; }
    bool has_link() const override { return is_up; }
    net::Limits limits() const override { return {17, largest_frame, 32, ~u64{0}}; }
    net::Statistics const& statistics() const override { return counts; }
    bool transmit(std::span<net::Piece const>, u32, u64) override { return false; }
    std::span<u8> frame_room() override {
        if (!is_up || rooms_left == 0) return {};
        room.assign(largest_frame, 0xee);
        return room;
    }
    void transmit_room(u32 size, u64) override {
        rooms_left--;
        ASSERT_LE(size, room.size());
        under_way.emplace_back(room.begin(), room.begin() + size);
    }
    std::span<u8 const> next_frame() override {
        held.clear();
        if (incoming.empty() || given == most_given) return {};
        given++;
        held = incoming.front();
        incoming.pop_front();
        return held;
    }
    void ring() override {
        held.clear();
        given = 0;
        rings++;
        sent.insert(sent.end(), under_way.begin(), under_way.end());
        under_way.clear();
    }

    State now_state = State::Ready;
    bool is_up = true;
    net::Address mac{};
    u32 rooms_left = 1000, polls = 0, interrupts = 0, rings = 0, given = 0;
    u64 next_deadline = 0;
    Bytes room, held;
    std::deque<Bytes> incoming;
    std::vector<Bytes> under_way, sent;
    net::Statistics counts;
};

inline constexpr Mac outside_station{0x52, 0x54, 0x99, 0, 0, 1};

} // namespace network_test
