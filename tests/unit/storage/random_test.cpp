// SPDX-License-Identifier: MIT
// Random requests of several guests, in buffers of any shape, whose commands end in any order, while the service dies
// and comes back: each request is given back once, in its turn, and all data is right.
#include "disks.hpp"

#include <deque>
#include <gtest/gtest.h>
#include <random>

namespace {

using namespace storage_test;

constexpr u32 devices = 2, queues = 2, slots = 4;
constexpr u64 zone_size = 32 * lib::KiB, part_size = queues * slots * zone_size;

struct Shape {
    char const* name;
    u32 sector_size;
    block::Limits limits;
    bool has_event_index;
};

class Workload {
public:
    DiskWorld machine;
    World& world = machine.world;
    u64 given_back = 0;

    Workload(Shape const& shape, u32 seed)
        : shape_(shape), random_(seed), disk_(lib::MiB / shape.sector_size, shape.sector_size) {
        machine.disks = {&disk_};
        machine.prepare = [this](FakeController& made) { made.now_limits = shape_.limits; };
        for (std::size_t i = 0; i < disk_.bytes.size(); i++)
            disk_.bytes[i] = static_cast<u8>(i * 7 + i / 253);
        model_ = disk_.bytes;
        for (u32 i = 0; i < devices; i++) {
            world.add_disk(8, false, queues, 0x4'0000);
            machine.use_disk(i, begin(i), part_size, 0x8000);
            for (u32 queue = 0; queue < queues; queue++) {
                drivers_.emplace_back(world, i, queue, u16{64});
                drivers_.back().start(shape.has_event_index);
            }
        }
        taken_.resize(drivers_.size());
        busy_.resize(drivers_.size());
        world.start();
    }
    // One thing that happens.
    void step() {
        switch (below(8)) {
        case 0:
        case 1:
        case 2: return add(below(static_cast<u32>(drivers_.size())));
        case 3:
        case 4:
            if (!controller().under_way.empty()) {
                controller().end(below(static_cast<u32>(controller().under_way.size())));
                machine.interrupt();
            }
            return;
        case 5: controller().takes = below(4) != 0; return machine.interrupt();
        default: world.turn(); return take_used();
        }
    }
    // The instance dies. What its controller was doing is done, or not, or in parts.
    void die() {
        for (FakeController::UnderWay const& one : controller().under_way)
            controller().move(one, below(3) == 0 ? 0 : below(2) == 0 ? ~u64{0} : below(5000));
        world.start();
    }
    void finish() {
        controller().takes = true;
        machine.interrupt();
        for (u32 i = 0; i < 1000 && !is_idle(); i++) {
            machine.settle([this](std::size_t count) { return below(static_cast<u32>(count)); });
            take_used();
        }
        EXPECT_TRUE(is_idle());
        EXPECT_TRUE(disk_.bytes == model_);
        for (u32 i = 0; i < devices; i++)
            EXPECT_EQ(world.misuses[i], 0U);
    }
    u32 below(u32 count) { return static_cast<u32>(random_() % count); }

private:
    struct Request {
        u32 slot, type;
        u16 head;
        std::vector<Buffer> data;
        std::vector<u8> expected;
    };
    FakeController& controller() { return *machine.controller; }
    static u64 begin(u32 device) { return 64 * lib::KiB + device * u64{0x8'0000}; }
    bool is_idle() const {
        return std::ranges::all_of(taken_, [](auto const& queue) { return queue.empty(); });
    }
    // Buffers for `size` bytes, in both areas of the slot.
    std::vector<Buffer> scatter(u32 number, u32 size, bool is_writable) {
        constexpr u32 grains[] = {4096, 512, 4, 1};
        u32 const grain = grains[below(4)];
        u64 low = 0x1'0000 + number * u64{0x6000} + (below(2) == 0 ? 0 : below(1024) / grain * grain);
        u64 high = Guest::high_area + number * u64{0x8000} + below(3) * u64{512};
        std::vector<Buffer> buffers;
        while (size != 0) {
            u32 part = buffers.size() == 8 ? size : std::min(size, (below(3000) / grain + 1) * grain);
            u64& at = below(4) == 0 ? high : low;
            buffers.push_back({at, part, is_writable});
            at += part + (below(2) == 0 ? 0 : (grain == 1 ? below(9) : grain));
            size -= part;
        }
        return buffers;
    }
    void add(u32 which) {
        u32 const slot = below(slots), device = which / queues, queue = which % queues;
        if ((busy_[which] & 1U << slot) != 0) return;
        busy_[which] |= 1U << slot;
        Guest& guest = *world.guests[device];
        u32 const number = queue * slots + slot, unit = shape_.sector_size / 512;
        constexpr u32 types[] = {IN, OUT, IN, OUT, OUT, FLUSH, WRITE_ZEROES};
        Request request{slot, types[below(7)], 0, {}, {}};
        u32 const count = (below(16 / unit) + 1) * unit;
        u64 const first = number * zone_size / sector + below(3) * u64{unit};
        u64 const header = 0x8000 + number * u64{64}, ranges = header + 16;
        auto const place = model_.begin() + static_cast<std::ptrdiff_t>(begin(device) + first * sector);
        if (request.type == IN || request.type == OUT)
            request.data = scatter(number, count * u32{sector}, request.type == IN);
        if (request.type == IN) request.expected.assign(place, place + count * std::ptrdiff_t{sector});
        auto to = place;
        for (Buffer const& buffer : request.data)
            for (u64 at = buffer.at; at < buffer.at + buffer.size; at++) {
                guest.put<u8>(at, static_cast<u8>(random_()));
                if (request.type == OUT) *to++ = guest.get<u8>(at);
            }
        std::vector<Buffer> chain = {{header, 16, false}};
        chain.insert(chain.end(), request.data.begin(), request.data.end());
        if (request.type == WRITE_ZEROES) {
            guest.put<u64>(ranges, first);
            guest.put<u64>(ranges + 8, count);
            chain.push_back({ranges, 16, false});
            std::fill_n(place, count * sector, u8{0});
        }
        chain.push_back({header + 40, 1, true});
        guest.put<u8>(header + 40, untouched);
        drivers_[which].put_header(header, request.type, first);
        request.head = drivers_[which].add(chain);
        guest.put<u16>(drivers_[which].used_event(), drivers_[which].used_index);
        drivers_[which].ring();
        taken_[which].push_back(request);
    }
    void take_used() {
        for (u32 which = 0; which < drivers_.size(); which++)
            while (drivers_[which].has_used()) {
                ASSERT_FALSE(taken_[which].empty());
                check(which, taken_[which].front());
                taken_[which].pop_front();
            }
    }
    void check(u32 which, Request const& request) {
        Guest& guest = *world.guests[which / queues];
        auto const used = drivers_[which].next_used();
        ASSERT_EQ(used.id, request.head);
        EXPECT_EQ(used.written, request.expected.size() + 1);
        EXPECT_EQ(guest.get<u8>(0x8000 + (which % queues * slots + request.slot) * u64{64} + 40), OK);
        std::vector<u8> got;
        for (Buffer const& buffer : request.data) {
            got.insert(got.end(), guest.bytes() + buffer.at, guest.bytes() + buffer.at + buffer.size);
            guest.fill(buffer.at, 0xee, buffer.size); // as its driver uses it for something else
        }
        if (request.type == IN) {
            EXPECT_TRUE(got == request.expected);
        }
        busy_[which] &= ~(1U << request.slot);
        given_back++;
    }

    Shape shape_;
    std::mt19937 random_;
    MachineDisk disk_;
    std::vector<u8> model_;
    std::deque<Driver> drivers_;
    std::vector<std::deque<Request>> taken_;
    std::vector<u32> busy_;
};

struct RandomTest : testing::TestWithParam<Shape> {};

TEST_P(RandomTest, AllDataIsRightAndInOrder) {
    for (u32 seed = 0; seed < 8 && !HasFailure(); seed++) {
        SCOPED_TRACE(seed);
        Workload workload(GetParam(), seed);
        for (u32 i = 0; i < 2000 && !HasFailure(); i++)
            workload.step();
        workload.finish();
        EXPECT_GT(workload.given_back, 100U);
    }
}

TEST_P(RandomTest, ServiceMayDieAfterAnyStep) {
    for (u32 steps = 1; steps < 160 && !HasFailure(); steps += 3) {
        SCOPED_TRACE(steps);
        Workload workload(GetParam(), 99 + steps % 2);
        for (u32 i = 0; i < steps && !HasFailure(); i++)
            workload.step();
        workload.die();
        workload.finish();
    }
}

TEST_P(RandomTest, ServiceMayDieAgainAndAgain) {
    for (u32 seed = 100; seed < 108 && !HasFailure(); seed++) {
        SCOPED_TRACE(seed);
        Workload workload(GetParam(), seed);
        for (u32 i = 0; i < 2000 && !HasFailure(); i++) {
            workload.step();
            if (workload.below(20) == 0) workload.die();
        }
        workload.finish();
        EXPECT_GT(workload.given_back, 50U);
    }
}

constexpr block::Limits like_nvme{128 * lib::KiB, 33, 4, 4096, ~u64{0}, 32};
constexpr block::Limits like_ahci{4 * lib::MiB, 56, 2, 1, ~u64{0}, 31};
constexpr block::Limits like_ide{64 * lib::KiB, 8, 4, 1, 0xffff'ffff, 1};
constexpr block::Limits narrow{4096, 1, 512, 4096, 0x1020'0000, 3};

INSTANTIATE_TEST_SUITE_P(Controllers, RandomTest,
                         testing::Values(Shape{"Nvme", 512, like_nvme, true}, Shape{"Nvme4096", 4096, like_nvme, false},
                                         Shape{"Ahci", 512, like_ahci, false}, Shape{"Ide", 512, like_ide, true},
                                         Shape{"Narrow", 4096, narrow, true}),
                         [](auto const& info) { return info.param.name; });

} // namespace
