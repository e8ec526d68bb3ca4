// SPDX-License-Identifier: MIT
// Registers, doorbells and queues of the strict NVMe controller. Its commands: nvme_fake_commands.cpp. [nvme/1.4] 3.1,
// 4
#include "nvme_fake.hpp"

#include <algorithm>
#include <cstring>

namespace block_test {

namespace {

constexpr u32 EN = 1, RDY = 1, CFS = 2, doorbells = 0x1000;

bool overlap(u64 a, u64 a_size, u64 b, u64 b_size) { return a < b + b_size && b < a + a_size; }

} // namespace

NvmeFake::NvmeFake(NvmeSetup const& from)
    : setup(from), shared_(std::make_unique<Page[]>(from.shared_size / lib::page_size)) {
    for (NvmeNamespace const& one : setup.namespaces) {
        media_.emplace_back(one.sectors << one.exponent);
        for (std::size_t i = 0; i + 4 <= media_.back().size(); i += 4) {
            u32 const bytes = static_cast<u32>(random());
            std::memcpy(media_.back().data() + i, &bytes, 4);
        }
    }
    enabled_ = setup.left != Left::Off && setup.left != Left::Stopping;
    ready_ = setup.left == Left::Ready || setup.left == Left::Stopping;
    control_ = enabled_ ? 0x0046'0001 : 0;
    changes_at_ = (setup.left == Left::Stopping ? setup.stop_ms : setup.start_ms) * block_test::ticks_per_millisecond;
}

u8* NvmeFake::medium(u32 nsid) {
    for (std::size_t i = 0; i < media_.size(); i++)
        if (setup.namespaces[i].id == nsid) return media_[i].data();
    return nullptr;
}

u32 NvmeFake::capabilities(bool upper) const {
    u64 const all = (setup.queue_entries - 1) | u64{1} << 16 | u64{setup.time_limit} << 24 | u64{setup.stride} << 32 |
                    u64{setup.has_nvm} << 37 | u64{setup.smallest_page} << 48 | u64{4} << 52;
    return static_cast<u32>(upper ? all >> 32 : all);
}

u32 NvmeFake::read(u32 bar, u32 offset, u32 width) {
    advance();
    if (!require(bar == 0 && width == 4 && offset % 4 == 0 && u64{offset} + 4 <= setup.bar_size, "no such register"))
        return ~0U;
    if (gone) return ~0U;
    switch (offset) {
    case 0x00: return capabilities(false);
    case 0x04: return capabilities(true);
    case 0x08: return 0x0001'0400;
    case 0x14: return control_;
    case 0x1c: return (ready_ ? RDY : 0) | (fatal ? CFS : 0);
    case 0x24: return attributes_;
    case 0x28: return static_cast<u32>(submissions_at_);
    case 0x2c: return static_cast<u32>(submissions_at_ >> 32);
    case 0x30: return static_cast<u32>(completions_at_);
    case 0x34: return static_cast<u32>(completions_at_ >> 32);
    default: wrong("read of register " + std::to_string(offset)); return ~0U;
    }
}

void NvmeFake::write(u32 bar, u32 offset, u32 width, u32 value) {
    advance();
    if (!require(bar == 0 && width == 4 && offset % 4 == 0 && u64{offset} + 4 <= setup.bar_size, "no such register"))
        return;
    if (gone) return;
    if (offset == 0x14) return write_control(value);
    if (offset >= doorbells) return doorbell(offset - doorbells, value);
    require(!enabled_, "the admin queues change while it is enabled");
    auto const set_half = [&](u64& whole) {
        whole = offset % 8 == 0 ? (whole & ~u64{0xffff'ffff}) | value : (whole & 0xffff'ffff) | u64{value} << 32;
    };
    switch (offset) {
    case 0x24:
        require((value & 0xf000'f000) == 0, "reserved bits of AQA");
        attributes_ = value;
        return;
    case 0x28:
    case 0x2c: return set_half(submissions_at_);
    case 0x30:
    case 0x34: return set_half(completions_at_);
    default: wrong("write of register " + std::to_string(offset));
    }
}

u32 NvmeFake::configuration(u32 offset) {
    require(offset % 4 == 0 && offset < 256, "no such register of configuration space");
    return ~0U;
}

void NvmeFake::set_bus_master(bool on) {
    advance();
    if (on && !gone) require(!enabled_ && !ready_, "bus master is turned on before the device has stopped");
    bus_master_ = on;
}

// RDY follows EN.
void NvmeFake::advance() {
    if (ready_ == enabled_ || now < changes_at_) return;
    if (enabled_ && (setup.never_ready || setup.left == Left::NeverReady)) return;
    if (!enabled_ && setup.never_stops) return;
    ready_ = enabled_;
    if (ready_ && is_fatal_after_start) fatal = true;
}

void NvmeFake::write_control(u32 value) {
    require((value & 0xff00'000e) == 0, "reserved bits of CC");
    bool const on = (value & EN) != 0;
    if (on && !enabled_) return enable(value);
    if (!on && enabled_) return disable();
    if (enabled_) require(((value ^ control_) & 0x3ff0) == 0, "CC changes while it is enabled");
    control_ = value;
}

void NvmeFake::enable(u32 value) {
    require(!ready_, "EN is set before it has stopped");
    require(bus_master_, "EN is set without bus master");
    require((value >> 7 & 15) == 0 && (value >> 4 & 7) == 0 && (value >> 11 & 7) == 0, "page size, command set, AMS");
    require((value >> 14 & 3) == 0, "a shutdown at the start");
    queues_[0] = {.at = submissions_at_, .size = (attributes_ & 0xfff) + 1};
    ends_[0] = {};
    ends_[0].at = completions_at_;
    ends_[0].size = (attributes_ >> 16) + 1;
    require(queues_[0].size >= 2 && ends_[0].size >= 2, "AQA is not set");
    require(submissions_at_ % lib::page_size == 0 && completions_at_ % lib::page_size == 0, "ASQ or ACQ is misaligned");
    require(memory(submissions_at_, queues_[0].size * 64, false) != nullptr, "ASQ");
    u8 const* const at = memory(completions_at_, ends_[0].size * 16, false);
    require(!overlap(submissions_at_, queues_[0].size * 64, completions_at_, ends_[0].size * 16), "ASQ is in ACQ");
    for (u32 i = 0; at != nullptr && i < ends_[0].size; i++)
        require((at[i * 16 + 14] & 1) == 0, "a completion queue with old phases");
    queues_[1] = {};
    ends_[1] = {};
    granted_queues_ = 0;
    control_ = value;
    enabled_ = true;
    enabled_at_ = now;
    changes_at_ = now + setup.start_ms * block_test::ticks_per_millisecond;
    starts++;
}

void NvmeFake::disable() {
    u64 const limit = std::max(1U, setup.time_limit) * 500 * block_test::ticks_per_millisecond;
    require(ready_ || fatal || now >= enabled_at_ + limit, "EN is taken back before it is ready");
    control_ = 0;
    enabled_ = false;
    fatal = false;
    setup.left = Left::Off;
    changes_at_ = now + setup.stop_ms * block_test::ticks_per_millisecond;
    under_way_.clear();
    admin_ids_.clear();
    expected.clear();
    has_interrupt_ = false;
}

void NvmeFake::doorbell(u32 offset, u32 value) {
    u32 const stride = 4U << setup.stride;
    if (!require(ready_ && enabled_, "a doorbell while it is not ready")) return;
    require(bus_master_, "a doorbell without bus master");
    u32 const index = offset / stride;
    if (!require(offset % stride == 0 && index < 4, "no such doorbell")) return;
    if (index % 2 == 0)
        ring_tail(queues_[index / 2], value);
    else
        ring_head(ends_[index / 2], queues_[index / 2], value);
}

void NvmeFake::ring_tail(Queue& queue, u32 value) {
    if (!require(queue.size != 0, "a doorbell of a queue that is not there") ||
        !require(value < queue.size, "a doorbell beyond the queue") ||
        !require(value != queue.tail, "a doorbell without news"))
        return;
    u32 const added = (value + queue.size - queue.tail) % queue.size;
    u32 const used = (queue.tail + queue.size - queue.reported) % queue.size;
    require(added + used < queue.size, "more submissions than there is room for");
    queue.tail = value;
}

void NvmeFake::ring_head(CompletionQueue& queue, Queue& submissions, u32 value) {
    if (!require(queue.size != 0, "a doorbell of a queue that is not there") ||
        !require(value < queue.size, "a doorbell beyond the queue") ||
        !require(value != queue.head, "a doorbell without news"))
        return;
    u32 const freed = (value + queue.size - queue.head) % queue.size;
    if (!require(freed <= queue.heads.size(), "more completions given back than there were")) return;
    for (u32 i = 0; i < freed; i++) {
        submissions.reported = queue.heads.front();
        queue.heads.pop_front();
    }
    queue.head = value;
}

bool NvmeFake::is_queue(u64 address, u64 size) const {
    for (u32 i = 0; i < 2; i++)
        if (overlap(address, size, queues_[i].at, u64{queues_[i].size} * 64) ||
            overlap(address, size, ends_[i].at, u64{ends_[i].size} * 16))
            return true;
    return false;
}

u8* NvmeFake::memory(u64 address, u64 size, bool may_be_ram) {
    if (!require(bus_master_, "a memory access without bus master")) return nullptr;
    if (address >= shared_begin && address - shared_begin + size <= setup.shared_size)
        return shared_bytes() + (address - shared_begin);
    if (may_be_ram && address >= ram_begin && address - ram_begin + size <= ram_size)
        return ram.data() + (address - ram_begin);
    wrong("a memory access outside of what is shared");
    return nullptr;
}

std::optional<NvmeFake::Entry> NvmeFake::fetch(Queue& queue) {
    if (queue.size == 0 || queue.head == queue.tail) return std::nullopt;
    u8 const* const at = memory(queue.at + u64{queue.head} * sizeof(Entry), sizeof(Entry), false);
    queue.head = (queue.head + 1) % queue.size;
    if (at == nullptr) return std::nullopt;
    Entry entry;
    std::memcpy(&entry, at, sizeof(entry));
    require((entry.cdw0 & 0xff00) == 0, "fused commands, lists of segments or reserved bits");
    require(entry.reserved == 0 && entry.metadata == 0, "reserved bits or metadata of a command");
    return entry;
}

void NvmeFake::complete(CompletionQueue& queue, Queue& submissions, u32 sq_id, u16 id, Result result) {
    // A real controller waits for room. The driver never lets it come to this.
    if (!require(queue.heads.size() + 1 < queue.size, "a completion queue is full")) return;
    u8* const at = memory(queue.at + u64{queue.tail} * 16, 16, false);
    if (at == nullptr) return;
    u16 const words[4] = {static_cast<u16>(submissions.head), static_cast<u16>(sq_id), id,
                          static_cast<u16>(result.status << 1 | queue.phase)};
    u32 const unused = static_cast<u32>(random());
    std::memcpy(at, &result.dw0, 4);
    std::memcpy(at + 4, &unused, 4);
    std::memcpy(at + 8, words, 8);
    queue.heads.push_back(submissions.head);
    queue.tail++;
    if (queue.tail == queue.size) {
        queue.tail = 0;
        queue.phase ^= 1;
    }
    has_interrupt_ = true;
}

void NvmeFake::step() {
    advance();
    if (gone || fatal || !ready_ || !enabled_ || !bus_master_) return;
    step_admin();
    step_io();
}

} // namespace block_test
