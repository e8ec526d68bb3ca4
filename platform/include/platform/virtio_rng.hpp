// SPDX-License-Identifier: MIT
#pragma once
// A source of random numbers: each buffer that the driver offers gets up to 64 bytes of the host's. [virtio/1.2] 5.4
#include <platform/timer.hpp>
#include <platform/virtio_pci.hpp>

namespace platform {

class VirtioRng final : public VirtioPci {
public:
    static constexpr u16 state_version = 1;
    static constexpr u32 pci_slot = 1;
    static constexpr u32 bytes_per_buffer = 64;
    // The vCPU that rings the doorbell waits while its buffers are filled. What is more than this in a period is filled
    // by a timer in the next one, however often the doorbell rings.
    static constexpr u32 buffers_per_period = 16;
    static constexpr Nanos period{1'000'000};
    struct State {
        VirtioPci::State transport;
        Queue queue;
        lib::SplitQueue::Position position;
    };

    explicit VirtioRng(Plug const& plug);
    // Without random numbers of the host there is no such device.
    static bool is_in(MachineFacts const& facts) { return facts.has_random_numbers; }
    void on(Event const& event) override;
    State save() const { return {save_transport(), queues_[0], ring_.position()}; }
    lib::Result<void> restore(State const& state);

private:
    static constexpr u16 queue_size = 8;
    bool start_queue(u32, lib::QueueSetup const& setup) override { return ring_.start(setup); }
    bool stop_queues() override;
    void doorbell(u32) override { serve(); }
    void serve();
    bool has_budget();
    bool fill_next();

    Host& host_;
    lib::GuestMemory const& memory_;
    std::array<Queue, 1> queues_{};
    lib::SplitQueue ring_;
    Timer later_;
    Nanos period_start_{};
    u32 filled_ = 0; // buffers in this period
};

} // namespace platform
