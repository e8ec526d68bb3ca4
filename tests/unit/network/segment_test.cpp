// SPDX-License-Identifier: MIT
// Large TCP frames: whole for receivers that take them, cut for the others.
#include "nics.hpp"

namespace {

using namespace network_test;

constexpr u8 FIN = 0x01, PSH = 0x08, ACK = 0x10, CWR = 0x80;
constexpr u32 only_small = feature::MRG_RXBUF | feature::GUEST_CSUM;
constexpr u64 large_at = Guest::high_area + 0x3'0000;
constexpr u32 first_sequence = 0xffff'ff00; // wraps around

struct Shape {
    bool is_ipv6 = false, has_tag = false;
    u32 options = 0; // bytes, of TCP
    u32 ip_at() const { return has_tag ? 18 : 14; }
    u32 tcp_at() const { return ip_at() + (is_ipv6 ? 40 : 20); }
    u32 headers() const { return tcp_at() + 20 + options; }
};

void put16(Bytes& bytes, u32 at, u32 value) {
    bytes[at] = static_cast<u8>(value >> 8);
    bytes[at + 1] = static_cast<u8>(value);
}
void put32(Bytes& bytes, u32 at, u32 value) {
    put16(bytes, at, value >> 16);
    put16(bytes, at + 2, value);
}
u32 get16(Bytes const& bytes, u32 at) { return u32{bytes[at]} << 8 | bytes[at + 1]; }
u32 get32(Bytes const& bytes, u32 at) { return get16(bytes, at) << 16 | get16(bytes, at + 2); }
u32 sum_of(Bytes const& bytes, u32 from, u32 to) {
    u64 sum = 0;
    for (u32 i = from; i < to; i++)
        sum += (i - from) % 2 == 0 ? u32{bytes[i]} << 8 : bytes[i];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<u32>(sum);
}

Bytes make_large(Shape const& shape, u32 payload, Mac const& to, Mac const& from) {
    Bytes frame = make_frame(to, from, shape.headers() + payload, 1);
    u32 const ip = shape.ip_at(), tcp = shape.tcp_at(), type = shape.is_ipv6 ? 0x86dd : 0x0800;
    if (shape.has_tag) put16(frame, 12, 0x8100), put16(frame, 14, 0x0123);
    put16(frame, ip - 2, type);
    if (shape.is_ipv6) {
        put32(frame, ip, 0x6000'0000);
        put16(frame, ip + 4, static_cast<u32>(frame.size()) - tcp);
        frame[ip + 6] = 6;
    } else {
        put16(frame, ip, 0x4500);
        put16(frame, ip + 2, static_cast<u32>(frame.size()) - ip);
        put16(frame, ip + 4, 0xfffe);
        put16(frame, ip + 6, 0x4000);
        put16(frame, ip + 8, 0x4006);
    }
    put32(frame, tcp + 4, first_sequence);
    put16(frame, tcp + 12, (20 + shape.options) / 4 << 12 | FIN | PSH | ACK | CWR);
    put16(frame, tcp + 16, 0x1234); // of no concern
    return frame;
}

// Reads one segment as a receiver does: everything in it must be right. Appends its payload.
void expect_segment(Bytes const& large, Bytes const& frame, Shape const& shape, u32 index, bool is_last,
                    Bytes& payload) {
    u32 const ip = shape.ip_at(), tcp = shape.tcp_at(), size = static_cast<u32>(frame.size());
    ASSERT_GT(size, shape.headers());
    u32 const sequence = first_sequence + static_cast<u32>(payload.size());
    u32 addresses = 0;
    if (shape.is_ipv6) {
        EXPECT_EQ(get16(frame, ip + 4), size - tcp);
        addresses = sum_of(frame, ip + 8, ip + 40);
    } else {
        EXPECT_EQ(get16(frame, ip + 2), size - ip);
        EXPECT_EQ(get16(frame, ip + 4), (0xfffe + index) & 0xffff);
        EXPECT_EQ(sum_of(frame, ip, ip + 20), 0xffffU);
        addresses = sum_of(frame, ip + 12, ip + 20);
    }
    EXPECT_EQ(get32(frame, tcp + 4), sequence);
    u32 const flags = ACK | (is_last ? FIN | PSH : 0U) | (index == 0 ? CWR : 0U);
    EXPECT_EQ(frame[tcp + 13], flags);
    u32 const sum = addresses + 6 + (size - tcp) + sum_of(frame, tcp, size);
    EXPECT_EQ((sum & 0xffff) + (sum >> 16), 0xffffU);
    // All else is as it was.
    Bytes rest = frame;
    rest.resize(shape.headers());
    std::vector<std::pair<u32, u32>> own = {{tcp + 4, 4}, {tcp + 13, 1}, {tcp + 16, 2}};
    if (shape.is_ipv6)
        own.push_back({ip + 4, 2});
    else
        own.insert(own.end(), {{ip + 2, 4}, {ip + 10, 2}});
    for (auto const& [at, count] : own)
        std::copy_n(large.begin() + at, count, rest.begin() + at);
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(), large.begin()));
    payload.insert(payload.end(), frame.begin() + shape.headers(), frame.end());
}

