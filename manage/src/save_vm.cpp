// SPDX-License-Identifier: MIT
// A VM's snapshot is taken, and the VM is made again from it. Both in slices: CPU 0 has other work too.
#include <algorithm>
#include <kernel/cpus.hpp>
#include <kernel/log.hpp>
#include <lib/x86/instructions.hpp>
#include <manage/virtual_machine.hpp>

namespace manage {
namespace {

using Refusal = std::unexpected<std::string_view>;

constexpr u64 copy_slice = 4 * lib::MiB;

} // namespace

// What services have done of a request is known to them alone.
std::expected<void, std::string_view> VirtualMachine::begin_save() {
    if (description_.disk_count != 0) return Refusal("has disks, whose requests cannot be saved");
    if (description_.nic_count != 0) return Refusal("has NICs, whose frames cannot be saved");
    u32 const platform_size = with_platform([](platform::Platform& p) { return p.saved_size(); });
    auto const use = kernel::memory_use();
    u64 const free = use.free - std::min(use.promised, use.free);
    auto made = free < vm_->ram().size()
                    ? lib::Result<kernel::Own<Snapshot>>(lib::fail(lib::Errc::NoMemory))
                    : Snapshot::create(vm_->ram().size(), node_of_cpus(), vm_->vcpu_count(), platform_size);
    if (!made) {
        kernel::log_error("vm {}: is not saved: its snapshot needs {} MiB, of which {} MiB are free", name(),
                          vm_->ram().size() / lib::MiB, free / lib::MiB);
        return Refusal("needs as much free memory for its snapshot as it has itself; the log says how much there is");
    }
    snapshot_ = std::move(*made);
    if (note_state()) return {};
    discard();
    return Refusal("has more vector registers than a snapshot can hold");
}

// All at one moment, in which nothing can send the guest an interrupt: a device would need the platform's lock.
lib::Result<void> VirtualMachine::note_state() {
    for (u32 i = 0; i < vm_->vcpu_count(); i++)
        kernel::unload_runnable(vm_->vcpu(i));
    return with_platform([&](platform::Platform& p) -> lib::Result<void> {
        snapshot_->taken_at = kernel::now();
        snapshot_->host_tsc = lib::x86::rdtsc();
        snapshot_->wall_clock = vm_->wall_clock_at_creation();
        TRY(p.save(snapshot_->platform()));
        for (u32 i = 0; i < vm_->vcpu_count(); i++)
            TRY(vm_->vcpu(i).save(snapshot_->vcpus()[i], snapshot_->host_tsc));
        return {};
    });
}

bool VirtualMachine::go_on_saving() {
    snapshot_->is_whole = snapshot_->ram.copy(vm_->ram(), copy_slice);
    lib::x86::take_interrupts();
    if (!snapshot_->is_whole) return false;
    u64 const millis = (kernel::now() - snapshot_->taken_at).value / 1'000'000;
    kernel::log_info("vm {}: saved, {} KiB in {} ms", name(), snapshot_->bytes() / lib::KiB, millis);
    return true;
}

u64 VirtualMachine::snapshot_size() const { return snapshot_ ? snapshot_->bytes() : 0; }

// Begins as any start does, with RAM that is filled from the snapshot. Its devices stand still from the beginning.
bool VirtualMachine::begin_restore() {
    is_restoring_ = true;
    paused_at_ = kernel::now();
    is_paused_ = true;
    if (build()) return true;
    is_restoring_ = is_paused_ = false;
    return false;
}

ManagedVm::Progress VirtualMachine::go_on_restoring() {
    bool const is_copied = vm_->ram().copy(snapshot_->ram, copy_slice);
    lib::x86::take_interrupts();
    if (!is_copied) return Progress::More;
    if (auto const done = restore_state(); !done) {
        kernel::log_error("vm {}: its snapshot is not taken back: {}", name(), name_of(done.error()));
        destroy();
        return Progress::Failed;
    }
    if (!schedule()) return Progress::Failed;
    is_restoring_ = false;
    started_at_ = kernel::now();
    vm_->hold(true); // as it was when it was saved: paused
    vm_->start();
    // What the guest has written and the line has not taken, and what was typed: the devices wait to be told.
    on_console_space();
    on_console_input();
    kernel::log_info("vm {}: restored, {} MiB, {} vCPU{}; it stands still until vm resume", name(),
                     description_.memory / lib::MiB, description_.vcpus, description_.vcpus == 1 ? "" : "s");
    return Progress::Started;
}

lib::Result<void> VirtualMachine::restore_state() {
    return with_platform([&](platform::Platform& p) -> lib::Result<void> {
        paused_at_ = kernel::now();
        TRY(p.restore(snapshot_->platform()));
        for (u32 i = 0; i < vm_->vcpu_count(); i++)
            TRY(vm_->vcpu(i).restore(snapshot_->vcpus()[i], snapshot_->host_tsc));
        return {};
    });
}

} // namespace manage
