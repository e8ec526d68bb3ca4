// SPDX-License-Identifier: MIT
// Commands of the strict NVMe controller. [nvme/1.4] 4.3, 5, 6
#include <algorithm>
#include <cstring>

#include "nvme_fake.hpp"

namespace block_test {

using block::Operation;
using block::Piece;

namespace {

constexpr u16 INVALID_OPCODE = 1, INVALID_FIELD = 2, INTERNAL = 6, INVALID_NAMESPACE = 0xb, LBA_OUT_OF_RANGE = 0x80,
              READ_ONLY = 0x182;

template <typename T> void put(u8* at, T value) { std::memcpy(at, &value, sizeof(T)); }

// Pieces that touch are one.
std::vector<Piece> joined(std::vector<Piece> const& pieces) {
    std::vector<Piece> result;
    for (Piece const& piece : pieces) {
        if (!result.empty() && result.back().address + result.back().size == piece.address)
            result.back().size += piece.size;
        else
            result.push_back(piece);
    }
    return result;
}

bool same(std::vector<Piece> const& a, std::vector<Piece> const& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](Piece const& x, Piece const& y) { return x.address == y.address && x.size == y.size; });
}

} // namespace

NvmeNamespace const* NvmeFake::find(u32 nsid) const {
    for (NvmeNamespace const& one : setup.namespaces)
        if (one.id == nsid) return &one;
    return nullptr;
}

void NvmeFake::step_admin() {
    while (auto const entry = fetch(queues_[0])) {
        require(!admin_ids_.contains(entry->id()), "an identifier twice under way");
        if (lost_admin != 0) {
            lost_admin--;
            admin_ids_.insert(entry->id());
            continue;
        }
        Result const result = entry->opcode() == setup.refused_admin ? Result{INTERNAL, 0} : admin(*entry);
        u16 const id = wrong_admin_ids != 0 ? (wrong_admin_ids--, static_cast<u16>(entry->id() ^ 0x40)) : entry->id();
        complete(ends_[0], queues_[0], 0, id, result);
    }
}

NvmeFake::Result NvmeFake::admin(Entry const& entry) {
    require(entry.cdw13 == 0 && entry.cdw14 == 0 && entry.cdw15 == 0, "reserved words of an admin command");
    switch (entry.opcode()) {
    case 0x01: return create_submission_queue(entry);
    case 0x05: return create_completion_queue(entry);
    case 0x06: return identify(entry);
    case 0x09:
        require(entry.cdw10 == 7 && entry.nsid == 0 && entry.prp1 == 0 && entry.prp2 == 0, "an unexpected feature");
        require(queues_[1].size == 0 && ends_[1].size == 0, "the number of queues is set after their creation");
        require((entry.cdw11 & 0xffff) != 0xffff && entry.cdw11 >> 16 != 0xffff, "too many queues");
        granted_queues_ = 1;
        return {};
    default: wrong("an unexpected admin command"); return {INVALID_OPCODE, 0};
    }
}

NvmeFake::Result NvmeFake::identify(Entry const& entry) {
    require(entry.prp1 % lib::page_size == 0 && entry.prp2 == 0, "Identify wants a page");
    require(entry.cdw10 <= 0xff && entry.cdw11 == 0 && entry.cdw12 == 0, "reserved words of Identify");
    require(!is_queue(entry.prp1, lib::page_size), "Identify to a queue");
    u8* const data = memory(entry.prp1, lib::page_size, false);
    if (data == nullptr) return {INVALID_FIELD, 0};
    u8 page[lib::page_size] = {};
    if (entry.cdw10 == 0) {
        NvmeNamespace const* const described = find(entry.nsid);
        require(entry.nsid != 0, "Identify of no namespace");
        if (entry.nsid > 0x100) return {INVALID_NAMESPACE, 0};
        if (described != nullptr && described->is_refused) return {INTERNAL, 0};
        if (described != nullptr) describe_namespace(*described, page);
    } else if (entry.cdw10 == 1) {
        require(entry.nsid == 0, "Identify of the controller names a namespace");
        describe_controller(page);
    } else if (entry.cdw10 == 2) {
        if (!setup.has_list) return {INVALID_FIELD, 0};
        require(entry.nsid == 0, "a list from the middle");
        u32 count = 0;
        for (NvmeNamespace const& one : setup.namespaces)
            put(page + 4 * count++, one.id);
    } else {
        wrong("an unexpected kind of Identify");
    }
    std::memcpy(data, page, lib::page_size);
    return {};
}

