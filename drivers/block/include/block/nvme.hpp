// SPDX-License-Identifier: MIT
#pragma once
// An NVMe controller, with one pair of queues for all its namespaces. [nvme/1.4]
// Not supported: formats with metadata, scatter-gather lists, pages larger than 4 KiB, more than max_namespaces.
#include <block/controller.hpp>

namespace block {

class Nvme final : public Controller {
public:
    static constexpr u32 max_namespaces = 8;
    // What it uses of Function::shared(), from the begin on.
    static constexpr u32 entries = 64; // of both queues of commands, at most
    static constexpr u32 first_list_page = 8, shared_pages = first_list_page + entries;
    static constexpr u32 io_seconds = 30, admin_seconds = 10;
    static constexpr u32 look_milliseconds = 1'000; // between looks at the status while commands are under way
    static constexpr u32 most_resets = 3;           // without a command that succeeded in between

    explicit Nvme(Function& function);

    u32 poll(u64 now, std::span<Ended> ended) override;
    u64 deadline() const override { return deadline_; }
    State state() const override { return state_; }
    std::string_view failure() const override { return failure_; }
    std::span<DiskFacts const> disks() const override { return {facts_.data(), namespace_count_}; }
    Limits limits() const override;
    bool submit(Command const& command, u64 now) override;
    void ring() override;

private:
    enum class Step : u8 {
        Begin,
        WaitForOldStart, // firmware's enabling must end before it can be taken back
        WaitForStop,
        WaitForStart,
        IdentifyController,
        ListNamespaces,
        IdentifyNamespace,
        SetQueueCount,
        CreateCompletionQueue,
        CreateSubmissionQueue,
        Run,
    };
    struct Submission;
    struct Completion;
    struct Queue {
        u32 page = 0;           // of the submissions; the completions have the next one
        u32 entry_count = 0;    // of each
        u32 tail = 0, head = 0; // of submissions, of completions
        u8 phase = 1;
        bool must_ring = false;
    };
    struct Slot {
        bool is_used = false, is_lost = false; // lost: it ends as Failed
        u32 tag = 0;
        u64 deadline = 0;
    };

    // nvme_start.cpp
    void start(u64 now);
    void begin(u64 now);
    void stop(u64 now);
    void enable(u64 now);
    void wait(Step step, u64 now, u64 milliseconds);
    void next_admin(Step step, u64 now);
    bool take_admin(u64 now);
    void admin_done(u64 now);
    void admin_refused(u32 status, u64 now);
    void read_controller();
    void read_list();
    void read_namespace();
    void next_namespace(u64 now);
    void run();

    // nvme.cpp
    u32 take_ends(u64 now, std::span<Ended> ended);
    u32 take_lost(std::span<Ended> ended);
    void look(u64 now, bool has_all_ends);
    void lose_commands();
    void reset(u64 now, std::string_view why);
    void fail(std::string_view why);
    bool take(Queue& queue, Completion& out);
    Submission& next_submission(Queue const& queue);
    void push(Queue& queue);
    void ring_tail(Queue& queue, u32 number);
    void ring_head(Queue const& queue, u32 number);
    void set_pages(Submission& out, u32 slot, std::span<Piece const> pieces);
    u32 read(u32 offset) { return function_.read(0, offset, 4); }
    void write(u32 offset, u32 value) { function_.write(0, offset, 4, value); }
    void write64(u32 offset, u64 value);
    u64 milliseconds(u64 count) const { return function_.ticks_per_millisecond() * count; }
    u8* page(u32 index) const { return shared_.bytes.data() + index * lib::page_size; }
    u64 page_address(u32 index) const { return shared_.address + index * lib::page_size; }

    Function& function_;
    Function::Shared shared_;
    State state_ = State::Starting;
    Step step_ = Step::Begin;
    std::string_view failure_;
    u64 deadline_ = 0;    // of the next call
    u64 next_look_ = 0;   // at the status
    u64 step_limit_ = 0;  // when the present step has taken too long
    u64 start_limit_ = 0; // ms, that the controller may take to start or stop
    u32 doorbell_stride_ = 4;
    u32 resets_ = 0;
    u32 log_lines_ = 0;
    Queue admin_, io_;
    std::array<Slot, entries> slots_{};
    u64 free_ = 0; // bit n: slot n
    bool has_lost_ = false;
    // Of the controller.
    u32 most_bytes_ = 0;
    DiskFacts common_{};
    // Namespaces: the ids that there are, how many have been asked for, and those that are disks.
    std::array<u32, max_namespaces> listed_{};
    u32 listed_count_ = 0, asked_ = 0, announced_ = 0;
    std::array<u32, max_namespaces> ids_{};
    std::array<DiskFacts, max_namespaces> facts_{};
    u32 namespace_count_ = 0;
    // Of the present start. Disks keep what the first start found; after a reset it must find the same.
    u32 found_count_ = 0;
    bool knows_disks_ = false, has_other_disks_ = false;
};

} // namespace block
