// SPDX-License-Identifier: MIT
// The service dies between any two instructions, and the next instance goes on: the rings stay right. Each chain is
// given back once, in its turn; a frame that a driver was told is whole and was sent; none is lost.
//
// While it serves, the CPU's trap flag stops it after each instruction, and what has changed since the last one in the
// guests' memory or the records is a state in which it may have died.
#include "nics.hpp"

#include <csignal>

namespace {

using namespace network_test;

// The places of rings and buffers, close together, so that little has to be looked at after each instruction.
constexpr u64 watched = 0x2000, receive_at = 0xa80, place = 0x40, sent_at = 0x1a00;
constexpr u32 frames = 6, frame_size = 30, buffers = 16;

struct State {
    std::array<u8, watched> ram[2];
    service::Records records;
};

// Only one at a time: a signal has no context.
struct Recorder {
    World* world = nullptr;
    std::vector<State> states;
    u64 steps = 0;

    bool has_changed() const {
        State const& last = states.back();
        for (u32 i = 0; i < 2; i++)
            if (std::memcmp(last.ram[i].data(), world->guests[i]->bytes(), watched) != 0) return true;
        return std::memcmp(&last.records, world->records.get(), sizeof(last.records)) != 0;
    }
    void look() {
        steps++;
        if ((!states.empty() && !has_changed()) || states.size() == states.capacity()) return;
        State& next = states.emplace_back();
        for (u32 i = 0; i < 2; i++)
            std::memcpy(next.ram[i].data(), world->guests[i]->bytes(), watched);
        next.records = *world->records;
    }
};
Recorder* recorder = nullptr;

void on_step(int) { recorder->look(); }

constexpr u64 trap_flag = 0x100;

struct Way {
    char const* name;
    bool has_event_index;
    u16 start_at;    // all indices
    bool is_first;   // the records are about older queues
    u32 buffer_size; // 40: two for each frame
};

struct RestartTest : testing::TestWithParam<Way> {
    World world;
    Guest &sender = world.add_nic(), &receiver = world.add_nic();
    Ring tx{world, 0, transmit, 16}, rx{world, 1, receive, 16};
    u16 const start_at = GetParam().start_at;
    u32 taken = 0, next_frame = 0, doubled = 0;

    static Bytes frame(u32 number) {
        return make_frame(mac_of(1), mac_of(0), frame_size, static_cast<u8>(0x10 + number));
    }
    u32 buffers_of_a_frame() const {
        return (header_size + frame_size + GetParam().buffer_size - 1) / GetParam().buffer_size;
    }

    void start_at_index(Guest& guest, Ring& ring, u32 device, u32 queue) {
        ring.start(all_offloads, GetParam().has_event_index, true);
        ring.available_index = ring.used_index = start_at;
        for (u64 const at : {ring.used() + 2, ring.used_event(), ring.available() + 2})
            guest.put<u16>(at, start_at);
        service::QueueRecord& record = world.records->queues[device][queue];
        record = {ring.entry().epoch, start_at, start_at};
        if (GetParam().is_first) record = {ring.entry().epoch + 1, 7, 7};
    }
    // Everything stands in the rings; nothing is served yet.
    void set_up() {
        start_at_index(sender, tx, 0, transmit);
        start_at_index(receiver, rx, 1, receive);
        for (u32 i = 0; i < buffers; i++)
            rx.add({{receive_at + i * place, GetParam().buffer_size, true}});
        for (u32 i = 0; i < frames; i++) {
            u64 const at = sent_at + i * place;
            sender.fill(at, 0, header_size);
            sender.put_bytes(at + header_size, frame(i));
            tx.add({{at, header_size + frame_size, false}});
        }
    }
    void load(State const& state) {
        std::memcpy(sender.bytes(), state.ram[0].data(), watched);
        std::memcpy(receiver.bytes(), state.ram[1].data(), watched);
        *world.records = state.records;
        tx.used_index = rx.used_index = start_at;
        taken = next_frame = doubled = 0;
        std::memset(world.interrupts, 0, sizeof(world.interrupts));
    }
    // Takes what was given back, as drivers do, and uses the memory for something else.
    void take_used() {
        while (tx.has_used()) {
            u32 const number = static_cast<u16>(tx.used_index - start_at);
            ASSERT_LT(number, frames);
            auto const used = tx.next_used();
            EXPECT_EQ(used.id, number);
            EXPECT_EQ(used.written, 0U);
            sender.fill(sent_at + number * place, 0xee, place);
        }
        while (rx.has_used())
            ASSERT_NO_FATAL_FAILURE(take_frame());
    }
    void take_frame() {
        Bytes all;
        for (u32 i = 0; i < buffers_of_a_frame(); i++) {
            ASSERT_TRUE(rx.has_used()); // all buffers of a frame come at once
            auto const used = rx.next_used();
            EXPECT_EQ(used.id, taken);
            ASSERT_LE(used.written, GetParam().buffer_size);
            Bytes const part = receiver.get_bytes(receive_at + taken * place, used.written);
            all.insert(all.end(), part.begin(), part.end());
            receiver.fill(receive_at + taken * place, 0xdd, place);
            taken++;
        }
        EXPECT_EQ(all[10], buffers_of_a_frame());
        Bytes const bytes(all.begin() + header_size, all.end());
        if (bytes != frame(next_frame)) { // then the last instance sent some that were not noted
            u32 earlier = 0;
            while (earlier < next_frame && bytes != frame(earlier))
                earlier++;
            ASSERT_LT(earlier, next_frame) << "neither the next frame nor one before";
            doubled += next_frame - earlier;
            next_frame = earlier;
        }
        next_frame++;
    }
    void expect_all_done() {
        take_used();
        EXPECT_EQ(static_cast<u16>(tx.used_index - start_at), frames);
        bool const was_room = (frames + doubled) * buffers_of_a_frame() <= buffers;
        if (was_room) {
            EXPECT_EQ(next_frame, frames);
        }
        EXPECT_EQ(world.misuses[0] + world.misuses[1], 0U);
        EXPECT_GE(world.interrupts[0][transmit], 1U);
        EXPECT_GE(world.interrupts[1][receive], 1U);
    }
    // Serves all, and keeps every state on the way.
    void record(Recorder& to) {
        to.world = &world;
        to.states.clear();
        to.states.reserve(2000);
        recorder = &to;
        world.start();
        struct sigaction action = {}, old = {};
        action.sa_handler = on_step;
        ASSERT_EQ(sigaction(SIGTRAP, &action, &old), 0);
        __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() | trap_flag);
        world.turn();
        __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~trap_flag);
        ASSERT_EQ(sigaction(SIGTRAP, &old, nullptr), 0);
        ASSERT_LT(to.states.size(), to.states.capacity());
        ASSERT_GT(to.steps, 5'000U); // the flag works here
    }
    void expect_right_after(State const& state) {
        load(state);
        take_used();
        sender.put<u16>(tx.used_event(), tx.used_index); // none wanted for what was taken
        receiver.put<u16>(rx.used_event(), rx.used_index);
        world.start();
        world.run();
        expect_all_done();
    }
};

