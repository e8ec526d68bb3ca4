// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <lib/memory.hpp>
#include <network/checksum.hpp>
#include <network/segmenter.hpp>
#include <network/wire.hpp>

namespace network {
namespace {

constexpr u8 FIN = 0x01, PSH = 0x08, CWR = 0x80; // of TCP
constexpr u8 TCP = 6;

} // namespace

Segmenter::Segmenter(Frame const& frame) : frame_(frame), after_(frame.body()) {
    u32 const size = static_cast<u32>(frame.headers().size());
    left_ = frame.size() - size;
    for (u32 skip = size - Frame::ethernet_size; skip != 0;)
        skip -= static_cast<u32>(frame.next(after_, skip).size());
}

bool Segmenter::next() {
    if (left_ == 0) return false;
    payload_ = after_;
    payload_size_ = std::min<u32>(left_, frame_.header().gso_size);
    left_ -= payload_size_;
    u32 const index = count_++;
    std::ranges::copy(frame_.headers(), headers_.begin());
    write_ip(index);
    write_tcp(index, left_ == 0); // moves after_
    return true;
}

void Segmenter::write_ip(u32 index) {
    u8* const ip = headers_.data() + frame_.ip_at();
    u32 const size = static_cast<u32>(headers().size()) - frame_.ip_at() + payload_size_;
    if (frame_.is_ipv6()) { // which does not count its own header [rfc/8200] 3
        store_big16(ip + 4, size - Frame::ipv6_header);
        return;
    }
    store_big16(ip + 2, size);
    store_big16(ip + 4, load_big16(ip + 4) + index); // the identification is another for each
    lib::store(ip + 10, u16{0});
    Checksum sum;
    sum.add({ip, tcp_at() - frame_.ip_at()});
    lib::store(ip + 10, sum.value());
}

void Segmenter::write_tcp(u32 index, bool is_last) {
    u8* const tcp = headers_.data() + tcp_at();
    store_big32(tcp + 4, load_big32(tcp + 4) + index * frame_.header().gso_size);
    // What ends the data is in the last segment, what is said once in the first.
    if (!is_last) tcp[13] &= static_cast<u8>(~(FIN | PSH));
    if (index != 0) tcp[13] &= static_cast<u8>(~CWR);
    lib::store(tcp + 16, u16{0});
    Checksum sum;
    u8 const* const ip = headers_.data() + frame_.ip_at();
    sum.add(frame_.is_ipv6() ? std::span(ip + 8, 32) : std::span(ip + 12, 8)); // both addresses
    u32 const tcp_header = static_cast<u32>(headers().size()) - tcp_at();
    std::array<u8, 8> pseudo{}; // length and protocol; where the zeroes are makes no difference [rfc/8200] 8.1
    store_big32(pseudo.data(), tcp_header + payload_size_);
    pseudo[7] = TCP;
    sum.add(pseudo);
    sum.add({tcp, tcp_header});
    after_ = payload_;
    for (u32 left = payload_size_; left != 0;) {
        std::span<u8 const> const piece = frame_.next(after_, left);
        sum.add(piece);
        left -= static_cast<u32>(piece.size());
    }
    lib::store(tcp + 16, sum.value());
}

} // namespace network
