// SPDX-License-Identifier: MIT
// Mergeable buffers, and checksums that senders leave to others.
#include "nics.hpp"

#include <network/checksum.hpp>
#include <random>

namespace {

using namespace network_test;

// As the standards describe it, two bytes at a time.
u16 plain_checksum(Bytes const& bytes, std::size_t from, u32 sum = 0) {
    for (std::size_t i = from; i < bytes.size(); i += 2)
        sum += u32{bytes[i]} << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<u16>(sum);
}

constexpr u8 TCP = 6, UDP = 17;
constexpr u16 ip_at = 14, transport_at = 34;

// A packet of IPv4 whose transport checksum holds the sum of the pseudo-header only, as a driver leaves it.
Bytes make_packet(Mac const& to, Mac const& from, u8 protocol, std::size_t payload, u8 mark = 0) {
    std::size_t const header = protocol == TCP ? 20 : 8;
    Bytes frame = make_frame(to, from, transport_at + header + payload, mark);
    std::size_t const length = header + payload;
    Bytes const ip = {0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2};
    std::ranges::copy(ip, frame.begin() + ip_at);
    frame[ip_at + 2] = static_cast<u8>((20 + length) >> 8), frame[ip_at + 3] = static_cast<u8>(20 + length);
    Bytes pseudo(frame.begin() + ip_at + 12, frame.begin() + ip_at + 20);
    pseudo.insert(pseudo.end(), {0, protocol, static_cast<u8>(length >> 8), static_cast<u8>(length)});
    u16 const sum = plain_checksum(pseudo, 0);
    std::size_t const at = transport_at + (protocol == TCP ? 16U : 6U);
    frame[at] = static_cast<u8>(sum >> 8), frame[at + 1] = static_cast<u8>(sum);
    return frame;
}
Offload offload_of(u8 protocol) { return {1, 0, 0, 0, transport_at, static_cast<u16>(protocol == TCP ? 16 : 6)}; }

// What a receiver does: the sum over everything, the checksum and the pseudo-header included, has all bits set.
bool is_right(Bytes const& frame, u8 protocol) {
    Bytes all(frame.begin() + ip_at + 12, frame.begin() + ip_at + 20);
    std::size_t const length = frame.size() - transport_at;
    all.insert(all.end(), {0, protocol, static_cast<u8>(length >> 8), static_cast<u8>(length)});
    all.insert(all.end(), frame.begin() + transport_at, frame.end());
    return plain_checksum(all, 0) == 0xffff;
}

TEST(ChecksumTest, IsTheOneOfAPlainComputationForPiecesOfAnyLength) {
    std::mt19937 random(1);
    for (u32 i = 0; i < 3000; i++) {
        Bytes bytes(random() % 300);
        for (u8& byte : bytes)
            byte = static_cast<u8>(random() % 8 == 0 ? random() : 0xff);
        network::Checksum sum;
        for (std::size_t at = 0; at < bytes.size();) {
            std::size_t const part = std::min<std::size_t>(bytes.size() - at, random() % 20);
            sum.add(std::span(bytes).subspan(at, part));
            at += part;
        }
        u16 const plain = static_cast<u16>(~plain_checksum(bytes, 0)), value = sum.value();
        ASSERT_EQ(value, static_cast<u16>(plain << 8 | plain >> 8)) << i; // is stored as it is
    }
}

TEST(ChecksumTest, SumOfManyOnesLosesNoCarry) {
    Bytes const bytes(65550, 0xff);
    network::Checksum sum;
    sum.add(bytes);
    EXPECT_EQ(sum.value(), 0);
}

struct OffloadTest : NetworkTest {};

TEST_F(OffloadTest, ReceiverThatTakesPartialChecksumsGetsTheFrameAsItIs) {
    Driver &a = add(), &b = add();
    start();
    Bytes const frame = make_packet(mac_of(1), mac_of(0), TCP, 100);
    a.send(frame, offload_of(TCP));
    world.run();
    auto const received = b.next();
    ASSERT_TRUE(received);
    EXPECT_EQ(received->bytes, frame);
    EXPECT_EQ(received->offload.flags, 1);
    EXPECT_EQ(received->offload.checksum_start, transport_at);
    EXPECT_EQ(received->offload.checksum_offset, 16);
}

TEST_F(OffloadTest, ReceiverThatDoesNotGetsTheChecksumComputed) {
    Driver &a = add(), &b = add(0, feature::MRG_RXBUF), &c = add(0, 0);
    start();
    for (u8 const protocol : {TCP, UDP})
        for (std::size_t payload = 0; payload < 200; payload++) {
            b.add_buffers(1);
            c.add_buffers(1);
            Bytes frame = make_packet(broadcast, mac_of(0), protocol, payload, static_cast<u8>(payload));
            a.send(frame, offload_of(protocol));
            world.run();
            for (Driver* receiver : {&b, &c}) {
                auto const received = receiver->next();
                ASSERT_TRUE(received);
                EXPECT_EQ(received->offload.flags, 0);
                EXPECT_EQ(received->offload.checksum_start, 0);
                ASSERT_TRUE(is_right(received->bytes, protocol)) << payload;
                std::size_t const at = transport_at + (protocol == TCP ? 16U : 6U);
                frame[at] = received->bytes[at], frame[at + 1] = received->bytes[at + 1];
                ASSERT_EQ(received->bytes, frame);
            }
            a.tx.next_used();
        }
}

TEST_F(OffloadTest, ChecksumOfAFrameInOddPiecesIsRight) {
    Driver &a = add(), &b = add(0, 0);
    start();
    Bytes const frame = make_packet(mac_of(1), mac_of(0), UDP, 61, 9);
    for (u32 first = 25; first < 100; first += 1) {
        b.add_buffers(1);
        u64 const at = Driver::transmit_at, end = at + 0x1001;
        u32 const size = a.put_frame(at, frame, offload_of(UDP));
        a.guest.put_bytes(end, a.guest.get_bytes(at + first, size - first));
        a.tx.add({{at, first, false}, {end, 1, false}, {end + 1, size - first - 1, false}});
        world.ring(0);
        world.run();
        a.tx.next_used();
        auto const received = b.next();
        ASSERT_TRUE(received);
        ASSERT_TRUE(is_right(received->bytes, UDP)) << first;
    }
}

TEST_F(OffloadTest, ChecksumOfZeroIsWrittenAsOnes) {
    Driver &a = add(), &b = add(0, 0);
    start();
    Bytes frame = make_packet(mac_of(1), mac_of(0), UDP, 2);
    frame[42] = frame[43] = 0;
    u16 const sum = plain_checksum(frame, transport_at);
    frame[42] = static_cast<u8>(~sum >> 8), frame[43] = static_cast<u8>(~sum); // now it is 0xffff
    a.send(frame, offload_of(UDP));
    world.run();
    auto const received = b.next();
    ASSERT_TRUE(received);
    EXPECT_EQ(received->bytes[40], 0xff);
    EXPECT_EQ(received->bytes[41], 0xff);
}

TEST_F(OffloadTest, HeadersThatPointElsewhereAreDropped) {
    Driver &a = add(), &b = add();
    start();
    Bytes const frame = make_packet(mac_of(1), mac_of(0), UDP, 20);
    u16 const size = static_cast<u16>(frame.size());
    u32 expected = 0;
    for (auto const& [begin, offset] : std::vector<std::pair<u16, u16>>{{0, 0},
                                                                        {0, 6}, // the source address
                                                                        {33, 0},
                                                                        {33, 20},
                                                                        {34, static_cast<u16>(size - 35)},
                                                                        {size, 0},
                                                                        {0xffff, 0xffff},
                                                                        {34, 0xfffe}}) {
        a.send(frame, {1, 0, 0, 0, begin, offset});
        world.run();
        EXPECT_EQ(world.dropped(0, Drop::BadHeader), ++expected) << begin << ' ' << offset;
    }
    EXPECT_FALSE(b.next());
    a.send(frame, {1, 0, 0, 0, 34, static_cast<u16>(size - 36)}); // the last two bytes
    world.run();
    EXPECT_TRUE(b.next());
    EXPECT_EQ(world.misuses[0], 0U);
}

TEST_F(OffloadTest, WhatTheDriverDidNotAcceptIsDropped) {
    Driver &a = add(0, feature::MRG_RXBUF), &b = add();
    start();
    a.send(make_packet(mac_of(1), mac_of(0), UDP, 20), offload_of(UDP));
    a.send(make_packet(mac_of(1), mac_of(0), TCP, 20), {0, 1, 54, 100, 0, 0}); // segments
    world.run();
    EXPECT_EQ(world.dropped(0, Drop::BadHeader), 2U);
    EXPECT_FALSE(b.next());
}

TEST_F(OffloadTest, UnknownFlagsAreIgnored) {
    Driver &a = add(), &b = add();
    start();
    Offload offload = {0xfe, 0, 0xaaaa, 0xbbbb, 0xcccc, 0xdddd};
    a.send(make_frame(mac_of(1), mac_of(0)), offload);
    world.run();
    auto const received = b.next();
    ASSERT_TRUE(received);
    offload = {};
    EXPECT_EQ(std::memcmp(&received->offload, &offload, sizeof(offload)), 0);
}

TEST_F(OffloadTest, FrameFillsAsManyMergeableBuffersAsItNeeds) {
    for (u32 const buffer_size : {12U, 13U, 14U, 25U, 26U, 27U, 50U, 128U, 1526U}) {
        drivers.clear();
        world.guests.clear();
        Driver &a = add(), &b = add(0, all_offloads, 64, buffer_size);
        start();
        for (u32 size = 14; size <= 1514; size += 25) {
            u32 const needed = (size + header_size + buffer_size - 1) / buffer_size;
            Bytes const frame = make_frame(mac_of(1), mac_of(0), size, static_cast<u8>(size));
            a.send(frame);
            world.run();
            a.tx.next_used();
            if (needed > 64) continue;
            auto const received = b.next();
            ASSERT_TRUE(received) << buffer_size << ' ' << size;
            EXPECT_EQ(received->bytes, frame);
            EXPECT_EQ(received->buffers, needed);
            b.add_buffers(needed);
        }
        EXPECT_EQ(world.misuses[1], 0U);
    }
}

TEST_F(OffloadTest, ChecksumIsComputedAcrossMergeableBuffers) {
    for (u32 const buffer_size : {29U, 52U, 53U, 61U}) {
        drivers.clear();
        world.guests.clear();
        Driver &a = add(), &b = add(0, feature::MRG_RXBUF, 64, buffer_size);
        start();
        a.send(make_packet(mac_of(1), mac_of(0), TCP, 333), offload_of(TCP));
        world.run();
        auto const received = b.next();
        ASSERT_TRUE(received);
        EXPECT_GT(received->buffers, 5);
        EXPECT_TRUE(is_right(received->bytes, TCP)) << buffer_size;
    }
}

TEST_F(OffloadTest, FrameWithTooFewMergeableBuffersLeavesThemForTheNext) {
    Driver &a = add(), &b = add(0, all_offloads, 3, 200);
    start();
    Bytes const small = make_frame(mac_of(1), mac_of(0), 500, 1);
    a.send(make_frame(mac_of(1), mac_of(0), 589, 2)); // one byte too many
    a.send(small);
    world.run();
    EXPECT_EQ(world.dropped(1, Drop::NoBuffer), 1U);
    auto const received = b.next();
    ASSERT_TRUE(received);
    EXPECT_EQ(received->bytes, small);
    EXPECT_EQ(received->buffers, 3);
    b.add_buffers(3);
    a.send(make_frame(mac_of(1), mac_of(0), 588, 3));
    world.run();
    expect_received(b, make_frame(mac_of(1), mac_of(0), 588, 3));
}

TEST_F(OffloadTest, FrameFitsItsOneBufferOrIsDropped) {
    Driver &a = add(), &b = add(0, 0, 8, 200);
    start();
    a.send(make_frame(mac_of(1), mac_of(0), 189));
    a.send(make_frame(mac_of(1), mac_of(0), 188));
    world.run();
    EXPECT_EQ(world.dropped(1, Drop::TooLarge), 1U);
    expect_received(b, make_frame(mac_of(1), mac_of(0), 188));
    EXPECT_EQ(b.rx.device_index(), 1); // the buffer that was too small got the next one
}

TEST_F(OffloadTest, BuffersOfManyPiecesAreFilledInOrder) {
    Driver &a = add(), &b = add(0, all_offloads, 0);
    start();
    Bytes const frame = make_frame(mac_of(1), mac_of(0), 70, 4);
    // The header is cut in the middle of its count of buffers; the frame needs two chains.
    b.rx.add({{0x1'0000, 11, true}, {0x1'1000, 0, true}, {0x1'2000, 1, true}, {0x1'3000, 40, true}});
    b.rx.add({{0x1'4000, 1, true}, {0x1'5000, 100, true}});
    a.send(frame);
    world.run();
    ASSERT_EQ(b.rx.device_index(), 2);
    EXPECT_EQ(b.rx.next_used().written, 52U);
    EXPECT_EQ(b.rx.next_used().written, 30U);
    EXPECT_EQ(b.guest.get<u8>(0x1'000a), 2);
    EXPECT_EQ(b.guest.get<u8>(0x1'2000), 0);
    Bytes all = b.guest.get_bytes(0x1'3000, 40);
    for (auto const& [at, size] : {std::pair<u64, u64>{0x1'4000, 1}, {0x1'5000, 29}}) {
        Bytes const part = b.guest.get_bytes(at, size);
        all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_EQ(all, frame);
    EXPECT_EQ(b.guest.get<u8>(0x1'5000 + 29), 0); // nothing after it
}

} // namespace
