// SPDX-License-Identifier: MIT
#pragma once
// One IPv4 packet in the memory of the router, whose addresses and ports it changes, with all checksums that cover
// them. [rfc/3022] 4
#include <network/wire.hpp>

namespace network {

class Packet {
public:
    // `frame`: with an Ethernet header and nothing after the packet. `ip` is what read_ipv4() says of it. A partial
    // checksum is that of a guest that has left the rest to its NIC.
    Packet(std::span<u8> frame, Ipv4 const& ip, bool has_partial_checksum)
        : frame_(frame), ip_(ip), is_partial_(has_partial_checksum) {}

    Ipv4 const& ip() const { return ip_; }
    std::span<u8> frame() { return frame_; }
    std::span<u8> header() { return frame_.subspan(ip_at, ip_.header_size); }
    std::span<u8> payload() { return frame_.subspan(ip_at + ip_.header_size); }
    bool has_partial_checksum() const { return is_partial_; }

    // The ports must have been read. Those of ICMP are its identifier, whichever is named.
    void set_source(Ipv4Address address, u16 port) { set(12, 0, address, port); }
    void set_destination(Ipv4Address address, u16 port) { set(16, 2, address, port); }
    // Of the header only.
    void set_source_address(Ipv4Address address) { set_address(12, address); }
    void set_destination_address(Ipv4Address address) { set_address(16, address); }
    void count_hop();
    // Of an ICMP message, after its contents were changed.
    void sum_icmp();
    // Computes what a guest has left out. Before ports are changed or after it.
    void complete_checksum();

private:
    void set(u32 address_offset, u32 port_offset, Ipv4Address address, u16 port);
    void set_address(u32 offset, Ipv4Address address);
    u8* checksum(); // of UDP and TCP

    std::span<u8> frame_;
    Ipv4 ip_;
    bool is_partial_;
};

} // namespace network
