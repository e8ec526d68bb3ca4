// SPDX-License-Identifier: MIT
#pragma once
// One disk of one VM: its queues, each served in order and one request at a time.
//
// How far a queue has come is noted in a record that outlives this program. A request is noted as done after it was
// given back; between the two at most one request is given back and not noted, and the used ring tells whether it is.
// So the next instance neither loses nor doubles a request; one that was not given back is served again from its begin.
#include <lib/service_board.hpp>
#include <storage/block_request.hpp>
#include <storage/host.hpp>

namespace storage {

class BlockDevice {
public:
    // A turn of a device ends when it has moved so many bytes, each request counted as request_cost more.
    static constexpr u64 turn_budget = lib::MiB, request_cost = 4 * lib::KiB;

    BlockDevice() = default;
    BlockDevice(BlockDevice const&) = delete;
    BlockDevice& operator=(BlockDevice const&) = delete;

    // Takes over what the board says of the device. A queue that did not change goes on.
    void update(lib::service::DeviceEntry const& entry, std::span<lib::service::QueueRecord> records, Host& host,
                u32 number);
    bool is_present() const { return entry_.kind != lib::service::DeviceKind::None; }
    // Serves the queues for one turn, and takes what it did from `budget`. Returns whether something may be left; if
    // not, the driver rings the doorbell for what it adds.
    bool serve(Host& host, u64& budget);

private:
    struct Queue {
        explicit Queue(lib::GuestMemory const& memory) : ring(memory) {}
        lib::service::QueueEntry entry{};
        lib::service::QueueRecord* record = nullptr;
        lib::SplitQueue ring;
        BlockRequest request;
        bool has_request = false;    // one is being served
        bool is_asked = false;       // the driver rings for the next chain
        bool must_interrupt = false; // the last instance may not have
    };

    void start_disk(lib::service::DeviceEntry const& entry, Host& host);
    [[nodiscard]] bool start_queue(Queue& queue, lib::service::QueueEntry const& entry);
    void serve_queue(u32 index, Host& host, u64& budget);
    bool take(Queue& queue, Host& host);
    void give_back(Queue& queue);
    void note(Queue& queue);
    void misuse(Host& host);

    lib::service::DeviceEntry entry_{}; // of no kind: there is no device
    u32 number_ = 0;
    u32 first_ = 0; // the queue that is served first in the next turn
    Medium medium_{};
    std::array<lib::RamPiece, lib::service::max_ram_areas> pieces_{};
    lib::GuestMemory memory_{{}};
    static_assert(lib::service::max_device_queues == 4);
    std::array<Queue, lib::service::max_device_queues> queues_{Queue{memory_}, Queue{memory_}, Queue{memory_},
                                                               Queue{memory_}};
};

} // namespace storage
