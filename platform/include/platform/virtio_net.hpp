// SPDX-License-Identifier: MIT
#pragma once
// A NIC: its address, and a link that is always up. Queue 0 receives, queue 1 transmits; both are served outside of the
// platform. [virtio/1.2] 5.1
//
// Not supported: a control queue (so no filters, and no other address), more than one pair of queues, segmentation
// offloads, an MTU of its own, a link that goes down.
#include <lib/service_board.hpp>
#include <platform/served_virtio.hpp>

namespace platform {

class VirtioNet : public ServedVirtio {
public:
    static constexpr u16 state_version = 1;
    static constexpr u16 queue_size = lib::SplitQueue::max_size, queue_count = 2;
    static constexpr u32 configuration_size = 12; // [virtio/1.2] 5.1.4, up to the MTU
    struct State {
        VirtioPci::State transport;
        std::array<Queue, queue_count> queues;
        std::array<u8, 6> mac; // these say which NIC it was
        u8 is_there, reserved;
    };

    State save() const;
    // Fails with BadFormat also for the state of a NIC with another address. The queues start at the place in their
    // rings that the host knows of.
    lib::Result<void> restore(State const& state);

protected:
    VirtioNet(Plug const& plug, u32 number);
    ~VirtioNet() = default;

private:
    NicFacts facts_;
    std::array<Queue, queue_count> queues_{};
    std::array<u8, configuration_size> configuration_{};
};

// The NIC with this number among those of the VM.
template <u32 Number> class Nic final : public VirtioNet {
public:
    static constexpr u32 number = lib::max_disks + Number, pci_slot = 6 + Number;
    explicit Nic(Plug const& plug) : VirtioNet(plug, Number) {}
    static bool is_in(MachineFacts const& facts) { return facts.nics[Number].is_there; }
};

} // namespace platform
