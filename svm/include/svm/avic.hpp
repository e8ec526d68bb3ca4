// SPDX-License-Identifier: MIT
#pragma once
// AVIC and x2AVIC: the CPU itself works on the APIC page of the vCPU that it runs, and sends interrupts from one vCPU
// to another. [amd/vol2] 15.29
//
// A vCPU uses it while its APIC is in the steady state: enabled by software, in xAPIC mode or (with x2AVIC) x2APIC
// mode, with no interrupt that must reach the guest beside the APIC. Else the APIC is emulated, on the same page.
// Either way its entry in the table of physical ids names that page, so an interrupt that another vCPU's CPU sends is
// never lost: the bit is set in IRR, and who sent it exits because the target does not run, and tells it.
//
// Not done: a vCPU cannot move its APIC nor change its id, with AVIC or without (vm/local_apic.hpp), so neither table
// nor AVIC_APIC_BAR ever follow. Interrupts of devices do not go through an IOMMU.
#include <array>
#include <atomic>
#include <kernel/spinlock.hpp>
#include <lib/bits.hpp>
#include <lib/result.hpp>
#include <vm/vm.hpp>

namespace svm {

using lib::Bits;
using lib::HostPhys;
using lib::Reg;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u32 AVIC_DOORBELL = 0xc001'011b; // [amd/vol2] 15.29.8.2; write-only

enum class AvicMode : u8 { Off, XApic, X2Apic };

// [amd/vol2] table 15-23
struct PhysicalIdEntry : Reg<PhysicalIdEntry, u64> {
    using HostApicId = Bits<u64, 11, 0, u32>;
    using IsRunning = Bits<u64, 62>;
    using Valid = Bits<u64, 63>;
    static constexpr u64 page_mask = 0x000f'ffff'ffff'f000;
};
// [amd/vol2] table 15-24
struct LogicalIdEntry : Reg<LogicalIdEntry, u32> {
    using PhysicalId = Bits<u32, 7, 0, u8>;
    using Valid = Bits<u32, 31>;
};

// EXITINFO2 of AVIC_INCOMPLETE_IPI; EXITINFO1 is what was written to ICR. [amd/vol2] 15.29.9.1
struct IncompleteIpi : Reg<IncompleteIpi, u64> {
    using Index = Bits<u64, 11, 0, u16>;
    using Cause = Bits<u64, 63, 32, u32>;
    static constexpr u32 invalid_type = 0, target_not_running = 1, invalid_target = 2, invalid_page = 3,
                         invalid_vector = 4;
};
// EXITINFO1 of AVIC_NOACCEL; EXITINFO2 is the vector, for EOI. [amd/vol2] 15.29.9.2
struct Unaccelerated : Reg<Unaccelerated, u64> {
    using Offset = Bits<u64, 11, 4, u8>; // in units of 16 bytes
    using Write = Bits<u64, 32>;
};
// Whether a write exits behind the access, with the value in the page; all other exits come before it.
// [amd/vol2] table 15-22
bool is_trapped_write(u32 offset);

// The two tables of a VM, by which the CPU finds the target of an interrupt.
class AvicTables {
public:
    // Id FFh is everybody.
    static_assert(vm::max_vcpus <= 255);
    static constexpr u32 logical_entries = 60; // 4 of each cluster 0 to 14; of the flat model 8

    AvicTables() = default;
    ~AvicTables();
    AvicTables(AvicTables const&) = delete;
    AvicTables& operator=(AvicTables const&) = delete;
    lib::Result<void> create();

    HostPhys physical_table() const { return physical_; }
    HostPhys logical_table() const { return logical_; }
    // Written by the owner of the entry only, read by the CPUs of all the VM's vCPUs at any time.
    void set_physical(u32 id, PhysicalIdEntry entry);
    PhysicalIdEntry physical(u32 id) const;
    LogicalIdEntry logical(u32 index) const;
    // From the logical ids of the vCPUs whose physical entries are valid. What the table cannot say exactly (two with
    // the same id, different models, x2APIC mode among them) is left out of it: the sender exits, and vm::Vm::deliver()
    // does it. A destination without a single bit for the model of the sender is the CPU's alone: it reaches nobody,
    // whatever the others' model.
    void update_logical(vm::Vm& vm);

private:
    using Logical = std::array<u32, logical_entries>;
    Logical logical_of(vm::Vm& vm) const;
    HostPhys physical_{};
    HostPhys logical_{};
    struct Empty {};
    kernel::Guarded<Empty, kernel::LockRank::Vm> logical_writer_;
};

} // namespace svm
