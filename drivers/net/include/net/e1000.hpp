// SPDX-License-Identifier: MIT
#pragma once
// Driver of two gigabit controllers of Intel: 82540EM, which emulators have as "e1000", and 82574L ("e1000e").
// [intel/8254x] [intel/82574] One queue each way with legacy descriptors, which both chips know. It receives every
// frame, whatever its destination: a switch with other stations stands after it.
// Not used: checksum and segmentation offload, VLAN tagging, jumbo frames, management, wake-up.
#include <net/net_device.hpp>

namespace net {

class E1000 final : public NetDevice {
public:
    static constexpr u32 receive_count = 128, transmit_count = 256; // descriptors
    static constexpr u32 buffer_size = 2048, room_count = 96;       // rooms: buffers for frames to send
    // What it uses of Function::shared(), from the begin on: a page for each ring, and the buffers.
    static constexpr u32 receive_ring_at = 0, transmit_ring_at = 4096, receive_buffers_at = 8192;
    static constexpr u32 rooms_at = receive_buffers_at + receive_count * buffer_size;
    static constexpr u32 memory_needed = rooms_at + room_count * buffer_size;
    static constexpr u32 most_pieces = 32;
    static constexpr u32 smallest_frame = 17; // that the chips pad. [intel/82574] 10, TCTL.PSP
    static constexpr u32 padded_size = 60, largest_frame = 1518;
    static constexpr u32 hang_milliseconds = 2'000, look_milliseconds = 1'000;
    static constexpr u32 most_resets = 3; // because it hung, without a frame that was sent in between
    static constexpr u32 busy_microseconds = 200, idle_microseconds = 2'000; // between polls without interrupts

    // `has_interrupt`: it can send a message. Otherwise it is told to interrupt nobody, and deadline() is always near.
    E1000(Function& function, bool has_interrupt);

    u32 poll(u64 now, bool is_interrupted, std::span<u32> sent) override;
    u64 deadline() const override;
    State state() const override { return state_; }
    std::string_view failure() const override { return failure_; }
    Address address() const override { return address_; }
    bool has_link() const override { return has_link_; }
    Limits limits() const override;
    Statistics const& statistics() const override { return statistics_; }
    bool transmit(std::span<Piece const> pieces, u32 tag, u64 now) override;
    std::span<u8> frame_room() override;
    void transmit_room(u32 size, u64 now) override;
    std::span<u8 const> next_frame() override;
    void ring() override;

private:
    enum class Chip : u8 { I82540, I82574 };
    enum class Step : u8 { Begin, WaitForQuiet, WaitForReset, WaitForNvm, ReadAddress };
    struct ReceiveDescriptor;
    struct TransmitDescriptor;
    // A frame that the device has not sent yet.
    struct Frame {
        u16 last = 0, descriptors = 0; // the index of its last descriptor, and how many there are
        bool has_tag = false;
        u32 tag = 0;
    };

    // e1000_start.cpp
    void start(u64 now);
    void begin(u64 now);
    void reset_chip(u64 now);
    void look_for_reset(u64 now);
    void look_for_nvm(u64 now);
    void find_address(u64 now);
    void read_word(u64 now);
    void look_for_word(u64 now);
    void set_up(u64 now);
    void set_up_receive();
    void set_up_transmit();
    void set_up_interrupts();
    void wait(Step step, u64 now, u64 pause, u64 limit);

    // e1000.cpp
    void look(u64 now, bool is_interrupted);
    void look_at_status(u64 now);
    void find_hang(u64 now, bool is_held_up);
    void restart(u64 now, std::string_view why);
    void fail(std::string_view why);
    void lose_frames();
    u32 take_sent(std::span<u32> sent);
    bool is_sent(Frame const& frame) const;
    bool has_room(u32 descriptors);
    void put(u64 address, u32 size, bool is_last);
    void push(Frame const& frame, u64 now);
    void release();
    void note_traffic(u64 now);
    void say(u64 now, std::string_view text);
    void say_link(u64 now, u32 status);
    void set_next_poll(u64 now);

    u32 read(u32 offset) { return function_.read(0, offset, 4); }
    void write(u32 offset, u32 value) { function_.write(0, offset, 4, value); }
    u64 milliseconds(u64 count) const { return function_.ticks_per_millisecond() * count; }
    u64 microseconds(u64 count) const { return function_.ticks_per_millisecond() * count / 1000; }
    bool is_late(u64 now) const { return frame_count_ != 0 && now >= last_progress_ + milliseconds(hang_milliseconds); }
    ReceiveDescriptor& received(u32 index) const;
    TransmitDescriptor& transmitted(u32 index) const;

    Function& function_;
    Function::Shared shared_;
    bool const has_interrupt_;
    State state_ = State::Starting;
    Step step_ = Step::Begin;
    Chip chip_ = Chip::I82540;
    std::string_view failure_;
    Address address_{};
    bool has_address_ = false, has_link_ = false;
    Statistics statistics_{};
    u64 now_ = 0;                            // of the last poll
    u64 not_before_ = 0, step_limit_ = 0;    // when the present step may touch a register, and when it has failed
    u64 next_look_ = 0;                      // at the status
    u64 next_poll_ = 0, pause_ = 0;          // without interrupts
    u64 last_progress_ = 0;                  // of frames that are sent
    u64 lines_begin_ = 0;                    // of the minute in which `lines_` were logged
    u32 lines_ = 0, resets_ = 0, words_ = 0; // words: of the address, that were read
    bool is_busy_ = false;                   // a frame came or went since the last poll
    bool must_poll_ = false;                 // `sent` had no room
    // Receiving: the descriptor that is looked at next, and those that the device does not know to be free yet.
    u32 receive_next_ = 0, released_ = 0;
    bool is_held_ = false;   // the frame at receive_next_ was given to the caller
    bool is_middle_ = false; // a frame has begun that fills more than one buffer
    // Sending.
    std::array<Frame, transmit_count> frames_{}; // a ring
    u32 first_frame_ = 0, frame_count_ = 0;
    u32 tail_ = 0, rung_tail_ = 0, used_ = 0; // of descriptors
    u32 next_room_ = 0, used_rooms_ = 0;
    bool are_lost_ = false;     // all of `frames_`, by a reset
    bool reports_sent_ = false; // interrupts tell of frames that were sent
};

} // namespace net
