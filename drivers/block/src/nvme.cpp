// SPDX-License-Identifier: MIT
// Commands of an NVMe controller that runs. Its start: nvme_start.cpp.
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <utility>

#include "nvme_layout.hpp"

namespace block {

using namespace nvme;

Nvme::Nvme(Function& function) : function_(function), shared_(function.shared()) {
    static_assert(sizeof(Submission) == 64 && sizeof(Completion) == 16);
    static_assert(entries * sizeof(Submission) <= lib::page_size);
}

u32 Nvme::poll(u64 now, std::span<Ended> ended) {
    if (state_ == State::Starting) start(now);
    u32 count = 0;
    if (state_ == State::Ready) {
        count = take_ends(now, ended);
        if (state_ == State::Ready) look(now, count < ended.size()); // a full `ended` may have left ends in the queue
    }
    if (has_lost_) count += take_lost(ended.subspan(count));
    return count;
}

u32 Nvme::take_ends(u64 now, std::span<Ended> ended) {
    u32 count = 0;
    Completion done{};
    while (count < ended.size() && take(io_, done)) {
        if (done.id >= entries || !slots_[done.id].is_used) {
            reset(now, "it ended a command that nobody gave it");
            return count;
        }
        Slot& slot = slots_[done.id];
        slot.is_used = false;
        free_ |= u64{1} << done.id;
        u32 const status = done.status >> 1 & 0x7ff; // code and its type. [nvme/1.4] 4.6.1
        if (status == 0) {
            resets_ = 0;
        } else if (log_lines_ < 8) {
            log_lines_++;
            char text[80];
            function_.log(lib::format_to(text, "a command ended with status {:#x}", status));
        }
        ended[count++] = {slot.tag, status == 0 ? Status::Good : Status::Failed};
    }
    if (count != 0) ring_head(io_, 1);
    return count;
}

u32 Nvme::take_lost(std::span<Ended> ended) {
    u32 count = 0;
    for (Slot& slot : slots_) {
        if (!slot.is_lost) continue;
        if (count == ended.size()) {
            deadline_ = 0;
            return count;
        }
        slot.is_lost = false;
        ended[count++] = {slot.tag, Status::Failed};
    }
    has_lost_ = false;
    if (state_ == State::Failed) deadline_ = never;
    return count;
}

// Finds commands that take too long, and a controller that will end none of them. Says when it must look again.
void Nvme::look(u64 now, bool has_all_ends) {
    u64 limit = never;
    for (Slot const& slot : slots_)
        if (slot.is_used) limit = std::min(limit, slot.deadline);
    deadline_ = limit;
    if (limit == never) return;
    if (has_all_ends && limit <= now) return reset(now, "a command took too long");
    if (has_all_ends && next_look_ <= now) {
        next_look_ = now + milliseconds(look_milliseconds);
        Csts const status{{read(CSTS)}};
        if (status.raw == ~0U) return fail("is gone");
        if (status.get<Csts::CFS>()) return reset(now, "it reports a fatal error");
    }
    deadline_ = std::min(limit, next_look_);
}

// All that is under way ends as Failed. From here on the device reads and writes no memory, so its buffers are free.
void Nvme::lose_commands() {
    function_.set_bus_master(false);
    for (Slot& slot : slots_) {
        if (!slot.is_used) continue;
        slot.is_used = false;
        slot.is_lost = has_lost_ = true;
    }
    free_ = 0;
}

void Nvme::reset(u64 now, std::string_view why) {
    lose_commands();
    resets_++;
    char text[120];
    function_.log(lib::format_to(text, "{}{}", why, resets_ <= most_resets ? "; it is reset" : ""));
    if (resets_ > most_resets) return fail("has been reset too often without a command that succeeded");
    state_ = State::Starting;
    step_ = Step::Begin;
    deadline_ = now;
}

void Nvme::fail(std::string_view why) {
    lose_commands();
    state_ = State::Failed;
    failure_ = why;
    deadline_ = has_lost_ ? 0 : never;
}

Limits Nvme::limits() const {
    return {.most_bytes = most_bytes_,
            .most_pieces = most_bytes_ / static_cast<u32>(lib::page_size) + 1,
            .alignment = 4,
            .granule = lib::page_size,
            .highest_address = ~u64{0},
            .depth = io_.entry_count - 1};
}

bool Nvme::submit(Command const& command, u64 now) {
    // Lost commands still have their slots.
    if (state_ != State::Ready || has_lost_ || free_ == 0 || command.disk >= namespace_count_) return false;
    auto const slot = static_cast<u32>(std::countr_zero(free_));
    DiskFacts const& disk = facts_[command.disk];
    Submission& out = next_submission(io_);
    out = {};
    out.nsid = ids_[command.disk];
    u8 opcode = FLUSH;
    if (command.operation != Operation::Flush) {
        opcode = command.operation == Operation::Read ? READ : WRITE;
        u64 bytes = 0;
        for (Piece const& piece : command.pieces)
            bytes += piece.size;
        set_pages(out, slot, command.pieces);
        out.cdw10 = static_cast<u32>(command.sector);
        out.cdw11 = static_cast<u32>(command.sector >> 32);
        out.cdw12 = static_cast<u32>(bytes / disk.sector_size - 1);
    }
    out.cdw0 = opcode | slot << 16;
    free_ &= ~(u64{1} << slot);
    slots_[slot] = {
        .is_used = true, .is_lost = false, .tag = command.tag, .deadline = now + milliseconds(io_seconds * 1'000)};
    if (deadline_ == never) next_look_ = now + milliseconds(look_milliseconds); // nothing was under way
    deadline_ = std::min({deadline_, slots_[slot].deadline, next_look_});
    push(io_);
    return true;
}

// The first two pages in the entry, or the first one and a list of the others. [nvme/1.4] 4.3
void Nvme::set_pages(Submission& out, u32 slot, std::span<Piece const> pieces) {
    u8* const list = page(first_list_page + slot);
    u32 count = 0;
    u64 second = 0;
    for (Piece const& piece : pieces) {
        u64 at = piece.address;
        u64 const end = at + piece.size;
        while (at < end && count <= lib::page_size / sizeof(u64)) {
            if (count == 0) {
                out.prp1 = at;
            } else {
                if (count == 1) second = at;
                std::memcpy(list + (count - 1) * sizeof(u64), &at, sizeof(u64));
            }
            count++;
            at = lib::align_down(at, lib::page_size) + lib::page_size;
        }
    }
    if (count > 1) out.prp2 = count == 2 ? second : page_address(first_list_page + slot);
}

// After a reset nothing is left of what was submitted, and the controller takes no doorbells.
void Nvme::ring() {
    if (state_ == State::Ready) ring_tail(io_, 1);
}

Nvme::Submission& Nvme::next_submission(Queue const& queue) {
    return reinterpret_cast<Submission*>(page(queue.page))[queue.tail];
}

void Nvme::push(Queue& queue) {
    queue.tail = queue.tail + 1 == queue.entry_count ? 0 : queue.tail + 1;
    queue.must_ring = true;
}

// Copies the next completion, if there is one. Only the bytes after the phase are read after it.
bool Nvme::take(Queue& queue, Completion& out) {
    u8 const* const at = page(queue.page + 1) + queue.head * sizeof(Completion);
    auto const* const last = reinterpret_cast<lib::u32 const*>(at + offsetof(Completion, id));
    u32 const word = __atomic_load_n(last, __ATOMIC_ACQUIRE);
    if ((word >> 16 & 1) != queue.phase) return false;
    std::memcpy(&out, at, offsetof(Completion, id));
    out.id = static_cast<lib::u16>(word);
    out.status = static_cast<lib::u16>(word >> 16);
    queue.head++;
    if (queue.head == queue.entry_count) {
        queue.head = 0;
        queue.phase ^= 1;
    }
    return true;
}

// [nvme/1.4] 3.1.16: each queue has two doorbells. The entries are in memory before.
void Nvme::ring_tail(Queue& queue, u32 number) {
    if (!std::exchange(queue.must_ring, false)) return;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    write(doorbells + 2 * number * doorbell_stride_, queue.tail);
}
void Nvme::ring_head(Queue const& queue, u32 number) {
    write(doorbells + (2 * number + 1) * doorbell_stride_, queue.head);
}

void Nvme::write64(u32 offset, u64 value) {
    write(offset, static_cast<u32>(value));
    write(offset + 4, static_cast<u32>(value >> 32));
}

} // namespace block
