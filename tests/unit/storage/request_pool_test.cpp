// SPDX-License-Identifier: MIT
// Room for requests: one for each queue whatever the others do, and equal parts of the rest.
#include "driver.hpp"

#include <gtest/gtest.h>

namespace {

using namespace storage_test;
using storage::RequestPool;

struct RequestPoolTest : testing::Test {
    std::unique_ptr<RequestPool> pool = std::make_unique<RequestPool>();
    std::vector<u16> taken;

    u32 take_all(u32 queue) {
        u32 count = 0;
        for (u16 entry; (entry = pool->take(queue)) != RequestPool::none; count++)
            taken.push_back(entry);
        return count;
    }
};

TEST_F(RequestPoolTest, EveryQueueHasOneWhateverTheOthersTake) {
    EXPECT_EQ(take_all(0), 1U + RequestPool::shared);
    for (u32 queue = 1; queue < RequestPool::max_queues; queue++)
        ASSERT_EQ(take_all(queue), 1U) << queue;
    std::ranges::sort(taken);
    EXPECT_EQ(std::ranges::adjacent_find(taken), taken.end()); // none twice
    EXPECT_EQ(taken.size(), RequestPool::capacity);
}

TEST_F(RequestPoolTest, DisksShareInEqualParts) {
    EXPECT_EQ(take_all(0), 1U + RequestPool::shared);
    EXPECT_EQ(take_all(4), 1U);
    EXPECT_EQ(pool->refused(), 0x11U);
    // What the first one gives back is not its own again before the other has as much.
    for (u32 i = 0; i < RequestPool::shared / 2; i++) {
        pool->release(taken[i]);
        EXPECT_EQ(pool->take(0), RequestPool::none);
        EXPECT_NE(pool->take(4), RequestPool::none);
    }
    EXPECT_EQ(pool->take(4), RequestPool::none);
}

TEST_F(RequestPoolTest, PartThatNobodyWantsIsForTheOthers) {
    EXPECT_EQ(take_all(0), 1U + RequestPool::shared);
    EXPECT_EQ(take_all(4), 1U);
    for (u16 const entry : taken)
        pool->release(entry);
    pool->forget(0);
    pool->forget(4);
    EXPECT_EQ(pool->refused(), 0U);
    EXPECT_EQ(take_all(4), 1U + RequestPool::shared);
}

} // namespace