void NvmeFake::describe_controller(u8* data) const {
    std::memcpy(data + 4, "  serial \x07 number   ", 20);
    std::memcpy(data + 24, "A model that fills the field to its end.", 40);
    data[77] = static_cast<u8>(setup.mdts);
    data[512] = 0x66;
    data[513] = 0x44;
    u32 highest = 0;
    for (NvmeNamespace const& one : setup.namespaces)
        highest = std::max(highest, one.id);
    put(data + 516, highest);
    data[525] = setup.has_write_cache ? 1 : 0;
}

void NvmeFake::describe_namespace(NvmeNamespace const& described, u8* data) const {
    put(data, described.sectors);
    put(data + 8, described.sectors);
    put(data + 16, described.sectors);
    data[25] = static_cast<u8>(described.format); // the last one is in use
    data[26] = static_cast<u8>((described.format & 15) | described.format >> 4 << 5);
    for (u32 i = 0; i < described.format; i++)
        put(data + 128 + i * 4, u32{12} << 16 | 64);
    put(data + 128 + described.format * 4, described.exponent << 16 | described.metadata);
    data[99] = described.is_read_only ? 1 : 0;
}

bool NvmeFake::queue_is_possible(Entry const& entry, u32 entry_size) {
    u32 const size = (entry.cdw10 >> 16) + 1;
    return require((entry.cdw10 & 0xffff) == 1 && granted_queues_ == 1, "a queue that was not granted") &&
           require(size >= 2 && size <= setup.queue_entries, "a queue of a wrong size") &&
           require((entry.cdw11 & 1) != 0 && entry.prp1 % lib::page_size == 0 && entry.prp2 == 0, "queue's place") &&
           require(!is_queue(entry.prp1, u64{size} * entry_size), "queues in the same memory") &&
           require(memory(entry.prp1, u64{size} * entry_size, false) != nullptr, "queue's memory") &&
           require(control_ >> 16 == 0x46 && entry.cdw12 == 0 && entry.nsid == 0, "sizes of entries");
}

NvmeFake::Result NvmeFake::create_completion_queue(Entry const& entry) {
    if (!queue_is_possible(entry, 16)) return {INVALID_FIELD, 0};
    require(ends_[1].size == 0, "a completion queue is made twice");
    require((entry.cdw11 & 0xffff) == 3, "no interrupts, or reserved bits");
    require(entry.cdw11 >> 16 == 0, "no such interrupt vector");
    ends_[1] = {};
    ends_[1].at = entry.prp1;
    ends_[1].size = (entry.cdw10 >> 16) + 1;
    u8 const* const at = memory(entry.prp1, ends_[1].size * 16, false);
    for (u32 i = 0; i < ends_[1].size; i++)
        require((at[i * 16 + 14] & 1) == 0, "a completion queue with old phases");
    return {};
}

NvmeFake::Result NvmeFake::create_submission_queue(Entry const& entry) {
    if (!queue_is_possible(entry, 64)) return {INVALID_FIELD, 0};
    require(queues_[1].size == 0, "a submission queue is made twice");
    require((entry.cdw11 & 0xfff8) == 0 && entry.cdw11 >> 16 == 1 && ends_[1].size != 0, "no such completion queue");
    queues_[1] = {.at = entry.prp1, .size = (entry.cdw10 >> 16) + 1};
    return {};
}

// Where the bytes of a command lie. [nvme/1.4] 4.3
std::vector<Piece> NvmeFake::pages(Entry const& entry, u64 bytes) {
    std::vector<Piece> found;
    auto const add = [&](u64 address, bool is_first) {
        u64 const offset = address % lib::page_size;
        require(is_first ? offset % 4 == 0 : offset == 0, "a PRP entry with an offset");
        u64 const size = std::min(bytes, lib::page_size - offset);
        found.push_back({address, static_cast<u32>(size)});
        bytes -= size;
    };
    add(entry.prp1, true);
    if (bytes == 0) {
        require(entry.prp2 == 0, "a second PRP that is not needed");
    } else if (bytes <= lib::page_size) {
        add(entry.prp2, false);
    } else {
        u64 at = entry.prp2;
        require(at % 8 == 0 && !is_queue(at, 8), "a misplaced list of PRPs");
        while (bytes != 0) {
            u8 const* const from = memory(at, 8, false);
            if (from == nullptr) break;
            u64 next = 0;
            std::memcpy(&next, from, 8);
            at += 8;
            if (at % lib::page_size == 0 && bytes > lib::page_size)
                at = next;
            else
                add(next, false);
        }
    }
    return found;
}

