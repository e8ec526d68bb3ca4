// SPDX-License-Identifier: MIT
// Commands: into the ring, out of it, and to the caller. The start and the reset are in virtio_start.cpp.
#include "printable.hpp"
#include "virtio_requests.hpp"

#include <algorithm>

namespace block {

using namespace virtio;

Virtio::Virtio(Function& function) : function_(function), shared_(function.shared()), transport_(function) {}

Controller::State Virtio::state() const {
    if (phase_ == Phase::Failed) return State::Failed;
    return has_disk_ ? State::Ready : State::Starting;
}

u64 Virtio::deadline() const {
    if (ended_count_ != 0 || phase_ == Phase::New) return 0;
    if (phase_ == Phase::Reset) return next_look_;
    return under_way_ != 0 ? next_look_ : never;
}

u32 Virtio::poll(u64 now, std::span<Ended> ended) {
    switch (phase_) {
    case Phase::New: start(now); break;
    case Phase::Reset: wait_for_reset(now); break;
    case Phase::Identify:
    case Phase::Running:
        collect(now);
        look(now);
        break;
    case Phase::Failed: break;
    }
    return give_out(ended);
}

// Each turn ends a command that is under way, so that a device that goes on writing cannot keep it here.
void Virtio::collect(u64 now) {
    for (;;) {
        u32 head = 0;
        VirtioRing::Look const found = ring_.next_used(head);
        if (found == VirtioRing::Look::Nothing) return;
        u32 const index = head / stride_;
        if (found == VirtioRing::Look::Broken || head >= queue_size_ || head % stride_ != 0 ||
            slots_[index].use != Use::UnderWay)
            return recover("has broken its queue", now);
        // The length in the used ring says nothing that the status does not.
        Request const& request = reinterpret_cast<Request const*>(shared_.bytes.data() + requests_at)[index];
        bool const is_good = __atomic_load_n(&request.status, __ATOMIC_RELAXED) == OK;
        if (phase_ == Phase::Identify) {
            slots_[index].status = is_good ? Status::Good : Status::Failed;
            end_identify(slots_[index]);
            return;
        }
        if (is_good) resets_ = 0;
        end(index, is_good ? Status::Good : Status::Failed);
    }
}

// Sometimes while commands are under way: no interrupt tells that the device has failed, or does nothing.
void Virtio::look(u64 now) {
    if (under_way_ == 0 || now < next_look_) return;
    next_look_ = now + milliseconds(look_milliseconds);
    u8 const status = transport_.status();
    if (status == VirtioTransport::gone) return fail("does not answer any more");
    if ((status & VirtioTransport::DEVICE_NEEDS_RESET) != 0) return recover("asks for a reset", now);
    bool const is_late =
        std::ranges::any_of(slots_, [now](Slot const& slot) { return slot.use == Use::UnderWay && now >= slot.limit; });
    if (is_late) recover("has not answered in time", now);
}

void Virtio::end(u32 slot, Status status) {
    slots_[slot].use = Use::Ended;
    slots_[slot].status = status;
    under_way_--;
    ended_[(ended_first_ + ended_count_++) % most_slots] = static_cast<u8>(slot);
}

// Of a device that cannot reach memory any more.
void Virtio::end_all() {
    if (!has_disk_) { // nothing is under way except the driver's own
        slots_[0].use = Use::Free;
        under_way_ = 0;
        return;
    }
    for (u32 i = 0; i < most_slots; i++)
        if (slots_[i].use == Use::UnderWay) end(i, Status::Failed);
}

u32 Virtio::give_out(std::span<Ended> ended) {
    u32 count = 0;
    for (; count < ended.size() && ended_count_ != 0; count++, ended_count_--) {
        u8 const slot = ended_[ended_first_];
        ended_first_ = (ended_first_ + 1) % most_slots;
        ended[count] = {slots_[slot].tag, slots_[slot].status};
        slots_[slot].use = Use::Free;
        free_[free_count_++] = slot;
    }
    return count;
}

void Virtio::begin(u32 slot, u32 tag, u64 now, u64 limit) {
    if (under_way_++ == 0) next_look_ = now + milliseconds(look_milliseconds);
    slots_[slot] = {tag, Use::UnderWay, Status::Failed, now + milliseconds(limit)};
}

bool Virtio::submit(Command const& command, u64 now) {
    if (phase_ != Phase::Running || free_count_ == 0) return false;
    u32 const slot = free_[--free_count_];
    begin(slot, command.tag, now, command_milliseconds);
    bool const is_flush = command.operation == Operation::Flush;
    if (is_flush && !disk_.has_write_cache) {
        end(slot, Status::Good);
        return true;
    }
    u32 const type = is_flush ? FLUSH : command.operation == Operation::Read ? IN : OUT;
    // [virtio/1.2] 5.2.6.1: the sector of a flush is 0.
    u64 const sector = is_flush ? 0 : command.sector * (disk_.sector_size / capacity_unit);
    if (build(slot, type, sector, is_flush ? std::span<Piece const>{} : command.pieces))
        ring_.add(static_cast<u16>(slot * stride_));
    else
        end(slot, Status::Failed);
    return true;
}

void Virtio::ring() {
    bool const is_on = phase_ == Phase::Identify || phase_ == Phase::Running;
    if (is_on && ring_.publish()) transport_.notify();
}

// Writes header and descriptors. Returns false if the pieces do not obey the limits.
bool Virtio::build(u32 slot, u32 type, u64 sector, std::span<Piece const> pieces) {
    u64 const request = shared_.address + requests_at + slot * sizeof(Request);
    Request& header = reinterpret_cast<Request*>(shared_.bytes.data() + requests_at)[slot];
    header = {type, 0, sector, unanswered, {}};
    u32 const table_at = tables_at + slot * table_size;
    VirtioDescriptor* const chain = has_indirect_ ? reinterpret_cast<VirtioDescriptor*>(shared_.bytes.data() + table_at)
                                                  : &ring_.descriptor(slot * stride_);
    u32 const base = has_indirect_ ? 0 : slot * stride_;
    u32 const most = has_indirect_ ? queue_size_ : stride_;
    u32 count = 0;
    auto const add = [&](u64 address, u32 size, u16 flags) {
        if (count == most) return false;
        chain[count] = {address, size, static_cast<u16>(flags | VirtioDescriptor::NEXT),
                        static_cast<u16>(base + count + 1)};
        count++;
        return true;
    };
    add(request, header_size, 0);
    u16 const direction = type == OUT ? 0 : VirtioDescriptor::WRITE;
    for (Piece const& piece : pieces) {
        for (u32 done = 0; done < piece.size;) {
            u32 const size = std::min(piece.size - done, size_max_);
            if (!add(piece.address + done, size, direction)) return false;
            done += size;
        }
    }
    if (!add(request + header_size, 1, VirtioDescriptor::WRITE)) return false;
    chain[count - 1].flags = VirtioDescriptor::WRITE;
    chain[count - 1].next = 0;
    if (has_indirect_)
        ring_.descriptor(slot) = {shared_.address + table_at, static_cast<u32>(count * sizeof(VirtioDescriptor)),
                                  VirtioDescriptor::INDIRECT, 0};
    return true;
}

} // namespace block
