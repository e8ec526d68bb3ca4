// SPDX-License-Identifier: MIT
#include <algorithm>
#include <bit>
#include <cstring>
#include <lib/format.hpp>
#include <storage/block_device.hpp>

namespace storage {
namespace {

namespace service = lib::service;
using lib::SplitQueue;

// Whether the pieces are in order and do not overlap. Memory that they leave out is not reached.
bool is_valid_part(service::DeviceEntry const& entry) {
    if (entry.medium_kind != service::MediumKind::Disk || entry.controller >= service::max_controllers) return false;
    if (entry.ram_piece_count > service::max_ram_pieces || entry.medium_begin % sector_size != 0) return false;
    u64 end = 0;
    for (service::RamPiece const& piece : std::span(entry.pieces).first(entry.ram_piece_count)) {
        if (piece.base < end || piece.size == 0 || piece.size > ~u64{0} - piece.base) return false;
        if (piece.size > ~u64{0} - piece.address) return false;
        end = piece.base + piece.size;
    }
    return true;
}

bool is_valid(service::DeviceEntry const& entry) {
    if (entry.kind != service::DeviceKind::Block) return false;
    if (entry.queue_count == 0 || entry.queue_count > service::max_device_queues) return false;
    if (entry.ram_area_count == 0 || entry.ram_area_count > service::max_ram_areas) return false;
    u64 const most = entry.medium_kind == service::MediumKind::Disk ? service::max_disk : service::max_medium;
    if (entry.medium_size == 0 || entry.medium_size % sector_size != 0 || entry.medium_size > most) return false;
    u64 end = 0;
    for (service::RamArea const& area : std::span(entry.ram).first(entry.ram_area_count)) {
        if (area.base < end || area.base > service::max_guest_phys || area.base % lib::page_size != 0) return false;
        if (area.size == 0 || area.size > service::max_guest_phys - area.base) return false;
        end = area.base + area.size;
    }
    return entry.medium_kind == service::MediumKind::Memory || is_valid_part(entry);
}

bool is_equal(service::QueueEntry const& a, service::QueueEntry const& b) {
    return a.descriptors == b.descriptors && a.available == b.available && a.used == b.used && a.size == b.size &&
           a.has_event_index == b.has_event_index && a.has_indirect == b.has_indirect && a.epoch == b.epoch;
}

// Whether it is the same disk of the same VM, whatever became of its queues.
bool is_same_disk(service::DeviceEntry const& a, service::DeviceEntry const& b) {
    if (a.kind != b.kind || a.queue_count != b.queue_count || a.ram_area_count != b.ram_area_count) return false;
    if (a.is_read_only != b.is_read_only || a.medium_size != b.medium_size) return false;
    if (a.medium_kind != b.medium_kind || a.controller != b.controller || a.unit != b.unit) return false;
    if (a.iops != b.iops || a.bandwidth != b.bandwidth) return false;
    if (a.medium_begin != b.medium_begin || a.ram_piece_count != b.ram_piece_count) return false;
    auto const is_same_piece = [](service::RamPiece const& x, service::RamPiece const& y) {
        return x.base == y.base && x.size == y.size && x.address == y.address;
    };
    return std::ranges::equal(a.pieces, b.pieces, is_same_piece) && std::ranges::equal(a.serial, b.serial) &&
           std::ranges::equal(a.ram, b.ram, [](service::RamArea const& x, service::RamArea const& y) {
               return x.base == y.base && x.size == y.size;
           });
}

} // namespace

void BlockDevice::update(service::DeviceEntry const& entry, std::span<service::QueueRecord> records, Context& context,
                         u32 number) {
    number_ = number;
    for (u32 i = 0; i < queues_.size(); i++)
        queues_[i].record = &records[i];
    bool const was_present = is_present();
    if (!is_valid(entry)) {
        if (entry.kind != service::DeviceKind::None) context.host.log("a device that makes no sense is left out");
        update_queues({}, context);
        entry_ = {};
    } else if (!is_same_disk(entry_, entry)) {
        update_queues({}, context); // each starts again, whatever its entry was
        start_disk(entry, context);
    }
    std::span<service::QueueEntry const> const queues = std::span(entry.queues).first(entry_.queue_count);
    if (entry.kind == service::DeviceKind::None) {
        is_stopping_ = false;
        answered_ = 0;
    } else if (entry.stops != answered_) {
        is_stopping_ = true;
        update_queues({}, context);
        if (can_answer_stop()) {
            is_stopping_ = false;
            answered_ = entry.stops;
            context.host.stopped(number_, entry.stops);
        }
    }
    if (!is_stopping_) update_queues(queues, context);
    if (was_present && !is_present()) {
        char text[40];
        context.host.log(lib::format_to(text, "disk {} is gone", number_));
    }
}

// Those that have no entry are off.
void BlockDevice::update_queues(std::span<service::QueueEntry const> entries, Context& context) {
    bool is_misused = false;
    for (u32 i = 0; i < queues_.size(); i++) {
        service::QueueEntry const now = i < entries.size() ? entries[i] : service::QueueEntry{};
        if (is_equal(queues_[i].entry, now)) continue;
        stop_queue(i, context);
        if (!start_queue(queues_[i], now)) is_misused = true;
    }
    if (is_misused) misuse(context);
}

void BlockDevice::start_disk(service::DeviceEntry const& entry, Context& context) {
    entry_ = entry;
    u8* const ram = context.host.ram_window(number_);
    for (u32 i = 0; i < entry.ram_area_count; i++)
        pieces_[i] = {{entry.ram[i].base}, entry.ram[i].size, ram + entry.ram[i].base};
    memory_ = lib::GuestMemory(std::span(pieces_).first(entry.ram_area_count));
    start_medium(context);
    iops_ = RateLimit(entry.iops, ticks_per_second_, 1);
    bandwidth_ = RateLimit(entry.bandwidth, ticks_per_second_, sector_size);
    std::copy_n(entry.serial, medium_.serial.size(), medium_.serial.begin());
    char text[100];
    context.host.log(lib::format_to(text, "disk {}: {} KiB{}, {} queues{}", number_, entry.medium_size / lib::KiB,
                                    is_memory() ? "" : " of a disk of the machine", entry.queue_count,
                                    medium_.is_read_only ? ", read-only" : ""));
}

void BlockDevice::start_medium(Context& context) {
    medium_ = {};
    medium_.size = entry_.medium_size;
    medium_.is_read_only = entry_.is_read_only != 0;
    disk_ = {};
    progress_ = Progress::Ready;
    if (is_memory()) {
        medium_.bytes = {context.host.medium_window(number_), entry_.medium_size};
        return;
    }
    disk_.begin = entry_.medium_begin;
    disk_.controller = entry_.controller;
    disk_.unit = entry_.unit;
    disk_.memory = std::span(entry_.pieces).first(entry_.ram_piece_count);
    medium_.disk = &disk_;
    progress_ = Progress::Waiting;
}

// Learns of the disk when its controller is ready, and when it has failed.
void BlockDevice::look_at_controller(Context& context) {
    if (is_memory() || progress_ == Progress::OutOfOrder) return;
    block::Controller* const controller = context.controller(disk_.controller);
    if (controller == nullptr) return put_out_of_order("its controller is not there", context);
    switch (controller->state()) {
    case block::Controller::State::Starting: return;
    case block::Controller::State::Failed: return put_out_of_order("its controller has failed", context);
    case block::Controller::State::Ready: break;
    }
    if (progress_ == Progress::Ready) return;
    std::span<block::DiskFacts const> const disks = controller->disks();
    auto const found = std::ranges::find(disks, disk_.unit, &block::DiskFacts::id);
    if (found == disks.end()) return put_out_of_order("its controller has no such disk", context);
    block::DiskFacts const& facts = *found;
    disk_.index = static_cast<u32>(found - disks.begin());
    disk_.limits = controller->limits();
    if (!disk_.is_usable(facts, medium_.size)) return put_out_of_order("it is no part of that disk", context);
    disk_.sector_size = facts.sector_size;
    disk_.has_write_cache = facts.has_write_cache;
    disk_.set_bounce(context.controllers->bounce(disk_.controller));
    if (facts.is_read_only) medium_.is_read_only = true;
    progress_ = Progress::Ready;
}

void BlockDevice::put_out_of_order(std::string_view why, Context& context) {
    progress_ = Progress::OutOfOrder;
    medium_.is_out_of_order = true;
    char text[100];
    context.host.log(lib::format_to(text, "disk {} is out of order: {}", number_, why));
}

// Returns false if the driver, or the last instance, left something that makes no sense.
bool BlockDevice::start_queue(Queue& queue, service::QueueEntry const& entry) {
    queue.entry = entry;
    queue.is_asked = queue.must_interrupt = false;
    if (entry.size == 0) return true;
    bool const is_on = queue.ring.start({entry.descriptors, entry.available, entry.used, entry.size,
                                         entry.has_event_index != 0, entry.has_indirect != 0});
    if (!is_on) return false;
    service::QueueRecord const record = *queue.record;
    if (record.epoch == entry.epoch) {
        // Requests are given back in their order, so both count the same.
        if (record.next != record.used_index || !queue.ring.resume_noted(record.next, record.used_index)) return false;
        queue.must_interrupt = true;
    }
    note(queue);
    return true;
}

// Commands under way go on; their requests are kept until then.
void BlockDevice::stop_queue(u32 index, Context& context) {
    Queue& queue = queues_[index];
    queue.ring.stop();
    for (u16 request = queue.first; request != RequestPool::none;) {
        RequestPool::Entry& entry = context.pool[request];
        u16 const next = entry.next;
        entry.request.drop();
        entry.is_dropped = true;
        counters_.dropped();
        if (entry.request.is_under_way())
            dropped_++;
        else
            release(request, context);
        request = next;
    }
    queue.first = queue.last = queue.to_submit = RequestPool::none;
    context.pool.forget(pool_queue(index));
}

// After misuse nothing of the device is served until its driver starts a queue again.
void BlockDevice::misuse(Context& context) {
    for (u32 i = 0; i < queues_.size(); i++)
        stop_queue(i, context);
    context.host.misuse(number_);
}

// Notes how many requests were given back, by one store that comes after those of give_back(). The next instance takes
// those that were taken after them again.
void BlockDevice::note(Queue& queue) {
    u16 const given_back = queue.ring.position().used_index;
    service::QueueRecord const record{queue.entry.epoch, given_back, given_back};
    u64 value;
    std::memcpy(&value, &record, sizeof(value));
    static_assert(sizeof(record) == sizeof(value));
    __atomic_store_n(reinterpret_cast<u64*>(queue.record), value, __ATOMIC_RELEASE);
}

bool BlockDevice::serve(Context& context, u64& budget) {
    look_at_controller(context);
    if (progress_ == Progress::Waiting) { // its end is waited for
        for (u32 i = 0; i < entry_.queue_count; i++)
            interrupt_if_wanted(i, context);
        return false;
    }
    u64 const all = budget;
    budget = std::min(budget, turn_budget);
    u64 const rest = all - budget;
    u32 const count = entry_.queue_count, first = first_ < count ? first_ : 0;
    for (u32 i = 0; i < count && budget != 0; i++) {
        u32 const index = first + i < count ? first + i : first + i - count;
        serve_queue(index, context, budget);
        if (budget == 0) first_ = after(index);
    }
    bool const may_have_more = budget == 0;
    budget += rest;
    return may_have_more;
}

void BlockDevice::serve_queue(u32 index, Context& context, u64& budget) {
    Queue& queue = queues_[index];
    bool has_more = queue.ring.is_on();
    while (has_more && budget != 0) {
        bool const is_drained = advance(index, context, budget);
        if (!queue.ring.is_on()) return;     // misuse
        interrupt_if_wanted(index, context); // once for the whole batch
        if (!is_drained || budget == 0 || queue.is_asked) return;
        queue.ring.ask_for_doorbell();
        queue.is_asked = true;
        if (!queue.ring.look(has_more)) return misuse(context);
    }
}

void BlockDevice::interrupt_if_wanted(u32 index, Context& context) {
    Queue& queue = queues_[index];
    if (!queue.ring.is_on()) return;
    bool const wants_interrupt = queue.ring.wants_interrupt();
    if (wants_interrupt || queue.must_interrupt) context.host.interrupt(number_, index);
    queue.must_interrupt = false;
}

// Gives back what is done and takes what there is. Returns whether it has taken everything.
bool BlockDevice::advance(u32 index, Context& context, u64& budget) {
    Queue& queue = queues_[index];
    while (budget != 0) {
        if (queue.first != RequestPool::none) {
            BlockRequest& request = context.pool[queue.first].request;
            if (is_memory() && request.moves_data()) {
                if (!may_move(request, context)) return false;
                u64 const before = budget;
                request.go_on(memory_, medium_, budget);
                moved(index, request, before - budget, context);
            }
            if (request.is_done()) {
                give_back(queue, context);
                budget -= std::min(budget, request_cost);
                continue;
            }
            if (is_memory()) return false; // no budget
        }
        Took const took = take(index, context);
        if (took != Took::Request) return took == Took::Nothing;
    }
    return false;
}

// Whether the limits of rate allow to take one more request. A flush has no bytes, but nobody knows before that it is
// one: so what has bytes is taken too, and waits at its first slice.
bool BlockDevice::may_take(u32 index, Context& context) {
    // One that waits is enough: more would take room that other disks could use.
    if (bandwidth_.is_limited() && queues_[index].to_submit != RequestPool::none) {
        context.orders[disk_.controller].want(pool_queue(index));
        return false;
    }
    if (iops_.allows(context.now)) return true;
    hold(iops_.allowed_at(), context);
    return false;
}

// Whether the limit of bandwidth allows the next slice of a request.
bool BlockDevice::may_move(BlockRequest const& request, Context& context) {
    if (!request.moves_data() || bandwidth_.allows(context.now)) return true;
    hold(bandwidth_.allowed_at(), context);
    return false;
}

void BlockDevice::moved(u32 index, BlockRequest const& request, u64 bytes, Context& context) {
    counters_.moved(request.kind(), bytes);
    if (!bandwidth_.is_limited()) return;
    bandwidth_.take(context.now, bytes);
    first_ = after(index); // what the limit allows next is for another queue
}

// Has the device served at that time, if nothing does it before; the service sleeps until then. At high rates a few
// requests are let through together: it is looked at once a millisecond.
void BlockDevice::hold(u64 until, Context& context) {
    u64 const bit = u64{1} << number_;
    until = std::max(until, context.now + ticks_per_second_ / 1'000);
    held_until_ = (context.held & bit) != 0 ? std::min(held_until_, until) : until;
    context.held |= bit;
    context.held_until = std::min(context.held_until, held_until_);
}

BlockDevice::Took BlockDevice::take(u32 index, Context& context) {
    Queue& queue = queues_[index];
    if (!may_take(index, context)) {
        context.pool.forget(pool_queue(index)); // it wants no room at the moment
        return Took::MustWait;
    }
    u16 const request = context.pool.take(pool_queue(index));
    if (request == RequestPool::none) return Took::MustWait;
    RequestPool::Entry& entry = context.pool[request];
    SplitQueue::Taken const taken = queue.ring.take(entry.request.chain());
    bool const is_misuse = taken == SplitQueue::Taken::Misuse ||
                           (taken == SplitQueue::Taken::Chain && !entry.request.begin(memory_, medium_));
    if (is_misuse || taken == SplitQueue::Taken::Nothing) {
        context.pool.release(request); // nobody waits for it: it was free before
        if (is_misuse) misuse(context);
        return is_misuse ? Took::Misuse : Took::Nothing;
    }
    queue.is_asked = false;
    // The turn's time would count what was served in it before as well.
    entry.taken_at = context.host.ticks();
    counters_.taken();
    if (iops_.is_limited()) {
        iops_.take(context.now, 1);
        first_ = after(index);
    }
    (queue.first == RequestPool::none ? queue.first : context.pool[queue.last].next) = request;
    queue.last = request;
    if (is_memory() || !entry.request.has_more()) return Took::Request;
    entry.controller = static_cast<u8>(disk_.controller);
    if (queue.to_submit == RequestPool::none) queue.to_submit = request;
    context.orders[disk_.controller].want(pool_queue(index));
    return Took::Request;
}

void BlockDevice::give_back(Queue& queue, Context& context) {
    u16 const request = queue.first;
    RequestPool::Entry& entry = context.pool[request];
    counters_.given_back(entry.request.kind(), entry.request.is_good(), context.host.ticks() - entry.taken_at);
    entry.request.finish(memory_);
    queue.ring.give_back(entry.request.chain(), entry.request.written());
    note(queue);
    queue.first = entry.next;
    if (queue.to_submit == request) queue.to_submit = entry.next;
    release(request, context);
}

// Others may have waited for the room.
void BlockDevice::release(u16 request, Context& context) const {
    context.pool.release(request);
    for (u64 left = context.pool.refused(); left != 0; left &= left - 1)
        context.waiting |= u64{1} << static_cast<u32>(std::countr_zero(left)) / service::max_device_queues;
}

SubmitOrder::Outcome BlockDevice::submit(u32 index, bool can_bounce, Context& context, u64& budget) {
    using Outcome = SubmitOrder::Outcome;
    Queue& queue = queues_[index];
    look_at_controller(context);
    block::Controller* const controller = context.controller(disk_.controller);
    if (controller->state() == block::Controller::State::Starting) return Outcome::Refused;
    std::array<block::Piece, DiskPart::max_pieces> pieces;
    for (; queue.to_submit != RequestPool::none; queue.to_submit = context.pool[queue.to_submit].next) {
        BlockRequest& request = context.pool[queue.to_submit].request;
        BlockRequest::Slice slice;
        if (!may_move(request, context)) return Outcome::Nothing; // it wants a turn again when it goes on
        switch (request.next_slice(memory_, medium_, can_bounce, pieces, slice)) {
        case BlockRequest::Next::Nothing:
            if (request.is_done()) context.waiting |= u64{1} << number_; // to be given back
            continue;
        case BlockRequest::Next::NeedsBounce: return Outcome::NeedsBounce;
        case BlockRequest::Next::Slice: break;
        }
        block::Command const command{slice.operation, disk_.index, 0, (disk_.begin + slice.at) / disk_.sector_size,
                                     std::span(pieces).first(slice.piece_count)};
        u32 const token = Context::token(queue.to_submit, slice.is_bounced);
        if (!context.controllers->submit(disk_.controller, context.client, token, command, context.now))
            return Outcome::Refused;
        moved(index, request, slice.bytes, context);
        request.begun(slice);
        budget -= std::min(budget, request_cost + (slice.is_bounced ? slice.bytes : 0));
        return slice.is_bounced ? Outcome::Bounced : Outcome::Submitted;
    }
    if (bandwidth_.is_limited()) context.waiting |= u64{1} << number_; // may_take() waited for this
    return Outcome::Nothing;
}

void BlockDevice::ended(u16 request, bool is_bounced, bool is_good, Context& context) {
    RequestPool::Entry& entry = context.pool[request];
    entry.request.ended(is_good, is_bounced, entry.is_dropped ? nullptr : &memory_, medium_);
    if (is_bounced) context.orders[entry.controller].bounce_ended();
    if (!entry.request.is_done()) return;
    if (!entry.is_dropped) {
        context.waiting |= u64{1} << number_;
        return;
    }
    dropped_--;
    release(request, context);
}

} // namespace storage
