// SPDX-License-Identifier: MIT
#pragma once
// One virtual machine: memory, second-level tables, CPUID, vCPUs, and its link to the virtual platform.
#include <array>
#include <kernel/spinlock.hpp>
#include <lib/delegate.hpp>
#include <span>
#include <vm/backend.hpp>
#include <vm/guest_ram.hpp>
#include <vm/tsc_ratio.hpp>
#include <vm/vcpu.hpp>

namespace vm {

using lib::max_vcpus;

// Gets what a device's register holds and puts there what it shall hold; false: nothing is written.
using MmioChange = lib::Delegate<bool(u64 old, u64& value)>;

// The chipset behind the vCPUs, as their exits see it; bound to the virtual platform by manage/. Callable from any CPU
// of the VM.
class VirtualPlatform {
public:
    virtual u64 port_in(u16 port, u8 size) = 0; // bits above the size are undefined
    virtual void port_out(u16 port, u8 size, u64 value) = 0;
    // The accesses of an INS or OUTS at one port: bytes.size() / size of them.
    virtual void port_string(u16 port, u8 size, bool is_in, std::span<u8> bytes) = 0;
    // Devices in guest-physical space; `size` is 1, 2, 4 or 8 bytes, aligned or not. Bits above it are undefined in
    // what is read and ignored in what is written.
    virtual u64 mmio_read(u64 address, u8 size) = 0;
    virtual void mmio_write(u64 address, u8 size, u64 value) = 0;
    // Reads, and writes what `change` makes of it if that returns true, with no other access in between.
    virtual void mmio_update(u64 address, u8 size, MmioChange change) = 0;
    virtual bool has_pic_interrupt() = 0;
    virtual u8 acknowledge_pic() = 0;
    virtual void end_of_interrupt(u8 vector) = 0;
    virtual std::array<u64, 4> eoi_vectors() = 0; // those whose EOI must reach end_of_interrupt()
    // A vCPU is out of the scheduler for good; called where it ran last.
    virtual void vcpu_stopped() = 0;

protected:
    ~VirtualPlatform() = default;
};

enum class VmState : u8 { Created, Running, Stopping, Stopped };
enum class EndReason : u8 { None, PowerOff, Reset, Killed, Crash };
std::string_view name_of(EndReason reason);

struct VmConfig {
    std::string_view name; // must outlive the VM
    u64 memory;            // bytes, a multiple of GuestRam::granule
    u32 vcpu_count;
    u64 tsc_hz = 0; // 0: the machine's; another needs Backend::has_tsc_scaling()
    u32 node = kernel::FrameAllocator::any_node;
    u64 wall_clock = 0; // seconds since 1970, now
};

class Vm {
public:
    static lib::Result<kernel::Own<Vm>> create(VmConfig const& config, Backend& backend, VirtualPlatform& platform);
    ~Vm();
    Vm(Vm const&) = delete;
    Vm& operator=(Vm const&) = delete;

    std::string_view name() const { return config_.name; }
    GuestRam& ram() { return ram_; }
    AddressSpace& space() { return *space_; }
    CpuidPolicy const& cpuid() const { return cpuid_; }
    VirtualPlatform& platform() { return platform_; }
    Backend& backend() { return backend_; }
    TscRatio const& tsc_ratio() const { return tsc_ratio_; }
    u32 vcpu_count() const { return config_.vcpu_count; }
    u32 wall_clock_at_creation() const { return static_cast<u32>(config_.wall_clock); }
    Vcpu& vcpu(u32 index) { return *vcpus_[index]; } // all exist once create() has returned

    VmState state() const { return state_.load(std::memory_order_acquire); }
    EndReason end_reason() const { return end_reason_; }
    std::string_view end_text() const { return {end_text_.data(), end_text_size_}; }
    // Its RAM must have been scrubbed.
    void start();

    // From an exit of any vCPU or from outside: all vCPUs leave the guest. The first reason stays.
    void stop(EndReason reason, std::string_view text);
    // The same for what this vCPU cannot go on from. Its state is the first in the report.
    void crash(Vcpu const& by, std::string_view text);
    // Calls `part` with the state of each vCPU as text, whole; the one that crashed first. None of them runs any more.
    // In the run loop of CPU 0 only.
    using StatePart = lib::Delegate<void(u32 vcpu, std::string_view state)>;
    void report_states(StatePart part);
    // True once: a guest could fill the log with the instructions that it tries on device memory.
    bool should_warn_of_instruction() { return !has_warned_of_instruction_.exchange(true, std::memory_order_relaxed); }
    void set_stopped() { state_.store(VmState::Stopped, std::memory_order_release); }

    // Says that the vCPUs are in the scheduler: from now on, one that has something to do is woken.
    void set_scheduled() { is_scheduled_.store(true, std::memory_order_release); }
    void wake(Vcpu& vcpu);
    // While it is held, vCPUs that come out of the guest stay out, whatever wakes them. Who lets it go wakes them then.
    void hold(bool on) { is_held_.store(on, std::memory_order_seq_cst); }
    // The guest may end itself while it is being held: it must still come out.
    bool is_held() const { return is_held_.load(std::memory_order_seq_cst) && state() == VmState::Running; }

    // A message for vCPUs, as the IOAPIC or a device sends it. [intel/vol3] 12.11
    void deliver_message(u64 address, u32 data);
    void deliver(IpiRequest const& request, Vcpu* sender, TriggerMode trigger);

private:
    Vm(VmConfig const& config, Backend& backend, VirtualPlatform& platform)
        : config_(config), backend_(backend), platform_(platform) {}
    lib::Result<void> build();
    void stop(EndReason reason, std::string_view text, u32 crashed_vcpu);
    void signal(Vcpu& target, IpiRequest const& request, TriggerMode trigger);

    VmConfig config_;
    Backend& backend_;
    VirtualPlatform& platform_;
    GuestRam ram_;
    kernel::Own<AddressSpace> space_;
    TscRatio tsc_ratio_;
    CpuidPolicy cpuid_{};
    std::array<kernel::Own<Vcpu>, max_vcpus> vcpus_{};
    std::atomic<bool> is_scheduled_{false}, is_held_{false};
    std::atomic<VmState> state_{VmState::Created};
    std::atomic<bool> is_stopping_{false};
    std::atomic<bool> has_warned_of_instruction_{false};
    EndReason end_reason_ = EndReason::None;
    u32 crashed_vcpu_ = 0;
    std::array<char, 120> end_text_{};
    std::size_t end_text_size_ = 0;
};

} // namespace vm
