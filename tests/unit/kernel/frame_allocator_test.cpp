// SPDX-License-Identifier: MIT
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <kernel/direct_map.hpp>
#include <kernel/frame_allocator.hpp>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

namespace {

using kernel::FrameAllocator;
using kernel::HostPhys;
using lib::page_size;
using lib::u32;
using lib::u64;
using lib::u8;

// A piece of the process's memory that plays RAM.
class Ram {
public:
    explicit Ram(u64 size, u64 skip = 0)
        : memory_(std::aligned_alloc(4 * lib::MiB, lib::align_up(size, 4 * lib::MiB) + 4 * lib::MiB)), skip_(skip) {}
    ~Ram() { std::free(memory_); }
    Ram(Ram const&) = delete;
    Ram& operator=(Ram const&) = delete;
    HostPhys base() const { return HostPhys{reinterpret_cast<u64>(memory_) + skip_}; }

private:
    void* memory_;
    u64 skip_;
};

std::unique_ptr<FrameAllocator> adopt(Ram const& ram, u64 size) {
    auto frames = std::make_unique<FrameAllocator>();
    EXPECT_TRUE(frames->add_zone(ram.base(), size, 0));
    frames->free_range(ram.base(), size);
    return frames;
}

TEST(FrameAllocator, EverythingBeginsInUse) {
    Ram const ram(lib::MiB);
    FrameAllocator frames;
    ASSERT_TRUE(frames.add_zone(ram.base(), lib::MiB, 0));
    EXPECT_EQ(frames.managed_bytes(), lib::MiB);
    EXPECT_EQ(frames.free_bytes(), 0U);
    EXPECT_EQ(frames.largest_free_order(), -1);
    EXPECT_EQ(frames.allocate(0).error(), lib::Errc::NoMemory);
    frames.free_range(ram.base(), lib::MiB);
    EXPECT_EQ(frames.free_bytes() + frames.metadata_bytes(), frames.managed_bytes());
}

TEST(FrameAllocator, WhatLiesHighIsNotGivenOutAsLow) {
    Ram const ram(lib::MiB); // of the process, so beyond 4 GiB
    auto const frames = adopt(ram, lib::MiB);
    ASSERT_GT(ram.base().value, u64{1} << 32);
    u64 const before = frames->free_bytes();
    EXPECT_EQ(frames->allocate_low(0).error(), lib::Errc::NoMemory);
    EXPECT_EQ(frames->allocate_low(FrameAllocator::max_order + 1).error(), lib::Errc::OutOfRange);
    EXPECT_EQ(frames->free_bytes(), before);
}

TEST(FrameAllocator, GivesOutEachFrameOnceAndNeverItsOwn) {
    Ram const ram(4 * lib::MiB);
    auto const frames = adopt(ram, 4 * lib::MiB);
    std::set<u64> seen;
    while (auto const frame = frames->allocate(0)) {
        EXPECT_TRUE(frame->is_aligned(page_size));
        EXPECT_GE(frame->value, ram.base().value + frames->metadata_bytes());
        EXPECT_LT(frame->value, ram.base().value + 4 * lib::MiB);
        EXPECT_TRUE(seen.insert(frame->value).second);
        std::memset(kernel::phys_to_virt(*frame), 0xff, page_size); // whoever has a frame may fill it
    }
    EXPECT_EQ(seen.size() * page_size + frames->metadata_bytes(), 4 * lib::MiB);
    EXPECT_EQ(frames->free_bytes(), 0U);
    for (u64 const frame : seen)
        frames->free(HostPhys{frame}, 0);
    EXPECT_EQ(frames->free_bytes(), seen.size() * page_size);
    EXPECT_EQ(frames->largest_free_order(), static_cast<int>(FrameAllocator::order_2m)); // all merged again
}

// Owners by frame; every block is filled while it is out, and looked at when it comes back.
class Model {
public:
    Model(FrameAllocator& frames, HostPhys base, u64 size) : frames_(frames), base_(base), owners_(size / page_size) {}
    void allocate(unsigned order) {
        auto const block = frames_.allocate(order);
        if (!block) return;
        u64 const first = (*block - base_) / page_size;
        ASSERT_TRUE(block->is_aligned(page_size << order));
        ASSERT_LE(first + (u64{1} << order), owners_.size());
        next_++;
        for (u64 i = 0; i < u64{1} << order; i++) {
            ASSERT_EQ(owners_[first + i], 0U);
            owners_[first + i] = next_;
        }
        std::memset(kernel::phys_to_virt(*block), static_cast<int>(next_ & 0xff), page_size << order);
        blocks_.push_back({*block, order, next_});
    }
    void free(u64 number) {
        if (blocks_.empty()) return;
        number %= blocks_.size();
        auto const [base, order, owner] = blocks_[number];
        blocks_[number] = blocks_.back();
        blocks_.pop_back();
        auto const* const bytes = kernel::phys_to_virt<u8>(base);
        for (u64 at = 0; at < page_size << order; at += 512)
            ASSERT_EQ(bytes[at], static_cast<u8>(owner));
        for (u64 i = 0; i < u64{1} << order; i++)
            owners_[(base - base_) / page_size + i] = 0;
        frames_.free(base, order);
    }
    u64 allocated() const {
        u64 sum = 0;
        for (auto const& block : blocks_)
            sum += page_size << block.order;
        return sum;
    }
    bool is_empty() const { return blocks_.empty(); }

private:
    struct Block {
        HostPhys base;
        unsigned order;
        u32 owner;
    };
    FrameAllocator& frames_;
    HostPhys base_;
    std::vector<u32> owners_;
    std::vector<Block> blocks_;
    u32 next_ = 0;
};

class FrameAllocatorModel : public ::testing::TestWithParam<u64> {};

TEST_P(FrameAllocatorModel, SurvivesRandomUseAndMergesBack) {
    constexpr u64 size = 8 * lib::MiB;
    Ram const ram(size, GetParam() * page_size); // a zone may begin and end anywhere
    auto const frames = adopt(ram, size - 3 * page_size);
    u64 const free_at_start = frames->free_bytes();
    int const largest_at_start = frames->largest_free_order();
    Model model(*frames, ram.base(), size);
    std::mt19937_64 random(GetParam());
    for (int i = 0; i < 8000; i++) {
        bool const grow = (i / 500) % 2 == 0;
        if (random() % 100 < (grow ? 65U : 40U))
            model.allocate(static_cast<unsigned>(random() % 100 < 80 ? random() % 3 : random() % 10));
        else
            model.free(random());
        ASSERT_EQ(frames->free_bytes(), free_at_start - model.allocated());
        if (HasFatalFailure()) return;
    }
    while (!model.is_empty())
        model.free(random());
    EXPECT_EQ(frames->free_bytes(), free_at_start);
    EXPECT_EQ(frames->largest_free_order(), largest_at_start);
    Ram const other(size, GetParam() * page_size);
    auto const again = adopt(other, size - 3 * page_size); // what a fresh one can give, this one can still
    for (unsigned order = FrameAllocator::order_2m + 1; order-- > 0;)
        for (;;) {
            bool const fresh = again->allocate(order).has_value();
            ASSERT_EQ(frames->allocate(order).has_value(), fresh) << order;
            if (!fresh) break;
        }
}
INSTANTIATE_TEST_SUITE_P(Zones, FrameAllocatorModel, ::testing::Values(0, 1, 7, 513));

TEST(FrameAllocator, PrefersTheNodeAskedForAndThenTakesAny) {
    Ram const a(lib::MiB), b(lib::MiB);
    FrameAllocator frames;
    ASSERT_TRUE(frames.add_zone(a.base(), lib::MiB, 0));
    ASSERT_TRUE(frames.add_zone(b.base(), lib::MiB, 1));
    frames.free_range(a.base(), lib::MiB);
    frames.free_range(b.base(), lib::MiB);
    auto const is_in = [](HostPhys frame, Ram const& ram) {
        return frame >= ram.base() && frame < ram.base() + lib::MiB;
    };
    u64 const per_node = frames.free_bytes() / 2 / page_size;
    for (u64 i = 0; i < per_node; i++) {
        auto const frame = frames.allocate(0, 0);
        ASSERT_TRUE(frame);
        EXPECT_TRUE(is_in(*frame, a)) << i;
    }
    auto const other = frames.allocate(0, 0);
    ASSERT_TRUE(other);
    EXPECT_TRUE(is_in(*other, b));
    auto const unknown_node = frames.allocate(0, 7);
    ASSERT_TRUE(unknown_node);
    EXPECT_TRUE(is_in(*unknown_node, b));
}

TEST(FrameAllocator, ZonesGetTheirNodeLater) {
    Ram const ram(2 * lib::MiB);
    FrameAllocator frames;
    ASSERT_TRUE(frames.add_zone(ram.base(), lib::MiB, 0));
    ASSERT_TRUE(frames.add_zone(ram.base() + lib::MiB, lib::MiB, 0));
    frames.free_range(ram.base(), 2 * lib::MiB);
    frames.set_node(ram.base(), lib::MiB, 5);
    auto const frame = frames.allocate(0, 5);
    ASSERT_TRUE(frame);
    EXPECT_LT(*frame, ram.base() + lib::MiB);
    std::array<kernel::NodeMemory, 4> nodes{};
    ASSERT_EQ(frames.nodes(nodes), 2U);
    EXPECT_EQ(nodes[0].node, 5U);
    EXPECT_EQ(nodes[1].node, 0U);
    EXPECT_EQ(nodes[0].managed, lib::MiB);
    EXPECT_EQ(nodes[0].free + page_size, nodes[1].free);
    frames.free(*frame, 0);
    ASSERT_EQ(frames.nodes(std::span(nodes).first(1)), 1U);
    EXPECT_EQ(nodes[0].free + nodes[1].free, frames.free_bytes());
}

TEST(FrameAllocator, TakesHighZonesFirst) {
    Ram const ram(2 * lib::MiB);
    FrameAllocator frames;
    ASSERT_TRUE(frames.add_zone(ram.base(), lib::MiB, 0));
    ASSERT_TRUE(frames.add_zone(ram.base() + lib::MiB, lib::MiB, 0));
    frames.free_range(ram.base(), 2 * lib::MiB);
    EXPECT_GE(*frames.allocate(0), ram.base() + lib::MiB);
}

TEST(FrameAllocator, FreesSparsePartsAndSkipsWhatIsNotItsOwn) {
    Ram const ram(4 * lib::MiB);
    FrameAllocator frames;
    ASSERT_TRUE(frames.add_zone(ram.base() + lib::MiB, 2 * lib::MiB, 0));
    frames.free_range(ram.base(), lib::MiB);                // before the zone
    frames.free_range(ram.base() + 3 * lib::MiB, lib::MiB); // behind it
    EXPECT_EQ(frames.free_bytes(), 0U);
    frames.free_range(ram.base() + lib::MiB, frames.metadata_bytes()); // the book-keeping
    EXPECT_EQ(frames.free_bytes(), 0U);
    frames.free_range(ram.base() + 2 * lib::MiB + 1, 3 * page_size); // not even a page: its whole pages
    EXPECT_EQ(frames.free_bytes(), 2 * page_size);
    frames.free_range(ram.base() + 3 * lib::MiB - 2 * page_size, 100 * page_size); // over the end
    EXPECT_EQ(frames.free_bytes(), 4 * page_size);
    std::set<u64> found;
    while (auto const frame = frames.allocate(0))
        found.insert((*frame - ram.base()) / page_size);
    EXPECT_EQ(found, (std::set<u64>{513, 514, 766, 767}));
}

TEST(FrameAllocator, RefusesWhatItCannotKeepBooksOn) {
    Ram const ram(4 * lib::MiB);
    FrameAllocator frames;
    EXPECT_FALSE(frames.add_zone(ram.base(), 0, 0));
    EXPECT_FALSE(frames.add_zone(ram.base(), page_size, 0)); // the books alone would fill it
    EXPECT_FALSE(frames.allocate(FrameAllocator::max_order + 1));
    for (u32 i = 0; i < FrameAllocator::max_zones; i++)
        EXPECT_TRUE(frames.add_zone(ram.base() + i * 4 * page_size, 4 * page_size, 0));
    EXPECT_EQ(frames.add_zone(ram.base() + 2 * lib::MiB, lib::MiB, 0).error(), lib::Errc::NoMemory);
}

TEST(FrameAllocator, KeepsWhatItHasPromised) {
    Ram const ram(lib::MiB);
    auto const frames = adopt(ram, lib::MiB);
    u64 const all = frames->free_bytes() / page_size;
    EXPECT_FALSE(frames->promise(all + 1));
    ASSERT_TRUE(frames->promise(2));
    EXPECT_EQ(frames->promised_bytes(), 2 * page_size);
    EXPECT_EQ(frames->free_bytes(), all * page_size);
    for (u64 i = 0; i < all - 2; i++)
        ASSERT_TRUE(frames->allocate(0));
    EXPECT_FALSE(frames->allocate(0)) << "the rest is promised";
    EXPECT_FALSE(frames->promise(1));
    HostPhys const first = frames->allocate_promised();
    EXPECT_FALSE(frames->allocate(0));
    frames->take_promise_back(1);
    HostPhys const second = frames->allocate(0).value_or(HostPhys{});
    EXPECT_NE(first.value, second.value);
    EXPECT_EQ(frames->free_bytes(), 0U);
    EXPECT_EQ(frames->promised_bytes(), 0U);
}

TEST(FrameAllocator, FailsWhenOnlySmallerBlocksAreLeft) {
    Ram const ram(4 * lib::MiB);
    auto const frames = adopt(ram, 4 * lib::MiB);
    ASSERT_TRUE(frames->allocate(FrameAllocator::order_2m));
    EXPECT_EQ(frames->allocate(FrameAllocator::order_2m).error(), lib::Errc::NoMemory); // the books split the other
    EXPECT_EQ(frames->largest_free_order(), static_cast<int>(FrameAllocator::order_2m) - 1);
    EXPECT_TRUE(frames->allocate(FrameAllocator::order_2m - 1));
}

TEST(FrameAllocator, ZonesBeyondTheMostAreCountedAsLost) {
    Ram const ram(8 * lib::MiB);
    FrameAllocator frames;
    constexpr u64 size = 16 * page_size;
    for (u32 i = 0; i < FrameAllocator::max_zones + 3; i++)
        EXPECT_EQ(frames.add_zone(ram.base() + i * 2 * size, size, 0).has_value(), i < FrameAllocator::max_zones);
    EXPECT_EQ(frames.lost_bytes(), 3 * size);
}

} // namespace
