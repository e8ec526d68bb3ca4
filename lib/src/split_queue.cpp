// SPDX-License-Identifier: MIT
#include <atomic>
#include <bit>
#include <lib/split_queue.hpp>

namespace lib {
namespace {

constexpr u16 NEXT = 1, WRITE = 2, INDIRECT = 4; // of a descriptor [virtio/1.2] 2.7.5
constexpr u16 NO_INTERRUPT = 1;                  // of the available ring [virtio/1.2] 2.7.6
constexpr u16 NO_NOTIFY = 1;                     // of the used ring [virtio/1.2] 2.7.8
constexpr u64 descriptor_size = 16, used_entry_size = 8, available_entry_size = 2;
constexpr u64 flags_at = 0, index_at = 2, ring_at = 4;

// In bytes. Each ring ends with the index of its event. [virtio/1.2] 2.7.6, 2.7.8
constexpr u64 descriptors_of(u64 size) { return descriptor_size * size; }
constexpr u64 available_of(u64 size) { return ring_at + available_entry_size * size + 2; }
constexpr u64 used_of(u64 size) { return ring_at + used_entry_size * size + 2; }

} // namespace

bool SplitQueue::is_usable(GuestMemory const& memory, QueueSetup const& setup) {
    u64 const size = setup.size;
    if (!std::has_single_bit(size) || size > max_size) return false;
    if (setup.descriptors % 16 != 0 || setup.available % 2 != 0 || setup.used % 4 != 0) return false;
    return memory.contains({setup.descriptors}, descriptors_of(size)) &&
           memory.contains({setup.available}, available_of(size)) && memory.contains({setup.used}, used_of(size));
}

bool SplitQueue::start(QueueSetup const& setup) {
    if (!is_usable(memory_, setup)) return false;
    setup_ = setup;
    descriptors_ = GuestRange(memory_, {setup.descriptors}, descriptors_of(setup.size));
    available_ = GuestRange(memory_, {setup.available}, available_of(setup.size));
    used_ = GuestRange(memory_, {setup.used}, used_of(setup.size));
    position_ = {};
    return true;
}

bool SplitQueue::resume_noted(u16 next, u16 used_index, u16 most) {
    auto const index = used_.load<u16>(index_at);
    if (!index) return false;
    u16 const more = static_cast<u16>(*index - used_index);
    if (more > most) return false;
    position_ = {static_cast<u16>(next + more), *index, *index, 0};
    return true;
}

bool SplitQueue::look(bool& has_more) const {
    auto const index = available_.load<u16>(index_at);
    if (!index) return false;
    u16 const waiting = static_cast<u16>(*index - position_.next);
    has_more = waiting != 0;
    return waiting <= setup_.size;
}

SplitQueue::Taken SplitQueue::take(Chain& chain) {
    bool has_more = false;
    if (!look(has_more)) return Taken::Misuse;
    if (!has_more) return Taken::Nothing;
    auto const head = available_.load<u16>(ring_at + available_entry_size * ring_place(position_.next));
    if (!head || *head >= setup_.size || !read_chain(*head, chain)) return Taken::Misuse;
    position_.next++;
    return Taken::Chain;
}

bool SplitQueue::read_chain(u16 head, Chain& chain) const {
    chain.head = head;
    chain.count = 0;
    GuestRange table = descriptors_;
    u32 table_size = setup_.size;
    bool is_indirect = false;
    for (u16 index = head;;) {
        if (index >= table_size) return false;
        auto const descriptor = table.read<Descriptor>(descriptor_size * index);
        if (!descriptor) return false;
        if ((descriptor->flags & INDIRECT) != 0) {
            u32 const entries = descriptor->size / descriptor_size;
            bool const is_allowed = setup_.has_indirect && !is_indirect && (descriptor->flags & NEXT) == 0;
            if (!is_allowed || descriptor->size % descriptor_size != 0 || entries == 0 || entries > setup_.size)
                return false;
            is_indirect = true;
            table = GuestRange(memory_, {descriptor->address}, descriptor->size);
            if (table.is_empty()) return false;
            table_size = entries;
            index = 0;
            continue;
        }
        if (!add(chain, *descriptor)) return false;
        if ((descriptor->flags & NEXT) == 0) return true;
        index = descriptor->next;
    }
}

bool SplitQueue::add(Chain& chain, Descriptor const& descriptor) const {
    bool const is_writable = (descriptor.flags & WRITE) != 0;
    if (chain.count == setup_.size) return false; // longer than the queue: a loop
    if (!is_writable && chain.count != 0 && chain.segments[chain.count - 1].is_writable) return false;
    if (!memory_.contains({descriptor.address}, descriptor.size)) return false;
    chain.segments[chain.count++] = {{descriptor.address}, descriptor.size, is_writable};
    return true;
}

void SplitQueue::ask_for_doorbell() {
    if (setup_.has_event_index) (void)used_.store<u16>(ring_at + used_entry_size * setup_.size, position_.next);
    std::atomic_thread_fence(std::memory_order_seq_cst); // before look() reads the driver's index
}

void SplitQueue::refuse_doorbells() {
    if (setup_.has_event_index) { // the driver's index has just passed that one, and comes there again after 65535 more
        u16 const passed = static_cast<u16>(position_.next - 1);
        (void)used_.store<u16>(ring_at + used_entry_size * setup_.size, passed);
    } else
        (void)used_.store<u16>(flags_at, NO_NOTIFY);
}

void SplitQueue::add_used(Chain const& chain, u32 written) {
    u64 const entry = ring_at + used_entry_size * ring_place(position_.used_index++);
    (void)used_.store<u32>(entry, chain.head);
    (void)used_.store<u32>(entry + 4, written);
}

void SplitQueue::publish() {
    (void)used_.store<u16>(index_at, position_.used_index); // releases what was written before
}

void SplitQueue::put_back(u16 taken, u16 added) {
    position_.next = static_cast<u16>(position_.next - taken);
    position_.used_index = static_cast<u16>(position_.used_index - added);
}

bool SplitQueue::wants_interrupt() {
    u16 const old = position_.signalled, now = position_.used_index;
    if (old == now) return false;
    std::atomic_thread_fence(std::memory_order_seq_cst); // the driver sees the new index before we read what it wants
    bool wants = true;
    if (setup_.has_event_index) {
        auto const event = available_.load<u16>(ring_at + available_entry_size * setup_.size);
        // Whether the index went past `event`. [virtio/1.2] 2.7.7.2
        wants = event && static_cast<u16>(now - *event - 1) < static_cast<u16>(now - old);
    } else {
        auto const flags = available_.load<u16>(flags_at);
        wants = flags && (*flags & NO_INTERRUPT) == 0;
    }
    position_.signalled = now;
    return wants;
}

} // namespace lib