void NvmeFake::step_io() {
    while (eager || random() % 8 != 0) {
        auto const entry = fetch(queues_[1]);
        if (!entry) break;
        begin_io(*entry);
    }
    for (std::size_t i = 0; i < under_way_.size();) {
        std::size_t const last = under_way_.size() - 1;
        if (!eager) std::swap(under_way_[i], under_way_[i + random() % (last - i + 1)]);
        UnderWay& command = under_way_[i];
        if (!command.has_moved && (eager || random() % 2 == 0)) move(command);
        if (!command.has_moved || command.is_lost || holds_back || (!eager && random() % 2 == 0)) {
            i++;
            continue;
        }
        finish(command);
        under_way_.erase(under_way_.begin() + static_cast<std::ptrdiff_t>(i));
    }
}

void NvmeFake::begin_io(Entry const& entry) {
    for (UnderWay const& other : under_way_)
        require(other.entry.id() != entry.id(), "an identifier twice under way");
    commands++;
    if (!require(!expected.empty(), "a command that nobody wants")) return;
    under_way_.push_back({entry, expected.front()});
    if (lost != 0) {
        lost--;
        under_way_.back().is_lost = true;
    }
    expected.pop_front();
    check_io(entry, under_way_.back().expected);
}

void NvmeFake::check_io(Entry const& entry, Expected const& must_be) {
    require(entry.nsid == must_be.nsid && find(entry.nsid) != nullptr, "a command for another namespace");
    require(entry.cdw13 == 0 && entry.cdw14 == 0 && entry.cdw15 == 0, "reserved words of a command");
    u8 const opcode = must_be.operation == Operation::Flush ? 0 : must_be.operation == Operation::Write ? 1 : 2;
    require(entry.opcode() == opcode, "another operation");
    if (opcode == 0) {
        require(entry.prp1 == 0 && entry.prp2 == 0 && entry.cdw10 == 0 && entry.cdw11 == 0 && entry.cdw12 == 0,
                "a flush with data");
        return;
    }
    u64 bytes = 0;
    for (Piece const& piece : must_be.pieces)
        bytes += piece.size;
    require((entry.cdw10 | u64{entry.cdw11} << 32) == must_be.sector, "another sector");
    require(entry.cdw12 <= 0xffff, "reserved bits of a command");
    require((u64{entry.cdw12} + 1) << find(must_be.nsid)->exponent == bytes, "another size");
    require(setup.mdts == 0 || bytes <= lib::page_size << setup.mdts, "more than MDTS");
}

void NvmeFake::move(UnderWay& command) {
    command.has_moved = true;
    Entry const& entry = command.entry;
    NvmeNamespace const* const disk = find(entry.nsid);
    if (entry.opcode() == 0 || disk == nullptr) return;
    if (entry.opcode() == 1 && disk->is_read_only) {
        command.status = READ_ONLY;
        return;
    }
    u64 const count = (entry.cdw12 & 0xffff) + u64{1}, sector = entry.cdw10 | u64{entry.cdw11} << 32;
    if (sector > disk->sectors || count > disk->sectors - sector) {
        command.status = LBA_OUT_OF_RANGE;
        return;
    }
    if (!require(live.contains(command.expected.tag), "a command that has ended is still under way")) return;
    std::vector<Piece> const found = pages(entry, count << disk->exponent);
    if (!require(same(joined(found), joined(command.expected.pieces)), "other memory than the command's pieces"))
        return;
    if (status) return;
    u8* from = medium(entry.nsid) + (sector << disk->exponent);
    for (Piece const& piece : found) {
        u8* const at = memory(piece.address, piece.size, true);
        if (at == nullptr) return;
        if (entry.opcode() == 1)
            std::memcpy(from, at, piece.size);
        else
            std::memcpy(at, from, piece.size);
        from += piece.size;
    }
}

void NvmeFake::finish(UnderWay const& command) {
    u16 id = command.entry.id();
    if (wrong_ids != 0) {
        wrong_ids--;
        id ^= 0x8000;
    }
    Result const result{status.value_or(command.status), 0};
    complete(ends_[1], queues_[1], 1, id, result);
    if (doubled != 0) {
        doubled--;
        complete(ends_[1], queues_[1], 1, id, result);
    }
}

} // namespace block_test
