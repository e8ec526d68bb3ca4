// SPDX-License-Identifier: MIT
#pragma once
// One disk of one VM, and its queues.
//
// Requests of a queue are taken in order and given back in that order; for a part of a machine's disk, many are under
// way at once. How far a queue has come is noted in a record that outlives this program. A request is noted as done
// after it was given back; between the two at most one request is given back and not noted, and the used ring tells
// whether it is. So the next instance neither loses nor doubles a request; one that was not given back is served again
// from its begin.
//
// A command that a controller has cannot be taken back. When a queue stops, its requests under way are dropped: they go
// on to their end, nothing is given back, and this program touches the guest's memory for them no more.
#include <lib/service_board.hpp>
#include <storage/block_request.hpp>
#include <storage/context.hpp>
#include <storage/disk_counters.hpp>
#include <storage/rate_limit.hpp>

namespace storage {

class BlockDevice {
public:
    // A turn of a device ends when it has moved so many bytes, each request counted as request_cost more.
    static constexpr u64 turn_budget = lib::MiB, request_cost = 4 * lib::KiB;

    BlockDevice() = default;
    BlockDevice(BlockDevice const&) = delete;
    BlockDevice& operator=(BlockDevice const&) = delete;

    // Before all else: where it counts what it does.
    void count_in(lib::service::DiskStatistics& statistics, u64 ticks_per_second) {
        counters_.start(statistics, ticks_per_second);
        ticks_per_second_ = ticks_per_second;
    }
    // Takes over what the board says of the device, and answers its stop if it can. A queue that did not change goes
    // on.
    void update(lib::service::DeviceEntry const& entry, std::span<lib::service::QueueRecord> records, Context& context,
                u32 number);
    bool is_present() const { return entry_.kind != lib::service::DeviceKind::None; }
    // Whether update() must be called, as what a stop waited for has ended.
    bool can_answer_stop() const { return is_stopping_ && dropped_ == 0; }
    // Serves the queues for one turn, and takes what it did from `budget`. Returns whether something may be left; if
    // not, the driver rings the doorbell for what it adds, or an end of a command must come first.
    bool serve(Context& context, u64& budget);
    // If it is among Context::held: when a limit of rate allows more.
    u64 held_until() const { return held_until_; }
    // Whether the medium is a part of a disk of this controller.
    bool uses(u32 controller) const { return is_present() && !is_memory() && disk_.controller == controller; }
    // Gives the next command of a queue to the controller. `budget` becomes less by request_cost and what was copied.
    SubmitOrder::Outcome submit(u32 queue, bool can_bounce, Context& context, u64& budget);
    // A command of a request of this device has ended.
    void ended(u16 request, bool is_bounced, bool is_good, Context& context);

private:
    enum class Progress : u8 { Ready, Waiting, OutOfOrder }; // of the controller's start
    enum class Took : u8 { Request, Nothing, MustWait, Misuse };

    struct Queue {
        explicit Queue(lib::GuestMemory const& memory) : ring(memory) {}
        lib::service::QueueEntry entry{};
        lib::service::QueueRecord* record = nullptr;
        lib::SplitQueue ring;
        // Requests that were taken, in order, and the first of them that may have commands to begin.
        u16 first = RequestPool::none, last = RequestPool::none, to_submit = RequestPool::none;
        bool is_asked = false;       // the driver rings for the next chain
        bool must_interrupt = false; // the last instance may not have
    };

    void start_disk(lib::service::DeviceEntry const& entry, Context& context);
    void start_medium(Context& context);
    void look_at_controller(Context& context);
    void put_out_of_order(std::string_view why, Context& context);
    void update_queues(std::span<lib::service::QueueEntry const> entries, Context& context);
    [[nodiscard]] bool start_queue(Queue& queue, lib::service::QueueEntry const& entry);
    void stop_queue(u32 index, Context& context);
    void misuse(Context& context);
    void serve_queue(u32 index, Context& context, u64& budget);
    void interrupt_if_wanted(u32 index, Context& context);
    bool advance(u32 index, Context& context, u64& budget);
    Took take(u32 index, Context& context);
    bool may_take(u32 index, Context& context);
    bool may_move(BlockRequest const& request, Context& context);
    void moved(u32 index, BlockRequest const& request, u64 bytes, Context& context);
    void hold(u64 until, Context& context);
    void give_back(Queue& queue, Context& context);
    void release(u16 request, Context& context) const;
    void note(Queue& queue);
    u32 after(u32 index) const { return index + 1 < entry_.queue_count ? index + 1 : 0; }
    u32 pool_queue(u32 index) const { return number_ * lib::service::max_device_queues + index; }
    bool is_memory() const { return entry_.medium_kind == lib::service::MediumKind::Memory; }

    lib::service::DeviceEntry entry_{}; // of no kind: there is no device
    u32 number_ = 0;
    u32 first_ = 0;    // the queue that is served first in the next turn
    u32 dropped_ = 0;  // requests under way that no queue waits for
    u32 answered_ = 0; // of the entry's stops
    bool is_stopping_ = false;
    Progress progress_ = Progress::Ready;
    Medium medium_{};
    DiskPart disk_{};
    // Of requests, and of bytes that are moved or cleared.
    RateLimit iops_, bandwidth_;
    u64 held_until_ = 0, ticks_per_second_ = 0;
    DiskCounters counters_;
    std::array<lib::RamPiece, lib::service::max_ram_areas> pieces_{};
    lib::GuestMemory memory_{{}};
    static_assert(lib::service::max_device_queues == 4);
    std::array<Queue, lib::service::max_device_queues> queues_{Queue{memory_}, Queue{memory_}, Queue{memory_},
                                                               Queue{memory_}};
};

} // namespace storage
