// SPDX-License-Identifier: MIT
#pragma once
// One frame on its way into the buffers of a receive queue. [virtio/1.2] 5.1.6.3, 5.1.6.4
//
// With mergeable buffers a frame may fill several chains. The driver sees none of them before Nic::publish(), so a
// frame for which there are too few is taken back as if it had never come.
#include <network/segmenter.hpp>

namespace network {

class Reception {
public:
    enum class Outcome : u8 { Done, NoBuffer, TooLarge, Misuse };

    // `ram`: where guest-physical address 0 of the receiver is. The chain needs not outlive a call of put().
    Reception(lib::SplitQueue& ring, u8* ram, bool is_mergeable, lib::SplitQueue::Chain& chain)
        : ring_(ring), ram_(ram), is_mergeable_(is_mergeable), chain_(chain) {}

    // Puts the frame into the next buffers, and computes its checksum if that is missing and the receiver wants none
    // such. All of it or nothing: then the queue is as it was.
    [[nodiscard]] Outcome put(Frame& frame, bool takes_partial_checksum);
    // The same for a part of a large frame.
    [[nodiscard]] Outcome put(Frame const& frame, Segmenter const& segment);

private:
    Outcome finish(Outcome outcome);
    Outcome put_parts(Frame const& frame, Segmenter const& segment);
    Outcome put_parts(Frame& frame, bool takes_partial_checksum);
    Outcome begin(u32 size);
    Outcome take_chain();
    Outcome write(std::span<u8 const> bytes);
    Outcome copy(Frame const& frame, Frame::Cursor& cursor, u32 count);
    void find_buffer_count();
    void end();

    lib::SplitQueue& ring_;
    u8* const ram_;
    bool const is_mergeable_;
    lib::SplitQueue::Chain& chain_; // that is being filled
    u64 room_ = 0;                  // bytes that it has
    u32 written_ = 0;               // to it
    u32 offset_ = 0;                // in the segment
    u16 segment_ = 0;
    u16 taken_ = 0, added_ = 0; // chains
    // Where both bytes of VirtioHeader::buffer_count are, in the first chain.
    u8 *count_low_ = nullptr, *count_high_ = nullptr;
};

} // namespace network
