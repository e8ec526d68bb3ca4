// SPDX-License-Identifier: MIT
#include <network/packet.hpp>

namespace network {
namespace {

constexpr u32 ttl_at = 8, header_sum_at = 10, icmp_sum_at = 2, icmp_identifier_at = 4, udp_sum_at = 6, tcp_sum_at = 16;

} // namespace

u8* Packet::checksum() {
    bool const is_udp = static_cast<Transport>(ip_.protocol) == Transport::Udp;
    return payload().data() + (is_udp ? udp_sum_at : tcp_sum_at);
}

// UDP without a checksum stays so, and a sum of zero is written as the other zero. [rfc/768]
void Packet::set(u32 address_offset, u32 port_offset, Ipv4Address address, u16 port) {
    u8* const header = this->header().data();
    u8* const transport = payload().data();
    ChecksumChange change;
    change.store32(header + address_offset, address);
    change.apply(header + header_sum_at);
    if (static_cast<Transport>(ip_.protocol) == Transport::Icmp) {
        ChecksumChange identifier; // there is no pseudo header
        identifier.store16(transport + icmp_identifier_at, port);
        identifier.apply(transport + icmp_sum_at);
        return;
    }
    u8* const sum = checksum();
    if (is_partial_) { // ports are not in it yet
        change.apply_to_partial(sum);
        return store_big16(transport + port_offset, port);
    }
    change.store16(transport + port_offset, port);
    bool const is_udp = static_cast<Transport>(ip_.protocol) == Transport::Udp;
    if (is_udp && lib::load<u16>(sum) == 0) return;
    change.apply(sum);
    if (is_udp && lib::load<u16>(sum) == 0) lib::store(sum, u16{0xffff});
}

void Packet::set_address(u32 offset, Ipv4Address address) {
    u8* const header = this->header().data();
    ChecksumChange change;
    change.store32(header + offset, address);
    change.apply(header + header_sum_at);
}

void Packet::count_hop() {
    u8* const header = this->header().data();
    ChecksumChange change;
    change.store8(header + ttl_at, 0, header[ttl_at] - 1U);
    change.apply(header + header_sum_at);
}

void Packet::sum_icmp() {
    u8* const sum = payload().data() + icmp_sum_at;
    lib::store(sum, u16{0});
    lib::store(sum, sum_of(payload()));
}

void Packet::complete_checksum() {
    if (!is_partial_) return;
    u16 const value = sum_of(payload());
    lib::store(checksum(), value != 0 ? value : u16{0xffff});
    is_partial_ = false;
}

} // namespace network
