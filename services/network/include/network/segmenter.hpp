// SPDX-License-Identifier: MIT
#pragma once
// Cuts a large TCP frame (TSO) into frames that every receiver takes, as a NIC would do it: each with a copy of the
// headers, in which lengths, sequence number, flags and checksums are its own. [rfc/9293] 3.1, [rfc/791] 3.1
#include <network/frame.hpp>

namespace network {

class Segmenter {
public:
    // The frame is large, and outlives this object.
    explicit Segmenter(Frame const& frame);

    // Goes to the next segment, the first one included. Returns false if there is none.
    [[nodiscard]] bool next();
    std::span<u8 const> headers() const { return std::span(headers_).first(frame_.headers().size()); }
    Frame::Cursor payload() const { return payload_; }
    u32 payload_size() const { return payload_size_; }

private:
    u32 tcp_at() const { return frame_.header().checksum_start; }
    void write_ip(u32 index);
    void write_tcp(u32 index, bool is_last);

    Frame const& frame_;
    std::array<u8, Frame::max_headers> headers_{};
    Frame::Cursor payload_{}, after_{}; // of this segment, and the end of it
    u32 payload_size_ = 0, left_ = 0, count_ = 0;
};

} // namespace network
