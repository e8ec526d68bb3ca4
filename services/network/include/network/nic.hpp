// SPDX-License-Identifier: MIT
#pragma once
// One virtio-net device of one VM, and its queues. [virtio/1.2] 5.1
//
// Chains are given back in the order in which they were taken, several at once; then the queue's record says how many
// there were. An instance that dies may have given back what is not noted yet; the used index tells. Frames that it was
// about may be sent twice or be lost, as in any network; the rings stay right.
#include <lib/service_board.hpp>
#include <network/reception.hpp>

namespace network {

class Nic {
public:
    // Queue 2n receives, 2n + 1 transmits. One pair: there is no control queue by which a driver could ask for more.
    static constexpr u32 receive_queue = 0, transmit_queue = 1, queue_count = 2;
    enum class Took : u8 { Frame, Dropped, Nothing, Misuse };

    Nic() = default;
    Nic(Nic const&) = delete;
    Nic& operator=(Nic const&) = delete;

    // Before all else. `statistics` outlives this object, and goes on from what it is.
    void count_in(Statistics& statistics) { statistics_ = &statistics; }
    // Takes over what the board says of the device, and answers its stop. A queue that did not change goes on. Returns
    // whether it is another NIC than before, or one in another network.
    bool update(lib::service::DeviceEntry const& entry, std::span<lib::service::QueueRecord> records, Host& host,
                u32 number);
    bool is_present() const { return entry_.kind != lib::service::DeviceKind::None; }
    u32 network() const { return entry_.network; }
    EthernetAddress address() const { return address_; }
    Statistics const& statistics() const { return *statistics_; }

    // Takes the next chain of the transmit queue, if it is on. After Frame or Dropped, done() follows.
    Took take(Frame& frame, Host& host);
    void done(Frame& frame);
    // Puts a frame of another NIC into the receive queue, or drops it. `chain` is for use in between. Returns how many
    // frames that were: more than one, if it had to be cut.
    u32 receive(Frame& frame, lib::SplitQueue::Chain& chain, Host& host);
    // Shows the driver what was done since this was called last, and interrupts it, if it wants that.
    void publish(Host& host);
    // Asks the driver to ring for the next frame. Returns whether there is one already.
    bool ask_for_doorbell(Host& host);

private:
    struct Queue {
        explicit Queue(lib::GuestMemory const& memory) : ring(memory) {}
        lib::service::QueueEntry entry{};
        lib::service::QueueRecord* record = nullptr;
        lib::SplitQueue ring;
        bool is_asked = false;       // the driver rings for the next chain
        bool must_publish = false;   // chains were added to the used ring
        bool must_interrupt = false; // the last instance may not have
    };

    void start(lib::service::DeviceEntry const& entry, Host& host);
    void update_queues(std::span<lib::service::QueueEntry const> entries, Host& host);
    [[nodiscard]] bool start_queue(u32 index, lib::service::QueueEntry const& entry);
    void misuse(Host& host);
    bool takes_as_it_is(Frame const& frame) const;
    bool settle(Reception::Outcome outcome, u32 bytes, Host& host);
    void note(Queue const& queue);

    lib::service::DeviceEntry entry_{}; // of no kind: there is no device
    u32 number_ = 0;
    u32 answered_ = 0; // of the entry's stops
    u8* ram_ = nullptr;
    EthernetAddress address_ = 0;
    Statistics* statistics_ = nullptr;
    std::array<lib::RamPiece, lib::service::max_ram_areas> pieces_{};
    lib::GuestMemory memory_{{}};
    std::array<Queue, queue_count> queues_{Queue{memory_}, Queue{memory_}};
};

} // namespace network
