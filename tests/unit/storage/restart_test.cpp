// SPDX-License-Identifier: MIT
// The service dies between any two instructions, and the next instance goes on: no request is lost or done twice.
//
// While it serves, the CPU's trap flag stops it after each instruction, and what has changed since the last one in
// guest memory, medium or record is a state in which it may have died. What a controller has under way then is gone.
#include "disks.hpp"

#include <csignal>
#include <gtest/gtest.h>

namespace {

using namespace storage_test;

constexpr u64 watched_ram = 0x1800, header_at = 0x1000, status_at = 0x1100, data_at = 0x1200;
constexpr u32 requests = 6, data_size = 64; // bytes of a sector that the test looks at: the rest is the same

struct State {
    std::array<u8, watched_ram> ram;
    std::array<u8, 4 * sector> medium;
    service::QueueRecord record;
};

// Only one at a time: a signal has no context.
struct Recorder {
    World* world = nullptr;
    std::span<u8 const> medium;
    std::vector<State> states;
    std::size_t count = 0;
    u64 steps = 0;
    bool overflowed = false;

    void look() {
        steps++;
        Guest& guest = *world->guests[0];
        service::QueueRecord const& record = world->records->queues[0][0];
        if (count != 0) {
            State const& last = states[count - 1];
            if (std::memcmp(&last.record, &record, sizeof(record)) == 0 &&
                std::memcmp(last.ram.data(), guest.bytes(), watched_ram) == 0 &&
                std::memcmp(last.medium.data(), medium.data(), sizeof(last.medium)) == 0)
                return;
        }
        if (count == states.size()) {
            overflowed = true;
            return;
        }
        State& next = states[count++];
        std::memcpy(next.ram.data(), guest.bytes(), watched_ram);
        std::memcpy(next.medium.data(), medium.data(), sizeof(next.medium));
        next.record = record;
    }
};
Recorder* recorder = nullptr;

void on_step(int) { recorder->look(); }

constexpr u64 trap_flag = 0x100;

enum class On : u8 { Memory, Disk, BouncingDisk };

struct Way {
    char const* name;
    bool has_event_index;
    u16 start_at;  // both indices
    bool is_first; // the record is about an older queue
    On medium;
};

struct RestartTest : testing::TestWithParam<Way> {
    DiskWorld machine;
    World& world = machine.world;
    Guest& guest = world.add_disk(4);
    MachineDisk disk{4, sector};
    Driver driver{world, 0, 0, 16};
    bool const is_disk = GetParam().medium != On::Memory;
    std::vector<u8>& medium = is_disk ? disk.bytes : guest.medium;
    u16 const start_at = GetParam().start_at;

    static u8 value(u32 request) { return static_cast<u8>(0x10 + request); }
    static u64 data(u32 request) { return data_at + request * u64{0x100}; }

    struct Step {
        u32 type;
        u64 first;
    };
    // Writes to sectors 0, 1 and 0 again, a read of each between, zeroes.
    static constexpr Step memory_steps[requests] = {{OUT, 0}, {OUT, 1}, {IN, 0}, {OUT, 0}, {WRITE_ZEROES, 2}, {IN, 1}};
    // A disk does them at the same time: each has a sector of its own.
    static constexpr Step disk_steps[requests] = {{OUT, 0}, {OUT, 1}, {IN, 3}, {FLUSH, 0}, {WRITE_ZEROES, 2}, {IN, 3}};
    Step const* const steps = is_disk ? disk_steps : memory_steps;

    RestartTest() {
        if (!is_disk) {
            world.connect = {};
            return;
        }
        machine.disks = {&disk};
        machine.use_disk(0, 0, 4 * sector);
        machine.prepare = [](FakeController& made) {
            made.ends = true;
            made.now_limits.granule = GetParam().medium == On::Disk ? 1 : lib::page_size;
        };
    }
    bool medium_is(u64 first, u8 value) const {
        auto const begin = medium.begin() + static_cast<std::ptrdiff_t>(first * sector);
        return std::all_of(begin, begin + sector, [value](u8 byte) { return byte == value; });
    }

