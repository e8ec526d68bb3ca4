// SPDX-License-Identifier: MIT
#pragma once
// What every driver of a network interface does. Nothing of it waits: poll() brings everything forward, and the driver
// says when it wants to be called again. A device is hostile: whatever it answers, every wait ends, no read leaves the
// driver's memory, and the tag of a frame comes back exactly once.
#include <array>
#include <lib/device_function.hpp>

namespace net {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using Function = lib::DeviceFunction;
using Address = std::array<u8, 6>;

// Memory, by the address that the device must use.
struct Piece {
    u64 address;
    u32 size;
};

// What a frame to send must be like. Sizes are without the checksum at the frame's end.
struct Limits {
    u32 smallest, largest; // bytes of a frame that is given in pieces
    u32 most_pieces;
    u64 highest_address; // of any byte
};

struct Statistics {
    u64 sent = 0, received = 0;
    u64 lost = 0; // taken to be sent, and not sent when the device was reset
    u64 bad = 0;  // received with an error, or larger than a buffer
    u64 resets = 0;
};

class NetDevice {
public:
    enum class State : u8 { Starting, Ready, Failed };
    static constexpr u64 never = ~u64{0};

    // Goes on with the start or a recovery, looks at the link, and finds a device that hangs. Called after each
    // interrupt (`is_interrupted`) and at deadline() at the latest, with the present time in ticks. Returns how many
    // tags of frames it has put into `sent`; as many as there is room for: it must be called again.
    virtual u32 poll(u64 now, bool is_interrupted, std::span<u32> sent) = 0;
    virtual u64 deadline() const = 0; // never: no call is needed
    // A device that recovers is Starting again.
    virtual State state() const = 0;
    // Why it failed, as a sentence without its subject.
    virtual std::string_view failure() const = 0;
    // While Ready, and after it.
    virtual Address address() const = 0;
    virtual bool has_link() const = 0;
    virtual Limits limits() const = 0;
    virtual Statistics const& statistics() const = 0;

    // Takes a frame that obeys limits(); its memory belongs to the device until poll() gives the tag back. It may begin
    // at once or with ring(). False: nothing was taken, because there is no room or no link.
    [[nodiscard]] virtual bool transmit(std::span<Piece const> pieces, u32 tag, u64 now) = 0;
    // Returns room for one frame of limits().largest bytes in shared memory; empty if there is none, or no link.
    virtual std::span<u8> frame_room() = 0;
    // Takes the frame whose `size` bytes were put there. A short one is padded with zeroes.
    virtual void transmit_room(u32 size, u64 now) = 0;

    // Returns the next frame that was received; empty: there is none. The device may change it at any time, so each of
    // its bytes should be read once. It is there until the next call of this object's functions, except frame_room()
    // and transmit_room(). No interrupt reminds the caller of frames that it has left here. Between two calls of
    // ring(), not more frames come than there are buffers.
    virtual std::span<u8 const> next_frame() = 0;
    // Tells the device of frames to send and of buffers that are free again.
    virtual void ring() = 0;

protected:
    ~NetDevice() = default;
};

} // namespace net
