// SPDX-License-Identifier: MIT
// Frames of a controller that runs. Its start: e1000_start.cpp.
#include <algorithm>
#include <cstring>
#include <lib/format.hpp>
#include <utility>

#include "e1000_layout.hpp"

namespace net {

using namespace e1000;

E1000::E1000(Function& function, bool has_interrupt)
    : function_(function), shared_(function.shared()), has_interrupt_(has_interrupt) {}

u32 E1000::poll(u64 now, bool is_interrupted, std::span<u32> sent) {
    now_ = now;
    if (state_ == State::Starting) start(now);
    u32 const count = take_sent(sent);
    if (state_ != State::Ready) return count;
    look(now, is_interrupted);
    set_next_poll(now);
    return count;
}

u64 E1000::deadline() const {
    if (must_poll_) return 0;
    if (state_ == State::Failed) return never;
    if (state_ == State::Starting) return not_before_;
    u64 at = has_interrupt_ ? next_look_ : std::min(next_look_, next_poll_);
    if (frame_count_ != 0) at = std::min(at, last_progress_ + milliseconds(hang_milliseconds));
    return at;
}

void E1000::set_next_poll(u64 now) {
    u64 const busy = microseconds(busy_microseconds), idle = microseconds(idle_microseconds);
    pause_ = std::exchange(is_busy_, false) ? busy : std::clamp(pause_ * 2, busy, idle);
    next_poll_ = now + pause_;
}

Limits E1000::limits() const {
    return {
        .smallest = smallest_frame, .largest = largest_frame, .most_pieces = most_pieces, .highest_address = ~u64{0}};
}

// This clears the causes before the caller looks at the rings: a frame that comes after that interrupts again.
void E1000::look(u64 now, bool is_interrupted) {
    bool must_look = now >= next_look_;
    if (is_interrupted && has_interrupt_) {
        Causes causes{{read(ICR)}};
        if (causes.raw == all_ones) return fail("is gone");
        must_look |= causes.get<Causes::LSC>();
        causes.set<Causes::INT_ASSERTED>(false);
        // With MSI-X, reading takes nothing back. [intel/82574] 10, ICR
        if (chip_ == Chip::I82574 && causes.raw != 0) write(ICR, causes.raw);
    }
    if (must_look || is_late(now)) look_at_status(now);
}

void E1000::look_at_status(u64 now) {
    next_look_ = now + milliseconds(look_milliseconds);
    Status const status{{read(STATUS)}};
    if (status.raw == all_ones) return fail("is gone");
    bool const has_link = status.get<Status::LU>();
    if (std::exchange(has_link_, has_link) != has_link) say_link(now, status.raw);
    find_hang(now, !has_link || status.get<Status::TXOFF>());
}

// Frames that were taken end within a limited time, whatever the other side does. That it holds them up is no fault of
// the device.
void E1000::find_hang(u64 now, bool is_held_up) {
    if (!is_late(now)) return;
    if (!is_held_up && resets_++ == most_resets) return fail("has been reset too often without sending a frame");
    restart(now, is_held_up ? "it could send nothing for too long" : "it hangs");
}

void E1000::restart(u64 now, std::string_view why) {
    char text[100];
    say(now, lib::format_to(text, "{}; it is reset", why));
    lose_frames();
    statistics_.resets++;
    has_link_ = false;
    state_ = State::Starting;
    step_ = Step::Begin;
    not_before_ = now;
}

void E1000::fail(std::string_view why) {
    lose_frames();
    has_link_ = false;
    state_ = State::Failed;
    failure_ = why;
}

// From here on the device reads and writes no memory, so that of all frames is free.
void E1000::lose_frames() {
    function_.set_bus_master(false);
    is_held_ = is_middle_ = false;
    released_ = used_ = used_rooms_ = 0;
    are_lost_ = frame_count_ != 0;
    must_poll_ = are_lost_;
}

// At most so many lines in a minute, however often the device's link changes.
void E1000::say(u64 now, std::string_view text) {
    constexpr u64 minute = 60'000;
    constexpr u32 most_lines = 6;
    if (now - lines_begin_ >= milliseconds(minute)) {
        lines_begin_ = now;
        lines_ = 0;
    }
    if (lines_++ < most_lines) function_.log(text);
}

void E1000::say_link(u64 now, u32 raw) {
    if (!has_link_) return say(now, "the link is down");
    constexpr u32 speeds[] = {10, 100, 1000, 1000};
    Status const status{{raw}};
    char text[80];
    say(now, lib::format_to(text, "the link is up at {} Mb/s, {} duplex", speeds[status.get<Status::SPEED>()],
                            status.get<Status::FD>() ? "full" : "half"));
}

// --- Sending.

bool E1000::is_sent(Frame const& frame) const {
    return are_lost_ ||
           (__atomic_load_n(&transmitted(frame.last).status, __ATOMIC_ACQUIRE) & TransmitDescriptor::DD) != 0;
}

// Takes the frames back that the device has sent, until one has a tag for which `sent` has no room.
u32 E1000::take_sent(std::span<u32> sent) {
    u32 count = 0;
    must_poll_ = false;
    while (frame_count_ != 0) {
        Frame const& frame = frames_[first_frame_];
        if (!is_sent(frame)) break;
        if (frame.has_tag && count == sent.size()) {
            must_poll_ = true;
            break;
        }
        if (frame.has_tag) sent[count++] = frame.tag;
        first_frame_ = (first_frame_ + 1) % transmit_count;
        frame_count_--;
        (are_lost_ ? statistics_.lost : statistics_.sent)++;
        if (are_lost_) continue;
        used_ -= frame.descriptors;
        if (!frame.has_tag) used_rooms_--;
        resets_ = 0;
        last_progress_ = std::max(last_progress_, now_);
    }
    if (frame_count_ == 0) are_lost_ = false;
    return count;
}

// A ring is never full: then its begin would be its end.
bool E1000::has_room(u32 descriptors) {
    if (state_ != State::Ready || !has_link_ || are_lost_) return false;
    auto const fits = [&] { return used_ + descriptors < transmit_count && used_rooms_ < room_count; };
    if (fits()) return true;
    bool const must_poll = must_poll_;
    take_sent({});
    must_poll_ |= must_poll;
    return fits();
}

bool E1000::transmit(std::span<Piece const> pieces, u32 tag, u64 now) {
    if (pieces.empty() || pieces.size() > most_pieces) return false;
    u64 size = 0;
    for (Piece const& piece : pieces) {
        if (piece.size == 0) return false;
        size += piece.size;
    }
    auto const count = static_cast<u32>(pieces.size());
    if (size < smallest_frame || size > largest_frame || !has_room(count)) return false;
    if (!reports_sent_) {
        reports_sent_ = true;
        set_up_interrupts();
    }
    for (Piece const& piece : pieces)
        put(piece.address, piece.size, &piece == &pieces.back());
    push({.descriptors = static_cast<u16>(count), .has_tag = true, .tag = tag}, now);
    return true;
}

std::span<u8> E1000::frame_room() {
    if (!has_room(1)) return {};
    return shared_.bytes.subspan(rooms_at + next_room_ * buffer_size, largest_frame);
}

void E1000::transmit_room(u32 size, u64 now) {
    if (size > largest_frame || !has_room(1)) return;
    u32 const at = rooms_at + next_room_ * buffer_size;
    if (size < padded_size) {
        std::memset(shared_.bytes.data() + at + size, 0, padded_size - size);
        size = padded_size;
    }
    put(shared_.address + at, size, true);
    next_room_ = (next_room_ + 1) % room_count;
    used_rooms_++;
    push({.descriptors = 1}, now);
}

// Only the last descriptor of a frame is written back, as only there a report is asked for.
void E1000::put(u64 address, u32 size, bool is_last) {
    constexpr u8 end = TransmitDescriptor::EOP | TransmitDescriptor::IFCS | TransmitDescriptor::RS;
    transmitted(tail_) = {.address = address,
                          .length = static_cast<u16>(size),
                          .checksum_offset = 0,
                          .command = is_last ? end : u8{0},
                          .status = 0,
                          .checksum_start = 0,
                          .special = 0};
    tail_ = (tail_ + 1) % transmit_count;
}

void E1000::push(Frame const& frame, u64 now) {
    if (frame_count_ == 0) last_progress_ = now;
    Frame& place = frames_[(first_frame_ + frame_count_) % transmit_count];
    place = frame;
    place.last = static_cast<u16>((tail_ + transmit_count - 1) % transmit_count);
    frame_count_++;
    used_ += frame.descriptors;
    note_traffic(now); // an answer may come
}

void E1000::note_traffic(u64 now) {
    is_busy_ = true;
    next_poll_ = std::min(next_poll_, now + microseconds(busy_microseconds));
}

// --- Receiving.

std::span<u8 const> E1000::next_frame() {
    if (is_held_) release();
    // One descriptor always stays with the driver, else the ring would be empty for the device.
    while (state_ == State::Ready && released_ + 1 < receive_count) {
        ReceiveDescriptor const& descriptor = received(receive_next_);
        u32 const rest = __atomic_load_n(&descriptor.rest, __ATOMIC_ACQUIRE);
        if ((rest & ReceiveDescriptor::DD) == 0) break;
        u32 const length = __atomic_load_n(&descriptor.length, __ATOMIC_RELAXED);
        bool const is_end = (rest & ReceiveDescriptor::EOP) != 0;
        bool const has_error = (rest >> 8 & ReceiveDescriptor::frame_errors) != 0;
        bool const was_middle = std::exchange(is_middle_, !is_end);
        constexpr u32 smallest = 14; // both addresses and the type
        note_traffic(now_);
        if (is_end && !was_middle && !has_error && length >= smallest && length <= buffer_size) {
            is_held_ = true;
            statistics_.received++;
            return shared_.bytes.subspan(receive_buffers_at + receive_next_ * buffer_size, length);
        }
        statistics_.bad++;
        release();
    }
    return {};
}

// Makes the descriptor ready for the next frame. Its address is written again: the device may have changed it.
void E1000::release() {
    is_held_ = false;
    received(receive_next_) = {.address = shared_.address + receive_buffers_at + receive_next_ * buffer_size,
                               .length = 0,
                               .checksum = 0,
                               .rest = 0};
    receive_next_ = (receive_next_ + 1) % receive_count;
    released_++;
}

// Tails are the first descriptors that do not belong to the device. [intel/82574] 7.1.8, 7.2
void E1000::ring() {
    if (state_ != State::Ready) return;
    if (is_held_) release();
    __atomic_thread_fence(__ATOMIC_RELEASE); // the descriptors are in memory
    if (tail_ != rung_tail_) write(TDT, tail_);
    rung_tail_ = tail_;
    if (std::exchange(released_, 0) != 0) write(RDT, (receive_next_ + receive_count - 1) % receive_count);
}

} // namespace net