    // The requests stand in the ring; nothing is served yet.
    void set_up() {
        driver.start(GetParam().has_event_index, true);
        driver.available_index = driver.used_index = start_at;
        guest.put<u16>(driver.used() + 2, start_at);
        guest.put<u16>(driver.used_event(), start_at);
        std::ranges::fill(medium, u8{0x99});
        if (GetParam().is_first)
            world.records->queues[0][0] = {driver.entry().epoch + 1, 7, 7};
        else
            world.records->queues[0][0] = {driver.entry().epoch, start_at, start_at};
        guest.put<u16>(driver.available() + 2, start_at);
        for (u32 i = 0; i < requests; i++) {
            u64 const header = header_at + i * u64{16};
            driver.put_header(header, steps[i].type, steps[i].first);
            guest.put<u8>(status_at + i, untouched);
            std::vector<Buffer> chain = {{header, 16, false}};
            if (steps[i].type == WRITE_ZEROES) {
                guest.put<u64>(data(i), steps[i].first);
                guest.put<u64>(data(i) + 8, 1);
                chain.push_back({data(i), 16, false});
            } else if (steps[i].type != FLUSH) {
                guest.fill(data(i), value(i), data_size);
                for (u32 j = 0; j < sector / data_size; j++)
                    chain.push_back({data(i), data_size, steps[i].type == IN});
            }
            chain.push_back({status_at + i, 1, true});
            add_at_own_table(i, chain);
        }
    }
    // The queue has too few descriptors for all chains: each has an indirect table of its own, in memory that is not
    // watched, as only the driver writes it.
    void add_at_own_table(u32 request, std::vector<Buffer> const& chain) {
        driver.add_indirect(0x8000 + request * u64{0x400}, chain);
    }
    void load(State const& state) {
        std::memcpy(guest.bytes(), state.ram.data(), watched_ram);
        std::memcpy(medium.data(), state.medium.data(), sizeof(state.medium));
        world.records->queues[0][0] = state.record;
        driver.used_index = start_at;
        std::memset(world.interrupts, 0, sizeof(world.interrupts));
    }
    // Takes what was given back, as a driver does: what it got must be right, and then it uses the buffer for something
    // else, which a request that is done twice writes to the medium.
    void take_used() {
        while (driver.has_used()) {
            u32 const request = static_cast<u16>(driver.used_index - start_at);
            ASSERT_LT(request, requests);
            auto const used = driver.next_used();
            EXPECT_EQ(used.id, request);
            EXPECT_EQ(used.written, steps[request].type == IN ? sector + 1 : 1);
            EXPECT_EQ(guest.get<u8>(status_at + request), OK);
            if (steps[request].type == IN) {
                u8 const expected = is_disk ? 0x99 : value(request == 2 ? 0 : 1);
                EXPECT_TRUE(guest.is_filled(data(request), expected, data_size));
            }
            guest.fill(data(request), 0xee, data_size);
        }
    }
    void expect_all_done() {
        take_used();
        EXPECT_EQ(static_cast<u16>(driver.used_index - start_at), requests);
        EXPECT_TRUE(medium_is(0, value(is_disk ? 0 : 3)));
        EXPECT_TRUE(medium_is(1, value(1)));
        EXPECT_TRUE(medium_is(2, 0));
        EXPECT_TRUE(medium_is(3, 0x99));
        EXPECT_EQ(world.misuses[0], 0U);
        EXPECT_GE(world.interrupts[0][0], 1U);
    }
    // Serves all, and keeps every state on the way.
    void record(Recorder& to) {
        to.world = &world;
        to.medium = medium;
        to.count = 0;
        to.states.resize(4000);
        recorder = &to;
        world.start();
        struct sigaction action = {}, old = {};
        action.sa_handler = on_step;
        ASSERT_EQ(sigaction(SIGTRAP, &action, &old), 0);
        __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | trap_flag);
        // A disk needs some turns; then nothing changes any more.
        for (u32 i = 0; i < (is_disk ? 8 : 1); i++)
            world.turn();
        __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~trap_flag);
        ASSERT_EQ(sigaction(SIGTRAP, &old, nullptr), 0);
        ASSERT_FALSE(to.overflowed);
        ASSERT_GT(to.steps, 5'000U); // the flag works here
    }
    void expect_right_after(State const& state) {
        load(state);
        take_used();
        guest.put<u16>(driver.used_event(), driver.used_index); // none wanted for what was taken
        world.start();
        world.run();
        expect_all_done();
    }
    bool is_given_back_and_not_noted(State const& state) {
        u16 index;
        std::memcpy(&index, state.ram.data() + driver.used() + 2, 2);
        return state.record.epoch == driver.entry().epoch && index != state.record.used_index;
    }
};