TEST_P(RestartTest, RingsStayRightWhereverTheServiceDies) {
    set_up();
    Recorder first;
    record(first);
    ASSERT_FALSE(HasFatalFailure());
    expect_all_done();
    EXPECT_EQ(doubled, 0U);
    ASSERT_GT(first.states.size(), frames * 5U);
    u32 most_doubled = 0;
    for (std::size_t i = 0; i < first.states.size() && !HasFailure(); i++) {
        SCOPED_TRACE(i);
        expect_right_after(first.states[i]);
        most_doubled = std::max(most_doubled, doubled);
    }
    EXPECT_EQ(most_doubled, frames); // it dies after the receiver was told, before the sender was
}

// Indices of 65533 wrap around on the way.
INSTANTIATE_TEST_SUITE_P(Ring, RestartTest,
                         testing::Values(Way{"Flags", false, 65533, false, 60},
                                         Way{"EventIndex", true, 65533, false, 60}, Way{"First", true, 0, true, 60},
                                         Way{"Mergeable", true, 65533, false, 40}),
                         [](auto const& info) { return info.param.name; });

struct RecordTest : NetworkTest {
    Driver &a = add(), &b = add();

    void run_with(u16 next, u16 used_index, u32 epoch = 0) {
        world.records->queues[0][transmit] = {a.tx.entry().epoch + epoch, next, used_index};
        start();
    }
};

TEST_F(RecordTest, RecordOfAnotherEpochIsOfNoConcern) {
    a.send(make_frame(mac_of(1), mac_of(0)));
    run_with(7, 9, 1);
    EXPECT_EQ(a.tx.device_index(), 1);
    EXPECT_EQ(world.misuses[0], 0U);
    service::QueueRecord const& record = world.records->queues[0][transmit];
    EXPECT_EQ(record.epoch, a.tx.entry().epoch);
    EXPECT_EQ(record.next, 1);
    EXPECT_EQ(record.used_index, 1);
}

TEST_F(RecordTest, RuinedRecordIsMisuse) {
    for (auto const& [next, used] : {std::pair<u16, u16>{1, 0}, {0, 1}, {7, 7}, {65000, 65000}, {0xffff, 0}}) {
        a.start();
        u32 const before = world.misuses[0];
        run_with(next, used);
        EXPECT_EQ(world.misuses[0], before + 1) << next << ' ' << used;
        EXPECT_EQ(world.misuses[1], 0U);
    }
}

TEST_F(RecordTest, UsedIndexThatADriverChangedIsNothingWorseThanMisuse) {
    for (u32 index = 0; index < 300; index++) {
        a.start();
        a.guest.put<u16>(a.tx.used() + 2, static_cast<u16>(index));
        u32 const before = world.misuses[0];
        run_with(0, 0);
        // Of a queue of 64, that many may have been published; but then the driver had added them.
        EXPECT_EQ(world.misuses[0], before + (index != 0 ? 1 : 0)) << index;
    }
}

TEST_F(RecordTest, AnInterruptThatMayBeLostIsSentAgain) {
    run_with(0, 0);
    EXPECT_EQ(world.interrupts[0][transmit], 1U);
    EXPECT_EQ(world.interrupts[1][receive], 0U); // whose record was about nothing
    world.ring(0);
    world.run();
    EXPECT_EQ(world.interrupts[0][transmit], 1U);
}

TEST_F(RecordTest, FramesGoOnWhileInstancesComeAndGo) {
    start();
    for (u32 i = 0; i < 10; i++) {
        a.send(make_frame(mac_of(1), mac_of(0), 60 + i));
        if (i % 3 == 0) world.start();
        world.run();
        expect_received(b, make_frame(mac_of(1), mac_of(0), 60 + i));
        a.tx.next_used();
    }
    EXPECT_FALSE(a.tx.has_used());
    EXPECT_FALSE(b.rx.has_used());
}

} // namespace
