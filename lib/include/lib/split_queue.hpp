// SPDX-License-Identifier: MIT
#pragma once
// The device's side of one split virtqueue in guest memory. [virtio/1.2] 2.7
//
// The driver is hostile: each index, address and length is read once, checked, then used. A chain has at most as many
// descriptors as the queue has entries, so that a loop ends; all of its buffers are RAM; the readable ones come first.
// What breaks a rule is reported as misuse. After that the device must not touch the queue until the driver resets it.
#include <array>
#include <lib/guest_memory.hpp>

namespace lib {

// What the driver of a device says of one queue before it enables it. Nothing of it is checked.
struct QueueSetup {
    u64 descriptors, available, used; // guest-physical
    u16 size;
    bool has_event_index, has_indirect; // features that the driver accepted
    u32 features = 0;                   // bits 0 to 23 of all of them: the device's own
};

class SplitQueue {
public:
    static constexpr u16 max_size = 64;
    struct Segment {
        GuestPhys at;
        u32 size;
        bool is_writable;
    };
    struct Chain {
        u16 head = 0;
        u16 count = 0;
        std::array<Segment, max_size> segments{};
    };
    // How far the device has come. With the queue's setup, all that another instance needs to go on.
    struct Position {
        u16 next; // the available entry that is taken next
        u16 used_index;
        u16 signalled; // used_index when wants_interrupt() was asked last
        u16 reserved;
    };
    enum class Taken : u8 { Chain, Nothing, Misuse };

    explicit SplitQueue(GuestMemory const& memory) : memory_(memory) {}

    // Returns false if the size is no power of two up to max_size, or a part is misaligned or not RAM.
    static bool is_usable(GuestMemory const& memory, QueueSetup const& setup);
    // Returns false, and leaves the queue off, if the setup is not usable. The memory stays what it is until stop():
    // the rings are looked up here, once.
    bool start(QueueSetup const& setup);
    void stop() {
        setup_ = {};
        descriptors_ = available_ = used_ = {};
        position_ = {};
    }
    bool is_on() const { return setup_.size != 0; }

    // Takes the next chain out of the available ring.
    Taken take(Chain& chain);
    // Says in `has_more` whether there is a chain to take. Returns false if the driver has put more into the ring than
    // there is room for.
    bool look(bool& has_more) const;
    // Asks the driver to ring the doorbell for the next chain. look() afterwards finds what the driver added before it
    // saw this.
    void ask_for_doorbell();
    // Asks the driver to ring no doorbell. It may ring now and then all the same.
    void refuse_doorbells();
    // Returns a chain in which the device has written the first `written` bytes.
    void give_back(Chain const& chain, u32 written) {
        add_used(chain, written);
        publish();
    }
    // The same in two steps: the driver sees all chains that were added when they are published, not one before.
    void add_used(Chain const& chain, u32 written);
    void publish();
    // Undoes the last calls of take(), and of add_used() since publish(): so many of each.
    void put_back(u16 taken, u16 added);
    // Returns true if the driver wants an interrupt for what was given back since this was asked last.
    bool wants_interrupt();

    Position const& position() const { return position_; }
    // Goes on from there, after start().
    void resume(Position const& position) { position_ = position; }
    // Goes on, after start(), from the position that a device noted each time that it had published up to `most`
    // chains, before it died: it may have published so many more, which the used ring tells. Returns false if the ring
    // says anything else.
    bool resume_noted(u16 next, u16 used_index, u16 most = 1);

private:
    struct Descriptor {
        u64 address;
        u32 size;
        u16 flags;
        u16 next;
    };
    static_assert(sizeof(Descriptor) == 16);
    bool read_chain(u16 head, Chain& chain) const;
    bool add(Chain& chain, Descriptor const& descriptor) const;
    u64 ring_place(u16 index) const { return index & (setup_.size - 1U); } // a power of two

    GuestMemory const& memory_;
    QueueSetup setup_{}; // size 0: the queue is off
    GuestRange descriptors_, available_, used_;
    Position position_{};
};

} // namespace lib
