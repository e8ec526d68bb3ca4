// SPDX-License-Identifier: MIT
#pragma once
// Driver of a virtio block device on PCI, of virtio 1.0 or later: the disk that clouds and emulators give.
// [virtio/1.2] 4.1 and 5.2. One split queue; commands by indirect tables where the device has them.
#include <block/controller.hpp>
#include <block/virtio_ring.hpp>
#include <block/virtio_transport.hpp>

namespace block {

class Virtio final : public Controller {
public:
    static constexpr u32 most_bytes = 1024 * 1024;
    static constexpr u32 most_resets = 3; // in a row, without a command that succeeds between them
    static constexpr u64 reset_milliseconds = 1000, identify_milliseconds = 5000, command_milliseconds = 30'000,
                         look_milliseconds = 1000;
    static constexpr u32 memory_needed = 0x4'4000; // of the shared memory, from its begin

    explicit Virtio(Function& function);

    u32 poll(u64 now, std::span<Ended> ended) override;
    u64 deadline() const override;
    State state() const override;
    std::string_view failure() const override { return failure_; }
    std::span<DiskFacts const> disks() const override { return {&disk_, has_disk_ ? 1U : 0U}; }
    Limits limits() const override { return limits_; }
    bool submit(Command const& command, u64 now) override;
    void ring() override;

private:
    static constexpr u32 most_slots = VirtioRing::most_descriptors;
    enum class Phase : u8 { New, Reset, Identify, Running, Failed };
    enum class Use : u8 { Free, UnderWay, Ended };
    // One command. Slot `i` owns the descriptors from i * stride_ on, a header, and an indirect table.
    struct Slot {
        u32 tag;
        Use use;
        Status status;
        u64 limit; // when it has taken too long
    };
    struct Config; // what the device configuration says

    void start(u64 now);
    void reset(u64 now);
    void wait_for_reset(u64 now);
    std::string_view configure();
    std::string_view read_config(u64 features, Config& config);
    std::string_view set_limits(u64 features, Config const& config);
    std::string_view learn(u64 features, Config const& config);
    void identify(u64 now);
    void collect(u64 now);
    void end_identify(Slot& slot);
    void look(u64 now);
    void recover(std::string_view reason, u64 now);
    void fail(std::string_view reason);
    void end_all();
    void end(u32 slot, Status status);
    u32 give_out(std::span<Ended> ended);

    bool build(u32 slot, u32 type, u64 sector, std::span<Piece const> pieces);
    void begin(u32 slot, u32 tag, u64 now, u64 limit);
    u64 milliseconds(u64 count) const { return count * function_.ticks_per_millisecond(); }

    Function& function_;
    Function::Shared shared_;
    VirtioTransport transport_;
    VirtioRing ring_;
    Phase phase_ = Phase::New;
    bool has_disk_ = false, has_indirect_ = false;
    u16 queue_size_ = 0;
    u32 stride_ = 1, size_max_ = 0, resets_ = 0;
    u64 next_look_ = 0, reset_limit_ = 0;
    std::string_view failure_;
    DiskFacts disk_{};
    Limits limits_{};

    u32 free_count_ = 0, under_way_ = 0;
    u32 ended_first_ = 0, ended_count_ = 0;
    std::array<u8, most_slots> free_{};  // a stack
    std::array<u8, most_slots> ended_{}; // a ring
    std::array<Slot, most_slots> slots_{};
};

} // namespace block
