// SPDX-License-Identifier: MIT
#pragma once
// A network's way out: one of the machine's NICs as a port of the switch.
//
// A frame that goes out is copied into memory of the driver, with all that its sender has left to be done: so nothing
// of a guest is under way after a turn. A frame that comes in stays there until it was copied to all its receivers.
#include <net/net_device.hpp>
#include <network/frame.hpp>
#include <network/segmenter.hpp>
#include <network/statistics.hpp>

namespace network {

class Uplink {
public:
    static constexpr u32 frames_per_ring = 32; // after so many, the device gets their buffers back
    enum class Took : u8 { Frame, Dropped, Nothing };

    Uplink() = default;
    Uplink(Uplink const&) = delete;
    Uplink& operator=(Uplink const&) = delete;

    // `device` and `statistics` outlive this object.
    void connect(net::NetDevice& device, u32 network, Statistics& statistics) {
        device_ = &device;
        network_ = network;
        statistics_ = &statistics;
    }
    bool is_present() const { return device_ != nullptr; }
    u32 network() const { return network_; }
    // Of the device, once it is ready.
    std::optional<EthernetAddress> address() const;
    Statistics const& statistics() const { return *statistics_; }

    // Brings the device forward if it has interrupted or wants to be called now. Returns whether it was called: then
    // frames may have come.
    bool poll(u64 now, bool is_interrupted, Host& host);
    u64 deadline() const; // of the next poll
    // Takes the next frame from outside. It is there until the next call of this or of ring().
    [[nodiscard]] Took take(Frame& frame);
    void drop(Drop reason) { (*statistics_)[reason]++; }
    // Sends a frame of a guest, or drops it. Returns how many frames that were.
    u32 send(Frame& frame, u64 now);
    // Tells the device what was done since this was called last.
    void ring();

private:
    lib::service::LinkState link() const;
    std::span<u8> room(u32 size);
    bool put(Frame& frame, u64 now);
    bool put(Frame const& frame, Segmenter const& segment, u64 now);
    void sent(u32 size, u64 now);

    net::NetDevice* device_ = nullptr; // there is none
    u32 network_ = 0;
    u32 taken_ = 0; // since ring()
    bool has_failed_ = false;
    Statistics* statistics_ = nullptr;
};

} // namespace network
