// SPDX-License-Identifier: MIT
#pragma once
// What one VM was at one moment, in the machine's memory: a copy of its RAM, of its platform's state and of its vCPUs'.
// It outlives the VM, so that the VM can be made again.
#include <kernel/heap.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <span>
#include <vm/guest_ram.hpp>
#include <vm/vcpu_state.hpp>

namespace manage {

using lib::Nanos;
using lib::u32;
using lib::u64;
using lib::u8;

class Snapshot {
public:
    // Room for such a VM. NoMemory: there is not enough, and nothing is kept.
    static lib::Result<kernel::Own<Snapshot>> create(u64 memory, u32 node, u32 vcpus, u32 platform_size);
    ~Snapshot();
    Snapshot(Snapshot const&) = delete;
    Snapshot& operator=(Snapshot const&) = delete;

    vm::GuestRam ram;
    Nanos taken_at{};   // machine time
    u64 host_tsc = 0;   // at that moment
    u64 wall_clock = 0; // when the VM began, as KVM's clock tells the guest
    bool is_whole = false;
    std::span<vm::VcpuState> vcpus() { return {vcpus_, vcpu_count_}; }
    std::span<u8> platform() { return {platform_, platform_size_}; }
    u64 bytes() const { return ram.size() + vcpu_count_ * sizeof(vm::VcpuState) + platform_size_; }

private:
    Snapshot() = default;
    vm::VcpuState* vcpus_ = nullptr;
    u8* platform_ = nullptr;
    u32 vcpu_count_ = 0, platform_size_ = 0;
};

} // namespace manage
