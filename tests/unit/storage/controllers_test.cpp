// SPDX-License-Identifier: MIT
// Commands and their ends: each meets the client that began it, once, whatever a driver reports.
#include "disks.hpp"

#include <gtest/gtest.h>

namespace {

using namespace storage_test;
using block::Controller;

struct Counter final : storage::Controllers::Client {
    std::vector<u32> tokens;
    u32 failed = 0;
    void ended(u32 token, block::Status status) override {
        tokens.push_back(token);
        if (status == block::Status::Failed) failed++;
    }
};

struct ControllersTest : testing::Test {
    DeviceSpace space;
    MachineDisk disk{64, 512};
    FakeController first{space, {&disk}}, second{space, {&disk}};
    storage::Controllers controllers;
    Counter counter;

    ControllersTest() {
        first.now_limits.depth = second.now_limits.depth = 1000;
        controllers.add(0, first, {});
        controllers.add(5, second, {});
    }
    bool flush(u32 number, u32 token) {
        return controllers.submit(number, counter, token, {block::Operation::Flush, 0, 0, 0, {}}, 0);
    }
};

TEST_F(ControllersTest, EndsMeetTheirClients) {
    Counter other;
    EXPECT_TRUE(flush(0, 7));
    EXPECT_TRUE(flush(5, 8));
    EXPECT_TRUE(controllers.submit(0, other, 9, {block::Operation::Flush, 0, 0, 0, {}}, 0));
    controllers.ring();
    first.end(1, false);
    first.end(0);
    second.end(0);
    controllers.poll(service::event_controller(0), 0);
    EXPECT_EQ(counter.tokens, (std::vector<u32>{7}));
    EXPECT_EQ(other.tokens, (std::vector<u32>{9}));
    EXPECT_EQ(other.failed, 1U);
    controllers.poll(service::event_controller(5), 0);
    EXPECT_EQ(counter.tokens, (std::vector<u32>{7, 8}));
    EXPECT_EQ(counter.failed, 0U);
}

TEST_F(ControllersTest, StaleDoubledAndInventedEndsMeetNobody) {
    ASSERT_TRUE(flush(0, 1));
    u32 const old = first.under_way[0].command.tag;
    first.end(0);
    first.ended.push_back({old, block::Status::Failed});
    controllers.poll(service::event_board, 0);
    EXPECT_EQ(counter.tokens.size(), 1U);
    ASSERT_TRUE(flush(0, 2));
    u32 const present = first.under_way[0].command.tag;
    EXPECT_NE(present, old);
    for (u32 const tag : {old, ~0U, present + storage::Controllers::max_commands, present + 1, present ^ 0x8000'0000U})
        first.ended.push_back({tag, block::Status::Good});
    controllers.poll(service::event_board, 0);
    EXPECT_EQ(counter.tokens.size(), 1U);
    first.end(0);
    controllers.poll(service::event_board, 0);
    EXPECT_EQ(counter.tokens, (std::vector<u32>{1, 2}));
}

TEST_F(ControllersTest, NumberOfCommandsIsBounded) {
    for (u32 i = 0; i < storage::Controllers::max_commands; i++)
        ASSERT_TRUE(flush(0, i));
    EXPECT_FALSE(flush(0, 1000));
    EXPECT_EQ(first.refused, 0U); // it was not asked
    EXPECT_TRUE(flush(5, 1000));
    first.end_all();
    controllers.poll(service::event_board, 0);
    EXPECT_EQ(counter.tokens.size(), storage::Controllers::max_commands);
    EXPECT_TRUE(flush(0, 1));
}

TEST_F(ControllersTest, ManyEndsAreTakenInSeveralPolls) {
    ASSERT_TRUE(flush(0, 1));
    for (u32 i = 0; i < 1000; i++)
        first.ended.push_back({12345, block::Status::Good});
    first.end(0);
    for (u32 polls = 0; counter.tokens.empty(); polls++) {
        ASSERT_LT(polls, 6U);
        controllers.poll(polls == 0 ? service::event_controller(0) : 0, 0);
        if (counter.tokens.empty()) {
            EXPECT_EQ(controllers.deadline(), 0U);
        }
    }
    EXPECT_EQ(controllers.deadline(), Controller::never);
}

TEST_F(ControllersTest, DeadlineIsTheEarliestAndCausesAPoll) {
    EXPECT_EQ(controllers.deadline(), Controller::never);
    first.next_call = 500;
    second.next_call = 300;
    EXPECT_EQ(controllers.deadline(), 300U);
    ASSERT_TRUE(flush(0, 1));
    first.end(0);
    controllers.poll(0, 400);
    EXPECT_TRUE(counter.tokens.empty());
    controllers.poll(0, 500);
    EXPECT_EQ(counter.tokens.size(), 1U);
}

TEST_F(ControllersTest, OnlyThoseWithNewCommandsAreRung) {
    controllers.ring();
    ASSERT_TRUE(flush(5, 1));
    controllers.ring(); // the fake fails on a needless one
    controllers.ring();
    EXPECT_EQ(second.not_rung, 0U);
    second.takes = false;
    EXPECT_FALSE(flush(5, 1));
    controllers.ring();
}

TEST_F(ControllersTest, NumbersAreThoseOfTheBoard) {
    EXPECT_EQ(controllers.find(0), &first);
    EXPECT_EQ(controllers.find(5), &second);
    EXPECT_EQ(controllers.find(1), nullptr);
    EXPECT_EQ(controllers.find(~0U), nullptr);
    controllers.add(service::max_controllers, first, {});
    controllers.add(5, first, {});
    EXPECT_EQ(controllers.find(5), &second);
}

} // namespace
