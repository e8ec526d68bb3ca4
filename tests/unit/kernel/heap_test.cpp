// SPDX-License-Identifier: MIT
#include "support/machine_memory.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fakes/cpu.hpp>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace {

using kernel::FrameAllocator;
using kernel::Heap;
using lib::page_size;
using lib::u64;
using lib::u8;

class HeapTest : public ::testing::Test {
protected:
    static constexpr u64 size = 2 * lib::MiB;
    HeapTest() : memory_(std::aligned_alloc(2 * lib::MiB, size)) {
        kernel::HostPhys const base{reinterpret_cast<u64>(memory_)};
        EXPECT_TRUE(frames.add_zone(base, size, 0));
        frames.free_range(base, size);
    }
    ~HeapTest() override { std::free(memory_); }
    FrameAllocator frames;
    Heap heap;

private:
    void* memory_;
};

TEST_F(HeapTest, AlignsObjectsToTheirSizeAndZeroesThem) {
    for (u64 bytes : {u64{0}, u64{1}, u64{31}, u64{32}, u64{33}, u64{64}, u64{100}, u64{500}, u64{1024}, u64{2048},
                      u64{2049}, u64{4096}, u64{5000}, u64{70'000}})
        for (int round = 0; round < 2; round++) {
            auto* const object = static_cast<u8*>(heap.allocate(frames, bytes));
            ASSERT_NE(object, nullptr) << bytes;
            u64 const alignment = std::min<u64>(page_size, std::max<u64>(32, std::bit_ceil(bytes)));
            EXPECT_EQ(reinterpret_cast<u64>(object) % alignment, 0U) << bytes;
            EXPECT_TRUE(std::all_of(object, object + bytes, [](u8 byte) { return byte == 0; })) << bytes;
            std::memset(object, 0xee, bytes); // and again when it is used a second time
            heap.free(frames, object, bytes);
        }
}

TEST_F(HeapTest, ObjectsDoNotOverlap) {
    struct Object {
        u8* at;
        u64 size;
        u8 mark;
    };
    std::vector<Object> objects;
    std::mt19937_64 random(3);
    for (int i = 0; i < 6000; i++) {
        if (random() % 5 < 3) {
            u64 const bytes = 1 + random() % (random() % 10 == 0 ? 9000 : 300);
            auto* const at = static_cast<u8*>(heap.allocate(frames, bytes));
            if (at == nullptr) continue;
            auto const mark = static_cast<u8>(random());
            std::memset(at, mark, bytes);
            objects.push_back({at, bytes, mark});
        } else if (!objects.empty()) {
            auto const index = random() % objects.size();
            Object const object = objects[index];
            ASSERT_TRUE(std::all_of(object.at, object.at + object.size, [&](u8 byte) { return byte == object.mark; }));
            heap.free(frames, object.at, object.size);
            objects[index] = objects.back();
            objects.pop_back();
        }
    }
    EXPECT_GT(objects.size(), 50U);
}

TEST_F(HeapTest, LargeBlocksGoBackAndSmallOnesAreUsedAgain) {
    u64 const before = frames.free_bytes();
    void* const large = heap.allocate(frames, 3 * page_size);
    EXPECT_EQ(frames.free_bytes(), before - 4 * page_size);
    EXPECT_EQ(heap.frames_used(), 4U);
    EXPECT_EQ(heap.bytes_used(), 4 * page_size);
    heap.free(frames, large, 3 * page_size);
    EXPECT_EQ(frames.free_bytes(), before);
    EXPECT_EQ(heap.frames_used(), 0U);

    std::vector<void*> objects;
    for (u64 i = 0; i < page_size / 64; i++)
        objects.push_back(heap.allocate(frames, 50));
    EXPECT_EQ(heap.frames_used(), 1U);
    EXPECT_EQ(heap.bytes_used(), page_size);
    for (void* const object : objects)
        heap.free(frames, object, 50);
    EXPECT_EQ(heap.bytes_used(), 0U);
    for (u64 i = 0; i < page_size / 64; i++)
        heap.allocate(frames, 64);
    EXPECT_EQ(heap.frames_used(), 1U);
    heap.free(frames, nullptr, 64);
}

TEST_F(HeapTest, SaysWhenMemoryIsShort) {
    while (frames.allocate(0)) {
    }
    EXPECT_EQ(heap.allocate(frames, 32), nullptr);
    EXPECT_EQ(heap.allocate(frames, 2 * page_size), nullptr);
    EXPECT_EQ(heap.frames_used(), 0U);
}

TEST_F(HeapTest, RefusesWhatNoMachineHas) {
    EXPECT_EQ(heap.allocate(frames, u64{1} << 40), nullptr);
    EXPECT_EQ(heap.allocate(frames, ~u64{0}), nullptr);
}

TEST(MachineMemory, CountsWhatIsOut) {
    fakes::Cpu const cpu;
    u64 const free = support::give_memory();
    auto const frame = kernel::allocate_zeroed_frame();
    ASSERT_TRUE(frame);
    EXPECT_EQ(kernel::memory_use().free, free - page_size);
    kernel::free_frames(*frame, 0);
    EXPECT_EQ(kernel::memory_use().free, free);
    {
        support::MemoryShortage const shortage(1);
        EXPECT_EQ(kernel::memory_use().free, page_size);
    }
    EXPECT_EQ(kernel::memory_use().free, free);
}

TEST(Own, DeletesOnceAndMoves) {
    struct Counted {
        explicit Counted(int& count) : count_(count) { count_++; }
        Counted(Counted const&) = delete;
        Counted& operator=(Counted const&) = delete;
        ~Counted() { count_--; }
        int& count_;
    };
    int alive = 0;
    {
        kernel::Own<Counted> a(new Counted(alive));
        kernel::Own<Counted> b(std::move(a));
        EXPECT_FALSE(a);
        EXPECT_EQ(alive, 1);
        kernel::Own<Counted> c(new Counted(alive));
        c = std::move(b);
        EXPECT_EQ(alive, 1);
        c = kernel::Own<Counted>();
        EXPECT_EQ(alive, 0);
    }
    EXPECT_EQ(alive, 0);
}

} // namespace
