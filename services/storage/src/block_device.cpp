// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <lib/format.hpp>
#include <storage/block_device.hpp>

namespace storage {
namespace {

namespace service = lib::service;
using lib::SplitQueue;

bool is_valid(service::DeviceEntry const& entry) {
    if (entry.kind != service::DeviceKind::Block) return false;
    if (entry.queue_count == 0 || entry.queue_count > service::max_device_queues) return false;
    if (entry.ram_area_count == 0 || entry.ram_area_count > service::max_ram_areas) return false;
    if (entry.medium_size == 0 || entry.medium_size % sector_size != 0 || entry.medium_size > service::max_medium)
        return false;
    u64 end = 0;
    for (service::RamArea const& area : std::span(entry.ram).first(entry.ram_area_count)) {
        if (area.base < end || area.base > service::max_guest_phys || area.base % lib::page_size != 0) return false;
        if (area.size == 0 || area.size > service::max_guest_phys - area.base) return false;
        end = area.base + area.size;
    }
    return true;
}

bool is_equal(service::QueueEntry const& a, service::QueueEntry const& b) {
    return a.descriptors == b.descriptors && a.available == b.available && a.used == b.used && a.size == b.size &&
           a.has_event_index == b.has_event_index && a.has_indirect == b.has_indirect && a.epoch == b.epoch;
}

// Whether it is the same disk of the same VM, whatever became of its queues.
bool is_same_disk(service::DeviceEntry const& a, service::DeviceEntry const& b) {
    if (a.kind != b.kind || a.queue_count != b.queue_count || a.ram_area_count != b.ram_area_count) return false;
    if (a.is_read_only != b.is_read_only || a.medium_size != b.medium_size) return false;
    return std::ranges::equal(a.serial, b.serial) &&
           std::ranges::equal(a.ram, b.ram, [](service::RamArea const& x, service::RamArea const& y) {
               return x.base == y.base && x.size == y.size;
           });
}

} // namespace

void BlockDevice::update(service::DeviceEntry const& entry, std::span<service::QueueRecord> records, Host& host,
                         u32 number) {
    number_ = number;
    bool const was_present = is_present();
    if (!is_valid(entry)) {
        if (entry.kind != service::DeviceKind::None) host.log("a device that makes no sense is left out");
        entry_ = {};
    } else if (!is_same_disk(entry_, entry)) {
        start_disk(entry, host);
    }
    bool is_misused = false;
    for (u32 i = 0; i < queues_.size(); i++) {
        service::QueueEntry const now = i < entry_.queue_count ? entry.queues[i] : service::QueueEntry{};
        queues_[i].record = &records[i];
        if (!is_equal(queues_[i].entry, now) && !start_queue(queues_[i], now)) is_misused = true;
    }
    if (is_misused) misuse(host);
    if (was_present && !is_present()) {
        char text[40];
        host.log(lib::format_to(text, "disk {} is gone", number_));
    }
}

void BlockDevice::start_disk(service::DeviceEntry const& entry, Host& host) {
    entry_ = entry;
    u8* const ram = host.ram_window(number_);
    for (u32 i = 0; i < entry.ram_area_count; i++)
        pieces_[i] = {{entry.ram[i].base}, entry.ram[i].size, ram + entry.ram[i].base};
    memory_ = lib::GuestMemory(std::span(pieces_).first(entry.ram_area_count));
    medium_.bytes = {host.medium_window(number_), entry.medium_size};
    medium_.is_read_only = entry.is_read_only != 0;
    std::copy_n(entry.serial, medium_.serial.size(), medium_.serial.begin());
    for (Queue& queue : queues_) { // each starts again, whatever its entry was
        queue.ring.stop();
        queue.entry = {};
    }
    char text[100];
    host.log(lib::format_to(text, "disk {}: {} KiB, {} queues{}", number_, entry.medium_size / lib::KiB,
                            entry.queue_count, medium_.is_read_only ? ", read-only" : ""));
}

// Returns false if the driver, or the last instance, left something that makes no sense.
bool BlockDevice::start_queue(Queue& queue, service::QueueEntry const& entry) {
    queue.entry = entry;
    queue.ring.stop();
    queue.has_request = queue.is_asked = queue.must_interrupt = false;
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

// After misuse nothing of the device is served until its driver starts a queue again.
void BlockDevice::misuse(Host& host) {
    for (Queue& queue : queues_)
        queue.ring.stop();
    host.misuse(number_);
}

// Notes how far the queue has come, by one store that comes after those of give_back().
void BlockDevice::note(Queue& queue) {
    SplitQueue::Position const& position = queue.ring.position();
    service::QueueRecord const record{queue.entry.epoch, position.next, position.used_index};
    u64 value;
    std::memcpy(&value, &record, sizeof(value));
    static_assert(sizeof(record) == sizeof(value));
    __atomic_store_n(reinterpret_cast<u64*>(queue.record), value, __ATOMIC_RELEASE);
}

bool BlockDevice::serve(Host& host, u64& budget) {
    u64 const all = budget;
    budget = std::min(budget, turn_budget);
    u64 const rest = all - budget;
    u32 const count = entry_.queue_count, first = first_ < count ? first_ : 0;
    for (u32 i = 0; i < count && budget != 0; i++) {
        u32 const index = first + i < count ? first + i : first + i - count;
        serve_queue(index, host, budget);
        if (budget == 0) first_ = index + 1 < count ? index + 1 : 0;
    }
    bool const may_have_more = budget == 0;
    budget += rest;
    return may_have_more;
}

void BlockDevice::serve_queue(u32 index, Host& host, u64& budget) {
    Queue& queue = queues_[index];
    if (!queue.ring.is_on()) return;
    bool is_empty = false;
    while (!is_empty && budget != 0) {
        while (budget != 0) {
            if (!queue.has_request && !take(queue, host)) break;
            if (!queue.request.go_on(memory_, medium_, budget)) break;
            give_back(queue);
            budget -= std::min(budget, request_cost);
        }
        if (!queue.ring.is_on()) return; // misuse
        // Once for the whole batch.
        bool const wants_interrupt = queue.ring.wants_interrupt();
        if (wants_interrupt || queue.must_interrupt) host.interrupt(number_, index);
        queue.must_interrupt = false;
        if (budget == 0 || queue.is_asked) return;
        queue.ring.ask_for_doorbell();
        queue.is_asked = true;
        bool has_more = false;
        if (!queue.ring.look(has_more)) return misuse(host);
        is_empty = !has_more;
    }
}

// Takes the next request. Returns false if there is none, or the driver broke a rule.
bool BlockDevice::take(Queue& queue, Host& host) {
    switch (queue.ring.take(queue.request.chain())) {
    case SplitQueue::Taken::Nothing: return false;
    case SplitQueue::Taken::Misuse: misuse(host); return false;
    case SplitQueue::Taken::Chain: break;
    }
    queue.is_asked = false;
    queue.has_request = queue.request.begin(memory_, medium_);
    if (!queue.has_request) misuse(host);
    return queue.has_request;
}

void BlockDevice::give_back(Queue& queue) {
    queue.ring.give_back(queue.request.chain(), queue.request.written());
    queue.has_request = false;
    note(queue);
}

} // namespace storage