TEST_P(RestartTest, NothingIsLostOrDoneTwiceWhereverTheServiceDies) {
    set_up();
    Recorder first;
    record(first);
    ASSERT_FALSE(HasFatalFailure());
    expect_all_done();
    // Sectors, statuses, entries, indices and records: far more states than requests.
    ASSERT_GT(first.count, requests * 5);
    u32 between = 0;
    for (std::size_t i = 0; i < first.count && !HasFailure(); i++) {
        SCOPED_TRACE(i);
        between += is_given_back_and_not_noted(first.states[i]) ? 1 : 0;
        expect_right_after(first.states[i]);
    }
    EXPECT_EQ(between, requests);
}

struct SecondRestartTest : RestartTest {};

TEST_P(SecondRestartTest, TheNextInstanceMayDieAnywhereToo) {
    set_up();
    Recorder first, second;
    record(first);
    ASSERT_FALSE(HasFatalFailure());
    u32 seen = 0;
    for (std::size_t i = 0; i < first.count && !HasFailure(); i++) {
        if (!is_given_back_and_not_noted(first.states[i]) || seen++ % (is_disk ? 5 : 2) != 0) continue;
        load(first.states[i]);
        take_used();
        second.steps = 0;
        record(second);
        ASSERT_FALSE(HasFatalFailure());
        for (std::size_t j = 0; j < second.count && !HasFailure(); j++) {
            SCOPED_TRACE(std::to_string(i) + " " + std::to_string(j));
            // What the driver had taken before the second instance came is as it was: it takes it again.
            load(second.states[j]);
            driver.used_index = static_cast<u16>(first.states[i].record.used_index + 1);
            take_used();
            world.start();
            world.run();
            expect_all_done();
        }
    }
    EXPECT_GT(seen, 2U);
}

// Indices of 65533 wrap around on the way.
INSTANTIATE_TEST_SUITE_P(Ring, RestartTest,
                         testing::Values(Way{"Flags", false, 65533, false, On::Memory},
                                         Way{"EventIndex", true, 65533, false, On::Memory},
                                         Way{"First", true, 0, true, On::Memory},
                                         Way{"Disk", false, 65533, false, On::Disk},
                                         Way{"DiskEventIndex", true, 65533, false, On::Disk},
                                         Way{"BouncingDisk", true, 0, true, On::BouncingDisk}),
                         [](auto const& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Ring, SecondRestartTest,
                         testing::Values(Way{"Flags", false, 65533, false, On::Memory},
                                         Way{"EventIndex", true, 65533, false, On::Memory},
                                         Way{"First", true, 0, true, On::Memory}, Way{"Disk", true, 0, true, On::Disk}),
                         [](auto const& info) { return info.param.name; });

struct RecordTest : testing::Test {
    World world;
    Guest& guest = world.add_disk(4);
    Driver driver{world, 0};

    void run_with(service::QueueRecord record) {
        world.records->queues[0][0] = record;
        world.start();
        world.run();
    }
};

TEST_F(RecordTest, RecordOfAnotherEpochIsOfNoConcern) {
    driver.start();
    driver.put_header(0x8000, FLUSH, 0);
    driver.add({{0x8000, 16, false}, {0x8100, 1, true}});
    run_with({driver.entry().epoch + 1, 7, 9});
    EXPECT_EQ(driver.device_index(), 1);
    EXPECT_EQ(world.misuses[0], 0U);
    EXPECT_EQ(world.records->queues[0][0].epoch, driver.entry().epoch);
    EXPECT_EQ(world.records->queues[0][0].next, 1);
    EXPECT_EQ(world.records->queues[0][0].used_index, 1);
}

TEST_F(RecordTest, RuinedRecordIsMisuse) {
    for (auto const& [next, used] : {std::pair<u16, u16>{1, 0}, {0, 1}, {7, 7}, {65534, 65534}, {0xffff, 0}}) {
        driver.start();
        u32 const before = world.misuses[0];
        run_with({driver.entry().epoch, next, used});
        EXPECT_EQ(world.misuses[0], before + 1) << next << ' ' << used;
    }
}

TEST_F(RecordTest, UsedIndexThatADriverChangedIsMisuseAndNothingWorse) {
    driver.start();
    guest.put<u16>(driver.used() + 2, 3);
    run_with({driver.entry().epoch, 1, 1});
    EXPECT_EQ(world.misuses[0], 1U);
}

TEST_F(RecordTest, AnInterruptThatMayBeLostIsSentAgain) {
    driver.start();
    run_with({driver.entry().epoch, 0, 0});
    EXPECT_EQ(world.interrupts[0][0], 1U);
    world.ring(0);
    world.run();
    EXPECT_EQ(world.interrupts[0][0], 1U);
}

} // namespace
