// SPDX-License-Identifier: MIT
#pragma once
// A virtio device whose queues are served outside of the platform: queues, doorbells and stops go to the Host, in
// order, and interrupts and misuse come back through the Platform.
//
// Whoever serves the queues is not trusted: what it says of a queue that is not started, or while a stop is under way,
// is ignored. A device that loses the right to write to memory stops its queues and needs a reset; only a reset makes
// sure that a new kernel (kexec) finds its memory untouched by what the old one began.
#include <platform/virtio_pci.hpp>

namespace platform {

class ServedVirtio : public VirtioPci {
public:
    void on(Event const&) override {}

    // What the one that serves the queues says.
    void serving_interrupts(u32 queue);
    void serving_found_misuse();
    void serving_stopped();

protected:
    // `number`: of the device in calls of the Host. One that is not there starts no queue.
    ServedVirtio(Plug const& plug, Shape const& shape, u32 number, bool is_there)
        : VirtioPci(plug, shape), host_(plug.host), memory_(plug.memory), number_(number), is_there_(is_there) {}
    ~ServedVirtio() = default;

    lib::Result<void> restore_served(State const& state, std::span<Queue const> queues);

private:
    bool start_queue(u32 queue, lib::QueueSetup const& setup) override;
    bool stop_queues() override;
    void bus_master_lost() override;
    void doorbell(u32 queue) override { host_.served_doorbell(number_, queue); }
    bool is_started(u32 queue) const { return queue < 32 && (started_ >> queue & 1) != 0; }

    Host& host_;
    lib::GuestMemory const& memory_;
    u32 number_;
    bool is_there_;
    u32 started_ = 0; // bit n: queue n
    u32 stops_ = 0;   // under way
};

} // namespace platform