struct SegmentTest : NetworkTest {
    void send(Driver& driver, Bytes const& frame, Shape const& shape, u16 segment) {
        send(driver, frame,
             Offload{1, static_cast<u8>(shape.is_ipv6 ? 4 : 1), 0, segment, static_cast<u16>(shape.tcp_at()), 16});
    }
    // In pieces, so that headers and payload are cut where nobody expects it.
    void send(Driver& driver, Bytes const& frame, Offload const& offload) {
        u32 const size = driver.put_frame(large_at, frame, offload);
        u32 const first = std::min(size, 40U), second = std::min(size - first, 33U);
        driver.tx.add({{large_at, first, false},
                       {large_at + first, second, false},
                       {large_at + first + second, size - first - second, false}});
        world.ring(driver.device);
        world.run();
        driver.tx.next_used();
    }
};

TEST_F(SegmentTest, ReceiverThatTakesLargeFramesGetsThemWhole) {
    Driver &a = add(0, large_frames), &b = add(0, large_frames, 64);
    start();
    for (bool const is_ipv6 : {false, true}) {
        Shape const shape{is_ipv6, false, 12};
        Bytes const frame = make_large(shape, 65'000 - shape.headers(), mac_of(1), mac_of(0));
        u16 const segment = static_cast<u16>(1514 - shape.headers());
        send(a, frame, shape, segment);
        auto const received = b.next();
        ASSERT_TRUE(received);
        EXPECT_EQ(received->bytes, frame);
        EXPECT_EQ(received->buffers, 41);
        EXPECT_EQ(received->offload.flags, 1);
        EXPECT_EQ(received->offload.gso_type, is_ipv6 ? 4 : 1);
        EXPECT_EQ(received->offload.gso_size, segment);
        EXPECT_EQ(received->offload.header_length, shape.headers());
        EXPECT_EQ(received->offload.checksum_start, shape.tcp_at());
        EXPECT_EQ(received->offload.checksum_offset, 16);
        b.add_buffers(41);
    }
    EXPECT_EQ(world.statistics(1).received_frames, 2U);
}

TEST_F(SegmentTest, OtherReceiversGetRightSegments) {
    Driver &a = add(0, large_frames), &b = add(0, only_small, 64), &c = add(0, 0, 64);
    start();
    for (u32 i = 0; i < 8; i++) {
        Shape const shape{(i & 1) != 0, (i & 2) != 0, (i & 4) != 0 ? 40U : 0U};
        for (auto const& [payload, segment] :
             {std::pair<u32, u16>{30'000, 1001}, {20'000, 1000}, {5, 1000}, {1001, 1000}}) {
            Bytes const frame = make_large(shape, payload, broadcast, mac_of(0));
            send(a, frame, shape, segment);
            u32 const count = (payload + segment - 1) / segment;
            for (Driver* const receiver : {&b, &c}) {
                Bytes all;
                for (u32 j = 0; j < count; j++) {
                    auto const received = receiver->next();
                    ASSERT_TRUE(received);
                    EXPECT_EQ(received->offload.flags, 0);
                    ASSERT_NO_FATAL_FAILURE(expect_segment(frame, received->bytes, shape, j, j + 1 == count, all));
                    EXPECT_LE(all.size(), (j + 1) * segment);
                }
                EXPECT_FALSE(receiver->next());
                EXPECT_TRUE(std::equal(all.begin(), all.end(), frame.begin() + shape.headers(), frame.end()));
                receiver->add_buffers(count);
            }
        }
    }
    EXPECT_EQ(world.misuses[1] + world.misuses[2], 0U);
}

TEST_F(SegmentTest, ReceiverThatTakesTheOtherKindOnlyGetsSegments) {
    Driver &a = add(0, large_frames), &b = add(0, only_small | feature::GUEST_TSO6, 64);
    start();
    Shape const shape;
    send(a, make_large(shape, 3000, mac_of(1), mac_of(0)), shape, 1000);
    EXPECT_EQ(b.count_received(), 3U);
}

TEST_F(SegmentTest, LargeFramesNeedAReceiverThatTakesChecksumsLeftOut) {
    Driver &a = add(0, large_frames), &b = add(0, feature::MRG_RXBUF | feature::GUEST_TSO4, 64);
    start();
    Shape const shape;
    send(a, make_large(shape, 3000, mac_of(1), mac_of(0)), shape, 1000);
    EXPECT_EQ(b.count_received(), 3U);
}

TEST_F(SegmentTest, FullReceiverGetsTheFirstSegments) {
    Driver &a = add(0, large_frames), &b = add(0, only_small, 5);
    start();
    Shape const shape;
    send(a, make_large(shape, 20'000, mac_of(1), mac_of(0)), shape, 1000);
    EXPECT_EQ(b.count_received(), 5U);
    EXPECT_EQ(world.dropped(1, Drop::NoBuffer), 1U);
}

TEST_F(SegmentTest, FramesThatCannotBeCutAreDropped) {
    Driver &a = add(0, large_frames), &b = add(0, large_frames, 64);
    start();
    Shape const shape;
    u16 const tcp = static_cast<u16>(shape.tcp_at());
    Bytes const good = make_large(shape, 3000, mac_of(1), mac_of(0));
    u32 expected = 0;
    auto const expect_dropped = [&](Bytes const& frame, Offload const& offload, int line = __builtin_LINE()) {
        send(a, frame, offload);
        EXPECT_EQ(world.dropped(0, Drop::BadHeader), ++expected) << line;
    };
    auto const changed = [&](u32 at, u8 value) {
        Bytes frame = good;
        frame[at] = value;
        return frame;
    };
    Offload const right{1, 1, 0, 1000, tcp, 16};
    for (u8 const type : std::vector<u8>{2, 3, 4, 5, 0x80, 0x81, 0xff})
        expect_dropped(good, {1, type, 0, 1000, tcp, 16});
    expect_dropped(good, {0, 1, 0, 1000, tcp, 16});                    // no checksum to be computed
    expect_dropped(good, {1, 1, 0, 0, tcp, 16});                       // no size
    expect_dropped(good, {1, 1, 0, 2, tcp, 16});                       // too many
    expect_dropped(good, {1, 1, 0, 1461, tcp, 16});                    // segments that are too long
    expect_dropped(good, {1, 1, 0, 1000, tcp, 6});                     // UDP's checksum
    expect_dropped(good, {1, 1, 0, 1000, 35, 16});                     // is not where IP ends
    expect_dropped(good, {1, 1, 0, 1000, 180, 16});                    // headers that are too long
    expect_dropped(good, {1, 1, 0, 1000, 3040, 16});                   // headers that the frame does not have
    expect_dropped(changed(12, 0x86), right);                          // no IP
    expect_dropped(changed(14, 0x65), right);                          // no IPv4
    expect_dropped(changed(14, 0x44), right);                          // no header of IP
    expect_dropped(changed(23, 17), right);                            // no TCP
    expect_dropped(changed(tcp + 12U, 0x40), right);                   // no header of TCP
    expect_dropped(make_large(shape, 0, mac_of(1), mac_of(0)), right); // no payload
    EXPECT_FALSE(b.next());
    for (u16 const segment : {u16{1000}, u16{1460}}) {
        send(a, good, {1, 1, 0, segment, tcp, 16});
        EXPECT_TRUE(b.next()) << segment;
    }
    EXPECT_EQ(world.misuses[0], 0U);
}

TEST_F(SegmentTest, LargestFrameAndNoMore) {
    Driver &a = add(0, large_frames), &b = add(0, large_frames, 64);
    start();
    Shape const shape;
    for (u32 const size : {65'550U, 65'551U})
        send(a, make_large(shape, size - shape.headers(), mac_of(1), mac_of(0)), shape, 1448);
    EXPECT_EQ(b.count_received(), 1U);
    EXPECT_EQ(world.dropped(0, Drop::BadSize), 1U);
}

TEST_F(SegmentTest, SenderThatDidNotAcceptItHasItsLargeFramesDropped) {
    Driver &a = add(0, all_offloads | feature::HOST_TSO6), &b = add(0, large_frames);
    start();
    Shape const shape;
    send(a, make_large(shape, 3000, mac_of(1), mac_of(0)), shape, 1000);
    EXPECT_EQ(world.dropped(0, Drop::BadHeader), 1U);
    EXPECT_FALSE(b.next());
}

} // namespace
