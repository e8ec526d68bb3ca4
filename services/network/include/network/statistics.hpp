// SPDX-License-Identifier: MIT
#pragma once
// What one NIC has sent and received, and why frames were dropped. Lengths are without the virtio header. Of an uplink,
// what came from outside counts as sent, and what goes out as received, as its port sees it.
#include <array>
#include <lib/types.hpp>

namespace network {

enum class Drop : lib::u8 {
    // Of what its driver sent:
    BadHeader, // the virtio header asks for something that the driver did not accept, or that is not inside of the
               // frame
    BadSize,   // shorter than an Ethernet header, or longer than a frame may be
    Spoofed,   // the source address is not the NIC's; from outside: it is that of a NIC here, or of a group
    // Of what was sent to it:
    NotReady, // its driver has not started the queue; of an uplink: it has no link
    NoBuffer, // its driver offers no buffer, or too few for the frame; of an uplink: it sends more slowly than that
    TooLarge, // the one buffer that the frame may use is too small
};
inline constexpr lib::u32 drop_reasons = 6;

struct Statistics {
    lib::u64 sent_frames = 0, sent_bytes = 0; // by its driver, without those that were dropped
    lib::u64 received_frames = 0, received_bytes = 0;
    std::array<lib::u64, drop_reasons> dropped{};

    lib::u64& operator[](Drop reason) { return dropped[static_cast<lib::u32>(reason)]; }
    lib::u64 operator[](Drop reason) const { return dropped[static_cast<lib::u32>(reason)]; }
};

} // namespace network
