// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <lib/format.hpp>
#include <network/nic.hpp>

namespace network {
namespace {

namespace service = lib::service;
namespace feature = lib::service::net_feature;
using lib::SplitQueue;

bool is_valid(service::DeviceEntry const& entry) {
    if (entry.kind != service::DeviceKind::Net || entry.queue_count != Nic::queue_count) return false;
    if ((entry.mac[0] & 1) != 0) return false; // of a group
    if (entry.ram_area_count == 0 || entry.ram_area_count > service::max_ram_areas) return false;
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
           a.has_event_index == b.has_event_index && a.has_indirect == b.has_indirect && a.epoch == b.epoch &&
           a.features == b.features;
}

// Whether it is the same NIC of the same VM, whatever became of its queues.
bool is_same_nic(service::DeviceEntry const& a, service::DeviceEntry const& b) {
    return a.kind == b.kind && a.queue_count == b.queue_count && a.ram_area_count == b.ram_area_count &&
           a.network == b.network && std::ranges::equal(a.mac, b.mac) &&
           std::ranges::equal(a.ram, b.ram, [](service::RamArea const& x, service::RamArea const& y) {
               return x.base == y.base && x.size == y.size;
           });
}

} // namespace

bool Nic::update(service::DeviceEntry const& entry, std::span<service::QueueRecord> records, Host& host, u32 number) {
    number_ = number;
    for (u32 i = 0; i < queues_.size(); i++)
        queues_[i].record = &records[i];
    bool const was_present = is_present();
    bool is_another = false;
    if (!is_valid(entry)) {
        if (entry.kind != service::DeviceKind::None) host.log("a device that makes no sense is left out");
        update_queues({}, host);
        entry_ = {};
        is_another = was_present;
    } else if (!is_same_nic(entry_, entry)) {
        update_queues({}, host); // each starts again, whatever its entry was
        start(entry, host);
        is_another = true;
    }
    if (entry.kind == service::DeviceKind::None) {
        answered_ = 0;
    } else if (entry.stops != answered_) { // nothing is ever under way between two turns
        update_queues({}, host);
        answered_ = entry.stops;
        host.stopped(number_, entry.stops);
    }
    update_queues(std::span(entry.queues).first(entry_.queue_count), host);
    if (was_present && !is_present()) {
        char text[40];
        host.log(lib::format_to(text, "NIC {} is gone", number_));
    }
    return is_another;
}

void Nic::start(service::DeviceEntry const& entry, Host& host) {
    entry_ = entry;
    address_ = load_address(entry.mac);
    ram_ = host.ram_window(number_);
    for (u32 i = 0; i < entry.ram_area_count; i++)
        pieces_[i] = {{entry.ram[i].base}, entry.ram[i].size, ram_ + entry.ram[i].base};
    memory_ = lib::GuestMemory(std::span(pieces_).first(entry.ram_area_count));
    char text[80];
    u8 const* const mac = entry.mac;
    host.log(lib::format_to(text, "NIC {}: {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x} in network {}", number_, mac[0],
                            mac[1], mac[2], mac[3], mac[4], mac[5], entry.network));
}

// Those that have no entry are off.
void Nic::update_queues(std::span<service::QueueEntry const> entries, Host& host) {
    bool is_misused = false;
    for (u32 i = 0; i < queues_.size(); i++) {
        service::QueueEntry const now = i < entries.size() ? entries[i] : service::QueueEntry{};
        if (is_equal(queues_[i].entry, now)) continue;
        queues_[i].ring.stop();
        if (!start_queue(i, now)) is_misused = true;
    }
    if (is_misused) misuse(host);
}

// Returns false if the driver, or the last instance, left something that makes no sense.
bool Nic::start_queue(u32 index, service::QueueEntry const& entry) {
    Queue& queue = queues_[index];
    queue.entry = entry;
    queue.is_asked = queue.must_publish = queue.must_interrupt = false;
    if (entry.size == 0) return true;
    bool const is_on = queue.ring.start({entry.descriptors, entry.available, entry.used, entry.size,
                                         entry.has_event_index != 0, entry.has_indirect != 0});
    if (!is_on) return false;
    service::QueueRecord const record = *queue.record;
    if (record.epoch == entry.epoch) {
        // Chains are given back in their order, so both count the same.
        if (record.next != record.used_index) return false;
        if (!queue.ring.resume_noted(record.next, record.used_index, entry.size)) return false;
        queue.must_interrupt = true;
    }
    note(queue);
    // New buffers are nothing to do: the next frame finds them.
    if (index == receive_queue) queue.ring.refuse_doorbells();
    return true;
}

// After misuse nothing of the device is served until its driver starts a queue again.
void Nic::misuse(Host& host) {
    for (Queue& queue : queues_)
        queue.ring.stop();
    host.misuse(number_);
}

// By one store, which comes after those of publish().
void Nic::note(Queue const& queue) {
    u16 const given_back = queue.ring.position().used_index;
    service::QueueRecord const record{queue.entry.epoch, given_back, given_back};
    u64 value;
    std::memcpy(&value, &record, sizeof(value));
    static_assert(sizeof(record) == sizeof(value));
    __atomic_store_n(reinterpret_cast<u64*>(queue.record), value, __ATOMIC_RELEASE);
}

Nic::Took Nic::take(Frame& frame, Host& host) {
    Queue& queue = queues_[transmit_queue];
    if (!queue.ring.is_on()) return Took::Nothing;
    SplitQueue::Taken const taken = queue.ring.take(frame.chain());
    if (taken == SplitQueue::Taken::Nothing) return Took::Nothing;
    Frame::Verdict const verdict =
        taken == SplitQueue::Taken::Chain ? frame.begin(ram_, queue.entry.features) : Frame::Verdict::Misuse;
    if (verdict == Frame::Verdict::Misuse) {
        misuse(host);
        return Took::Misuse;
    }
    queue.is_asked = false;
    if (verdict == Frame::Verdict::Good && frame.source() == address_) {
        statistics_->sent_frames++;
        statistics_->sent_bytes += frame.size();
        return Took::Frame;
    }
    (*statistics_)[verdict == Frame::Verdict::Good ? Drop::Spoofed : frame.reason()]++;
    return Took::Dropped;
}

void Nic::done(Frame& frame) {
    Queue& queue = queues_[transmit_queue];
    queue.ring.add_used(frame.chain(), 0);
    queue.must_publish = true;
}

u32 Nic::receive(Frame& frame, SplitQueue::Chain& chain, Host& host) {
    Queue& queue = queues_[receive_queue];
    if (!queue.ring.is_on()) {
        (*statistics_)[Drop::NotReady]++;
        return 1;
    }
    bool const is_mergeable = (queue.entry.features & feature::MRG_RXBUF) != 0;
    if (takes_as_it_is(frame)) {
        bool const takes_partial_checksum = (queue.entry.features & feature::GUEST_CSUM) != 0;
        Reception reception(queue.ring, ram_, is_mergeable, chain);
        (void)settle(reception.put(frame, takes_partial_checksum), frame.size(), host);
        return 1;
    }
    u32 count = 0;
    bool has_room = true;
    for (Segmenter segment(frame); has_room && segment.next(); count++) {
        u32 const size = static_cast<u32>(segment.headers().size()) + segment.payload_size();
        Reception reception(queue.ring, ram_, is_mergeable, chain);
        has_room = settle(reception.put(frame, segment), size, host);
    }
    return count;
}

// A large frame comes with a checksum to be computed, which its receiver must take as well.
bool Nic::takes_as_it_is(Frame const& frame) const {
    if (!frame.is_large()) return true;
    u32 const needed = feature::GUEST_CSUM | (frame.is_ipv6() ? feature::GUEST_TSO6 : feature::GUEST_TSO4);
    return (queues_[receive_queue].entry.features & needed) == needed;
}

// Counts what became of a frame. Returns whether another one may have room.
bool Nic::settle(Reception::Outcome outcome, u32 bytes, Host& host) {
    switch (outcome) {
    case Reception::Outcome::Done:
        queues_[receive_queue].must_publish = true;
        statistics_->received_frames++;
        statistics_->received_bytes += bytes;
        return true;
    case Reception::Outcome::NoBuffer: (*statistics_)[Drop::NoBuffer]++; break;
    case Reception::Outcome::TooLarge: (*statistics_)[Drop::TooLarge]++; break;
    case Reception::Outcome::Misuse: misuse(host); break;
    }
    return false;
}

void Nic::publish(Host& host) {
    for (u32 i = 0; i < queues_.size(); i++) {
        Queue& queue = queues_[i];
        if (!queue.ring.is_on()) continue;
        if (queue.must_publish) {
            queue.ring.publish();
            note(queue);
        }
        bool const wants_interrupt = queue.must_publish && queue.ring.wants_interrupt();
        if (wants_interrupt || queue.must_interrupt) host.interrupt(number_, i);
        queue.must_publish = queue.must_interrupt = false;
    }
}

bool Nic::ask_for_doorbell(Host& host) {
    Queue& queue = queues_[transmit_queue];
    if (!queue.ring.is_on() || queue.is_asked) return false;
    queue.ring.ask_for_doorbell();
    queue.is_asked = true;
    bool has_more = false;
    if (!queue.ring.look(has_more)) {
        misuse(host);
        return false;
    }
    return has_more;
}

} // namespace network
