// SPDX-License-Identifier: MIT
// Headers as they stand in frames, changes of checksums, and random numbers.
#include "nat_world.hpp"
#include <network/random.hpp>

using namespace network_test;

TEST(Wire, AChangedChecksumIsTheOneOfTheChangedBytes) {
    network::Random random(1, 2);
    for (u32 round = 0; round < 2000; round++) {
        Bytes bytes(20);
        for (u8& byte : bytes)
            byte = round < 4 ? static_cast<u8>(round * 0xff) : static_cast<u8>(random.next());
        bytes[10] = bytes[11] = 0;
        u16 const sum = network::sum_of(bytes);
        std::memcpy(bytes.data() + 10, &sum, 2);
        network::ChecksumChange change;
        change.store32(bytes.data() + 12, static_cast<u32>(random.next()));
        change.store16(bytes.data() + 4, round < 10 ? 0xffff : static_cast<u16>(random.next()));
        change.store8(bytes.data() + 9, 1, static_cast<u8>(random.next()));
        change.apply(bytes.data() + 10);
        EXPECT_EQ(network::sum_of(bytes), 0);
    }
}

TEST(Wire, HeadersThatMakeNoSenseAreRefused) {
    Bytes const frame = make_packet(router_mac, mac_of(0), {address_of(0), far, Transport::Tcp, 1, 2, 0, {1, 2, 3}});
    Bytes const packet(frame.begin() + 14, frame.end());
    EXPECT_TRUE(network::read_ipv4(packet));
    for (std::size_t size = 0; size < packet.size(); size++)
        EXPECT_FALSE(network::read_ipv4(std::span(packet).first(size))) << size;
    for (std::size_t at = 0; at < 20; at++) {
        Bytes damaged = packet;
        damaged[at] ^= 0x11;
        EXPECT_FALSE(network::read_ipv4(damaged)) << at;
    }
    Bytes tcp(packet.begin() + 20, packet.end());
    EXPECT_TRUE(network::read_ports(6, tcp));
    for (std::size_t size = 0; size < 20; size++)
        EXPECT_FALSE(network::read_ports(6, std::span(tcp).first(size))) << size;
    tcp[12] = 0x40;
    EXPECT_FALSE(network::read_ports(6, tcp)) << "a header of 16 bytes";
    tcp[12] = 0xf0;
    EXPECT_FALSE(network::read_ports(6, tcp)) << "a header longer than the packet";
    EXPECT_FALSE(network::read_ports(47, tcp));
    Bytes const udp{0, 1, 0, 2, 0, 9, 0, 0};
    EXPECT_FALSE(network::read_ports(17, udp)) << "longer than the packet";
    EXPECT_TRUE(network::read_ports(17, udp, false)) << "as ICMP repeats it";
}

// The test vector of the paper's appendix is for 15 bytes; this is entry 8 of the table beside it. [siphash]
TEST(Wire, RandomNumbersAreThoseOfSipHash) {
    network::Random const random(0x0706'0504'0302'0100, 0x0f0e'0d0c'0b0a'0908);
    EXPECT_EQ(random.siphash(0x0706'0504'0302'0100), 0x93f5'f579'9a93'2462U);
}
