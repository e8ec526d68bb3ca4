// SPDX-License-Identifier: MIT
// What a virtio-blk driver may ask for, in which form, and what becomes of requests that make no sense.
#include "driver.hpp"

#include <gtest/gtest.h>
#include <optional>

namespace {

using namespace storage_test;

constexpr u64 header_at = 0x8000, status_at = 0x8100, data_at = 0x9000;
constexpr u64 sectors = 64;

struct BlockRequestTest : testing::Test {
    World world;
    Guest& guest;
    Driver driver;

    explicit BlockRequestTest(bool is_read_only = false, u64 medium = sectors, u64 area = 0x1'0000)
        : guest(world.add_disk(medium, is_read_only, 1, area)), driver(world, 0) {
        driver.start(false, true);
        for (u64 i = 0; i < medium; i++)
            std::fill_n(guest.medium.begin() + static_cast<std::ptrdiff_t>(i * sector), sector, number(i));
        world.start();
        world.run();
    }
    static u8 number(u64 at) { return static_cast<u8>(at * 3 + 1); } // what sector `at` is filled with at first

    // Serves these buffers as one chain; returns how many bytes it was given back with, or nothing.
    std::optional<u32> serve(std::vector<Buffer> const& buffers) {
        guest.put<u8>(status_at, untouched);
        u16 const head = driver.add(buffers);
        driver.ring();
        world.run();
        if (!driver.has_used()) return {};
        auto const used = driver.next_used();
        EXPECT_EQ(used.id, head);
        EXPECT_FALSE(driver.has_used());
        return used.written;
    }
    // The usual form: header, data, status, each in a buffer.
    std::optional<u32> request(u32 type, u64 first, Buffer const& data) {
        driver.put_header(header_at, type, first);
        return serve({{header_at, 16, false}, data, {status_at, 1, true}});
    }
    u8 status() { return guest.get<u8>(status_at); }
    bool medium_is_untouched() {
        for (u64 i = 0; i < guest.medium.size() / sector; i++)
            if (!guest.medium_is(i, number(i))) return false;
        return true;
    }
    void put_range(u64 index, u64 first, u32 count, u32 flags) {
        guest.put<u64>(data_at + index * 16, first);
        guest.put<u32>(data_at + index * 16 + 8, count);
        guest.put<u32>(data_at + index * 16 + 12, flags);
    }
};

TEST_F(BlockRequestTest, ReadFillsTheBuffer) {
    EXPECT_EQ(request(IN, 5, {data_at, 1024, true}), 1025U);
    EXPECT_EQ(status(), OK);
    EXPECT_TRUE(guest.is_filled(data_at, number(5), sector));
    EXPECT_TRUE(guest.is_filled(data_at + sector, number(6), sector));
    EXPECT_TRUE(guest.is_filled(data_at + 2 * sector, 0, sector));
    EXPECT_TRUE(medium_is_untouched());
    EXPECT_EQ(world.interrupts[0][0], 1U);
}

TEST_F(BlockRequestTest, WriteChangesTheSectorsAndNoOthers) {
    guest.fill(data_at, 0xee, 1024);
    EXPECT_EQ(request(OUT, 5, {data_at, 1024, false}), 1U);
    EXPECT_EQ(status(), OK);
    EXPECT_TRUE(guest.medium_is(5, 0xee, 2));
    EXPECT_TRUE(guest.medium_is(4, number(4)));
    EXPECT_TRUE(guest.medium_is(7, number(7)));
}

TEST_F(BlockRequestTest, FlushIsDone) {
    driver.put_header(header_at, FLUSH, 0);
    EXPECT_EQ(serve({{header_at, 16, false}, {status_at, 1, true}}), 1U);
    EXPECT_EQ(status(), OK);
}

TEST_F(BlockRequestTest, SerialNumberIsTwentyBytes) {
    EXPECT_EQ(request(GET_ID, 0, {data_at, 20, true}), 21U);
    EXPECT_EQ(status(), OK);
    EXPECT_EQ(std::memcmp(guest.bytes() + data_at, "mullion-disk\0\0\0\0\0\0\0\0", 20), 0);
    guest.fill(data_at, 0x11, 100);
    EXPECT_EQ(request(GET_ID, 0, {data_at, 7, true}), 8U);
    EXPECT_EQ(std::memcmp(guest.bytes() + data_at, "mullion\x11", 8), 0);
    // Of a larger buffer, the rest is not written, nor claimed to be.
    EXPECT_EQ(request(GET_ID, 0, {data_at, 100, true}), 20U);
    EXPECT_EQ(status(), OK);
    EXPECT_TRUE(guest.is_filled(data_at + 20, 0x11, 80));
}

TEST_F(BlockRequestTest, UnknownRequestIsUnsupported) {
    for (u32 const type : {2U, 3U, 5U, 9U, 10U, 14U, 0x8000'0000U, ~0U}) {
        EXPECT_EQ(request(type, 0, {data_at, 512, true}), 0U); // the first byte was not written
        EXPECT_EQ(status(), UNSUPP);
    }
    EXPECT_TRUE(medium_is_untouched());
}

TEST_F(BlockRequestTest, LastSectorIsReachedAndNoneBeyondIt) {
    EXPECT_EQ(request(IN, sectors - 1, {data_at, 512, true}), 513U);
    EXPECT_EQ(status(), OK);
    EXPECT_TRUE(guest.is_filled(data_at, number(sectors - 1), 512));
    struct {
        u64 first;
        u32 size;
    } const bad[] = {{sectors, 512}, {sectors - 1, 1024}, {u64{1} << 55, 512}, {(u64{1} << 55) + 1, 512},
                     {~u64{0}, 512}, {~u64{0} - 1, 1024}, {u64{1} << 63, 512}, {sectors + 1, 0}};
    for (auto const& [first, size] : bad) {
        EXPECT_EQ(request(IN, first, {data_at, size, true}), size == 0 ? 1U : 0U) << first;
        EXPECT_EQ(status(), IOERR);
        EXPECT_EQ(request(OUT, first, {data_at, size, false}), 1U) << first;
        EXPECT_EQ(status(), IOERR);
    }
    EXPECT_TRUE(medium_is_untouched());
}

TEST_F(BlockRequestTest, PartOfASectorIsRefused) {
    for (u32 const size : {1U, 511U, 513U}) {
        EXPECT_EQ(request(IN, 0, {data_at, size, true}), 0U);
        EXPECT_EQ(status(), IOERR);
        EXPECT_EQ(request(OUT, 0, {data_at, size, false}), 1U);
        EXPECT_EQ(status(), IOERR);
    }
    EXPECT_TRUE(medium_is_untouched());
}

TEST_F(BlockRequestTest, RequestWithoutDataIsDone) {
    EXPECT_EQ(request(IN, 0, {data_at, 0, true}), 1U);
    EXPECT_EQ(status(), OK);
    EXPECT_EQ(request(OUT, sectors, {data_at, 0, false}), 1U);
    EXPECT_EQ(status(), OK);
}

TEST_F(BlockRequestTest, ChainMayBeCutAnywhere) {
    // Header in three parts, one of them empty; data in odd parts over both areas of RAM; the status at the end of a
    // data buffer.
    driver.put_header(header_at, OUT, 7);
    for (u32 i = 0; i < 1024; i++)
        guest.put<u8>((i < 300 ? data_at : Guest::high_area) + i, static_cast<u8>(i * 7));
    EXPECT_EQ(serve({{header_at, 3, false},
                     {header_at, 0, false},
                     {header_at + 3, 12, false},
                     {header_at + 15, 1, false},
                     {data_at, 300, false},
                     {0, 0, false},
                     {Guest::high_area + 300, 724, false},
                     {status_at, 1, true}}),
              1U);
    EXPECT_EQ(status(), OK);
    for (u32 i = 0; i < 1024; i++)
        ASSERT_EQ(guest.medium[7 * sector + i], static_cast<u8>(i * 7));
    // Header and data in one buffer.
    driver.put_header(data_at, OUT, 3);
    guest.fill(data_at + 16, 0x77, 512);
    EXPECT_EQ(serve({{data_at, 528, false}, {status_at, 1, true}}), 1U);
    EXPECT_TRUE(guest.medium_is(3, 0x77));
    // Data and status in one, then in parts.
    driver.put_header(header_at, IN, 3);
    EXPECT_EQ(serve({{header_at, 16, false}, {data_at, 513, true}}), 513U);
    EXPECT_TRUE(guest.is_filled(data_at, 0x77, 512));
    EXPECT_EQ(guest.get<u8>(data_at + 512), OK);
    guest.fill(data_at, 0, 513);
    guest.fill(Guest::high_area, 0, 513);
    EXPECT_EQ(serve({{header_at, 16, false},
                     {data_at, 1, true},
                     {data_at + 1, 0, true},
                     {Guest::high_area, 500, true},
                     {data_at + 1, 12, true},
                     {data_at + 50, 0, true}}),
              513U);
    EXPECT_TRUE(guest.is_filled(data_at, 0x77, 12));
    EXPECT_EQ(guest.get<u8>(data_at + 12), OK);
    EXPECT_TRUE(guest.is_filled(Guest::high_area, 0x77, 500));
}

TEST_F(BlockRequestTest, IndirectTableIsServed) {
    driver.put_header(header_at, IN, 9);
    driver.add_indirect(0x7000, {{header_at, 16, false}, {data_at, 512, true}, {status_at, 1, true}});
    driver.ring();
    world.run();
    ASSERT_TRUE(driver.has_used());
    EXPECT_EQ(driver.next_used().written, 513U);
    EXPECT_TRUE(guest.is_filled(data_at, number(9), 512));
}

TEST_F(BlockRequestTest, ZeroedAndDiscardedRangesAreZero) {
    put_range(0, 3, 2, 0);
    put_range(1, sectors - 1, 1, 1); // may unmap
    put_range(2, 10, 0, 0);
    EXPECT_EQ(request(WRITE_ZEROES, 0, {data_at, 48, false}), 1U);
    EXPECT_EQ(status(), OK);
    EXPECT_TRUE(guest.medium_is(3, 0, 2));
    EXPECT_TRUE(guest.medium_is(sectors - 1, 0));
    EXPECT_TRUE(guest.medium_is(2, number(2)));
    EXPECT_TRUE(guest.medium_is(5, number(5)));
    EXPECT_TRUE(guest.medium_is(10, number(10)));
    put_range(0, 20, 4, 0);
    EXPECT_EQ(request(DISCARD, 0, {data_at, 16, false}), 1U);
    EXPECT_EQ(status(), OK);
    EXPECT_TRUE(guest.medium_is(20, 0, 4));
    EXPECT_TRUE(guest.medium_is(24, number(24)));
}

TEST_F(BlockRequestTest, RangesThatMakeNoSenseAreRefused) {
    struct {
        u32 type;
        u64 first;
        u32 count, flags;
        u8 status;
    } const bad[] = {{DISCARD, 0, 1, 1, UNSUPP},           {DISCARD, 0, 1, 2, UNSUPP},
                     {WRITE_ZEROES, 0, 1, 2, UNSUPP},      {WRITE_ZEROES, 0, 1, 1U << 31, UNSUPP},
                     {WRITE_ZEROES, sectors, 1, 0, IOERR}, {WRITE_ZEROES, 0, sectors + 1, 0, IOERR},
                     {DISCARD, 1, ~0U, 0, IOERR},          {DISCARD, ~u64{0}, 2, 0, IOERR},
                     {DISCARD, u64{1} << 55, 1, 0, IOERR}, {DISCARD, ~u64{0} - 1, ~0U, 0, IOERR}};
    for (auto const& [type, first, count, flags, wanted] : bad) {
        put_range(0, first, count, flags);
        EXPECT_EQ(request(type, 0, {data_at, 16, false}), 1U);
        EXPECT_EQ(status(), wanted) << type << ' ' << first;
    }
    for (u32 const size : {0U, 1U, 15U, 17U, 16 * (storage::BlockRequest::max_ranges + 1)}) {
        guest.fill(data_at, 0, 1024);
        put_range(0, 0, 1, 0);
        EXPECT_EQ(request(DISCARD, 0, {data_at, size, false}), 1U);
        EXPECT_EQ(status(), IOERR) << size;
    }
    EXPECT_TRUE(medium_is_untouched());
    EXPECT_EQ(world.misuses[0], 0U);
}

struct BrokenChainTest : BlockRequestTest {
    void expect_misuse(std::vector<Buffer> const& buffers) {
        EXPECT_FALSE(serve(buffers).has_value());
        EXPECT_EQ(world.misuses[0], 1U);
        EXPECT_EQ(status(), untouched);
        EXPECT_EQ(driver.device_index(), 0);
        EXPECT_TRUE(medium_is_untouched());
        // Nothing is served, and nothing reported again, until the driver starts the queue again.
        driver.ring();
        world.change_board();
        world.run();
        EXPECT_EQ(world.misuses[0], 1U);
        driver.start();
        driver.put_header(header_at, FLUSH, 0);
        EXPECT_EQ(serve({{header_at, 16, false}, {status_at, 1, true}}), 1U);
    }
};

TEST_F(BrokenChainTest, ShortHeaderIsMisuse) { expect_misuse({{header_at, 15, false}, {status_at, 1, true}}); }
TEST_F(BrokenChainTest, NoHeaderIsMisuse) { expect_misuse({{status_at, 1, true}}); }
TEST_F(BrokenChainTest, EmptyHeaderIsMisuse) {
    expect_misuse({{header_at, 0, false}, {header_at, 0, false}, {status_at, 1, true}});
}
TEST_F(BrokenChainTest, NoStatusIsMisuse) { expect_misuse({{header_at, 16, false}}); }
TEST_F(BrokenChainTest, EmptyStatusIsMisuse) { expect_misuse({{header_at, 16, false}, {status_at, 0, true}}); }
TEST_F(BrokenChainTest, EmptyChainIsMisuse) { expect_misuse({{0, 0, false}}); }
TEST_F(BrokenChainTest, WritableBeforeReadableIsMisuse) {
    expect_misuse({{header_at, 16, false}, {status_at, 1, true}, {data_at, 512, false}});
}
TEST_F(BrokenChainTest, BufferThatIsNoRamIsMisuse) {
    expect_misuse({{header_at, 16, false}, {guest.area_size - 256, 512, true}, {status_at, 1, true}});
}
TEST_F(BrokenChainTest, BufferBeyondAllRamIsMisuse) {
    expect_misuse({{header_at, 16, false}, {~u64{0} - 511, 512, true}, {status_at, 1, true}});
}

struct ReadOnlyTest : BlockRequestTest {
    ReadOnlyTest() : BlockRequestTest(true) {}
};

TEST_F(ReadOnlyTest, NothingIsWritten) {
    EXPECT_EQ(request(OUT, 0, {data_at, 512, false}), 1U);
    EXPECT_EQ(status(), IOERR);
    put_range(0, 0, 1, 0);
    for (u32 const type : {DISCARD, WRITE_ZEROES}) {
        EXPECT_EQ(request(type, 0, {data_at, 16, false}), 1U);
        EXPECT_EQ(status(), IOERR);
    }
    EXPECT_TRUE(medium_is_untouched());
    EXPECT_EQ(request(IN, 1, {data_at, 512, true}), 513U);
    EXPECT_TRUE(guest.is_filled(data_at, number(1), 512));
}

// A medium, and memory, so large that a request may be too long.
struct LargeTest : BlockRequestTest {
    static constexpr u64 size = 32 * lib::MiB;
    static constexpr u32 buffer = 0x8'0000;
    Driver long_driver{world, 0, 0, 64};

    LargeTest() : BlockRequestTest(false, size / sector, 0xc'0000) {
        long_driver.start();
        world.run();
    }
    // A read of `count` buffers, all at one address: what was read last stays.
    void add_read(u32 count) {
        std::vector<Buffer> chain = {{header_at, 16, false}};
        for (u32 i = 0; i < count; i++)
            chain.push_back({data_at, buffer, true});
        chain.push_back({status_at, 1, true});
        long_driver.put_header(header_at, IN, 0);
        guest.put<u8>(status_at, untouched);
        long_driver.add(chain);
        long_driver.ring();
    }
};

TEST_F(LargeTest, LongRequestIsServedInSlices) {
    constexpr u32 count = storage::BlockRequest::max_transfer / buffer;
    add_read(count);
    u32 turns = 0;
    do {
        world.turn();
        turns++;
        ASSERT_EQ(long_driver.has_used(), guest.get<u8>(status_at) == OK);
    } while (world.has_more && turns < 100);
    // The last slice leaves nothing for a look at the next request.
    EXPECT_EQ(turns, count * u64{buffer} / storage::BlockDevice::turn_budget + 1);
    ASSERT_TRUE(long_driver.has_used());
    EXPECT_EQ(long_driver.next_used().written, count * buffer + 1);
    for (u64 i = 0; i < buffer / sector; i++)
        ASSERT_TRUE(guest.is_filled(data_at + i * sector, number((count - 1) * u64{buffer} / sector + i), sector));
}

TEST_F(LargeTest, TooLongRequestFails) {
    add_read(storage::BlockRequest::max_transfer / buffer + 1);
    EXPECT_EQ(world.run(), 1U);
    ASSERT_TRUE(long_driver.has_used());
    EXPECT_EQ(long_driver.next_used().written, 0U);
    EXPECT_EQ(status(), IOERR);
    EXPECT_TRUE(guest.is_filled(data_at, 0, buffer));
}

TEST_F(LargeTest, LongRangeIsZeroedInSlices) {
    put_range(0, 0, size / sector, 0);
    put_range(1, 0, size / sector, 0);
    guest.put<u8>(status_at, untouched);
    long_driver.put_header(header_at, WRITE_ZEROES, 0);
    long_driver.add({{header_at, 16, false}, {data_at, 32, false}, {status_at, 1, true}});
    long_driver.ring();
    EXPECT_EQ(world.run(), 2 * size / storage::BlockDevice::turn_budget + 1);
    EXPECT_EQ(status(), OK);
    EXPECT_TRUE(guest.medium_is(0, 0, size / sector));
}

} // namespace
