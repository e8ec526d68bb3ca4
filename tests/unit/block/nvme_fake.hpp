// SPDX-License-Identifier: MIT
#pragma once
// An NVMe controller that does what [nvme/1.4] demands, notes as a violation what the specification forbids its driver,
// and misbehaves where a test wants it to. It works in step() only, so that a test decides when.
#include <block/controller.hpp>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace block_test {

using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u64 ticks_per_millisecond = 1000;
inline constexpr u64 shared_begin = 0x1234'5000, ram_begin = 0x7'8000'0000, ram_size = 4 * lib::MiB;

struct NvmeNamespace {
    u32 id = 1;
    u64 sectors = 2048;
    u32 exponent = 9;
    u32 metadata = 0;
    bool is_read_only = false;
    bool is_refused = false; // Identify of it fails
    u32 format = 2;          // the number of the format in use; the others have other sizes
};

enum class Left : u8 { Off, Ready, Starting, NeverReady, Stopping }; // by firmware

struct NvmeSetup {
    std::vector<NvmeNamespace> namespaces = {{}};
    u32 queue_entries = 1024; // at most, of I/O queues
    u32 stride = 0, smallest_page = 0, mdts = 0, time_limit = 4;
    u64 bar_size = 0x4000, shared_size = 512 * lib::KiB;
    bool has_nvm = true, has_list = true, has_write_cache = true;
    bool never_ready = false, never_stops = false;
    u64 start_ms = 20, stop_ms = 10;
    Left left = Left::Off;
    u8 refused_admin = 0xff; // opcode
};

class NvmeFake final : public block::Function {
public:
    // What the next I/O command must be, and whether its memory is still the device's.
    struct Expected {
        u32 tag;
        block::Operation operation;
        u32 nsid;
        u64 sector;
        std::vector<block::Piece> pieces;
    };

    explicit NvmeFake(NvmeSetup const& from);

    u32 read(u32 bar, u32 offset, u32 width) override;
    void write(u32 bar, u32 offset, u32 width, u32 value) override;
    u64 bar_size(u32 bar) const override { return bar == 0 ? setup.bar_size : 0; }
    u32 configuration(u32 offset) override;
    void set_bus_master(bool on) override;
    void log(std::string_view line) override { lines.emplace_back(line); }
    Shared shared() override { return {{shared_bytes(), setup.shared_size}, shared_begin}; }
    u64 ticks_per_millisecond() const override { return block_test::ticks_per_millisecond; }

    // Brings everything forward that may happen now. Of the I/O commands only some, in any order, unless it is `eager`.
    void step();
    bool take_interrupt() { return std::exchange(has_interrupt_, false); }
    bool is_enabled() const { return enabled_; }
    bool is_bus_master() const { return bus_master_; }
    // It will do something without being asked once more.
    bool has_work() const {
        bool const can_work = ready_ && enabled_ && bus_master_ && !gone && !fatal;
        return can_work && (queues_[1].head != queues_[1].tail || (!under_way_.empty() && !holds_back));
    }
    u8* shared_bytes() { return reinterpret_cast<u8*>(shared_.get()); }
    u8* medium(u32 nsid);

    NvmeSetup setup;
    u64 now = 0;
    bool eager = false;
    std::minstd_rand random;
    std::vector<u8> ram = std::vector<u8>(ram_size);
    std::deque<Expected> expected;
    std::set<u32> live; // tags whose end the driver has not reported
    std::vector<std::string> lines, violations;
    // Faults of the next commands.
    bool fatal = false, gone = false, is_fatal_after_start = false;
    u32 wrong_ids = 0, doubled = 0, lost = 0, lost_admin = 0, wrong_admin_ids = 0;
    bool holds_back = false;   // all ends of I/O commands
    std::optional<u16> status; // of all I/O commands
    u32 starts = 0, commands = 0;

private:
    struct Page {
        alignas(lib::page_size) u8 bytes[lib::page_size];
    };
    struct Queue {
        u64 at = 0;
        u32 size = 0; // 0: there is none
        u32 tail = 0, head = 0, reported = 0;
    };
    struct CompletionQueue {
        u64 at = 0;
        u32 size = 0, tail = 0, head = 0;
        u8 phase = 1;
        std::deque<u32> heads; // of the submission queue, in the entries that the driver has not given back
    };
    struct Entry {
        u32 cdw0, nsid;
        u64 reserved, metadata, prp1, prp2;
        u32 cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
        u16 id() const { return static_cast<u16>(cdw0 >> 16); }
        u8 opcode() const { return static_cast<u8>(cdw0); }
    };
    struct UnderWay {
        Entry entry;
        Expected expected;
        bool has_moved = false, is_lost = false;
        u16 status = 0;
    };
    struct Result {
        u16 status = 0;
        u32 dw0 = 0;
    };

    void wrong(std::string const& what) { violations.push_back(what); }
    bool require(bool condition, char const* what) {
        if (!condition) wrong(what);
        return condition;
    }
    // Registers.
    u32 capabilities(bool upper) const;
    void advance();
    void write_control(u32 value);
    void enable(u32 value);
    void disable();
    void doorbell(u32 offset, u32 value);
    void ring_tail(Queue& queue, u32 value);
    void ring_head(CompletionQueue& queue, Queue& submissions, u32 value);
    // Memory, or null after a violation.
    u8* memory(u64 address, u64 size, bool may_be_ram);
    bool is_queue(u64 address, u64 size) const;
    // Commands.
    std::optional<Entry> fetch(Queue& queue);
    void complete(CompletionQueue& queue, Queue& submissions, u32 sq_id, u16 id, Result result);
    void step_admin();
    void step_io();
    void begin_io(Entry const& entry);
    void check_io(Entry const& entry, Expected const& must_be);
    void move(UnderWay& command);
    void finish(UnderWay const& command);
    Result admin(Entry const& entry);
    Result identify(Entry const& entry);
    void describe_controller(u8* data) const;
    void describe_namespace(NvmeNamespace const& described, u8* data) const;
    Result create_completion_queue(Entry const& entry);
    Result create_submission_queue(Entry const& entry);
    bool queue_is_possible(Entry const& entry, u32 entry_size);
    std::vector<block::Piece> pages(Entry const& entry, u64 bytes);
    NvmeNamespace const* find(u32 nsid) const;

    std::unique_ptr<Page[]> shared_;
    std::vector<std::vector<u8>> media_;
    bool bus_master_ = false, enabled_ = false, ready_ = false, has_interrupt_ = false;
    u32 control_ = 0, attributes_ = 0;
    u64 submissions_at_ = 0, completions_at_ = 0;
    u64 changes_at_ = 0, enabled_at_ = 0; // when RDY follows EN
    u32 granted_queues_ = 0;
    Queue queues_[2];
    CompletionQueue ends_[2];
    std::vector<UnderWay> under_way_;
    std::set<u16> admin_ids_; // lost ones
};

} // namespace block_test
