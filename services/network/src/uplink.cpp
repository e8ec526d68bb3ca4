// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <lib/format.hpp>
#include <network/uplink.hpp>

namespace network {

bool Uplink::poll(u64 now, bool is_interrupted, Host& host) {
    if (!is_present() || (!is_interrupted && now < device_->deadline())) return false;
    (void)device_->poll(now, is_interrupted, {}); // no frame has a tag
    statistics_->link = link();
    if (has_failed_ || device_->state() != net::NetDevice::State::Failed) return true;
    has_failed_ = true;
    char text[120];
    host.log(lib::format_to(text, "the uplink of network {} {}", network_, device_->failure()));
    return true;
}

std::optional<EthernetAddress> Uplink::address() const {
    if (!is_present() || device_->state() != net::NetDevice::State::Ready || !device_->has_link()) return std::nullopt;
    net::Address const address = device_->address();
    return load_address(address.data());
}

lib::service::LinkState Uplink::link() const {
    using lib::service::LinkState;
    switch (device_->state()) {
    case net::NetDevice::State::Starting: return LinkState::Unknown;
    case net::NetDevice::State::Failed: return LinkState::Failed;
    case net::NetDevice::State::Ready: break;
    }
    return device_->has_link() ? LinkState::Up : LinkState::Down;
}

u64 Uplink::deadline() const { return is_present() ? device_->deadline() : net::NetDevice::never; }

Uplink::Took Uplink::take(Frame& frame) {
    if (!is_present()) return Took::Nothing;
    if (taken_ == frames_per_ring) ring();
    std::span<u8 const> const bytes = device_->next_frame();
    if (bytes.empty()) return Took::Nothing;
    taken_++;
    if (!frame.begin(bytes)) {
        drop(Drop::BadSize);
        return Took::Dropped;
    }
    // A station outside that uses the address of a NIC here is found by the caller: it counts as sent, and as dropped.
    statistics_->sent_frames++;
    statistics_->sent_bytes += bytes.size();
    return Took::Frame;
}

u32 Uplink::send(Frame& frame, u64 now) {
    if (!frame.is_large()) {
        (void)put(frame, now);
        return 1;
    }
    u32 count = 0;
    bool has_room = true;
    for (Segmenter segment(frame); has_room && segment.next(); count++)
        has_room = put(frame, segment, now);
    return count;
}

// Room for a frame; empty: it was dropped.
std::span<u8> Uplink::room(u32 size) {
    std::span<u8> const found = device_->frame_room();
    if (found.size() >= size) return found.first(size);
    drop(!device_->has_link() ? Drop::NotReady : found.empty() ? Drop::NoBuffer : Drop::TooLarge);
    return {};
}

// The receiver is anybody, so the checksum must be there.
bool Uplink::put(Frame& frame, u64 now) {
    std::span<u8> const out = room(frame.size());
    if (out.empty()) return false;
    std::memcpy(out.data(), frame.ethernet().data(), Frame::ethernet_size);
    std::span<u8> const body = out.subspan(Frame::ethernet_size);
    Frame::Cursor cursor = frame.body();
    frame.copy(cursor, body);
    if (frame.needs_checksum()) {
        u16 const checksum = frame.checksum();
        std::memcpy(body.data() + frame.checksum_at(), &checksum, sizeof(checksum));
    }
    sent(frame.size(), now);
    return true;
}

bool Uplink::put(Frame const& frame, Segmenter const& segment, u64 now) {
    std::span<u8 const> const headers = segment.headers();
    u32 const size = static_cast<u32>(headers.size()) + segment.payload_size();
    std::span<u8> const out = room(size);
    if (out.empty()) return false;
    std::memcpy(out.data(), headers.data(), headers.size());
    Frame::Cursor cursor = segment.payload();
    frame.copy(cursor, out.subspan(headers.size()));
    sent(size, now);
    return true;
}

void Uplink::sent(u32 size, u64 now) {
    device_->transmit_room(size, now);
    statistics_->received_frames++;
    statistics_->received_bytes += size;
}

void Uplink::ring() {
    if (!is_present()) return;
    device_->ring();
    taken_ = 0;
}

} // namespace network
