// SPDX-License-Identifier: MIT
// The tables of AVIC.
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <svm/avic.hpp>

namespace svm {
namespace {

using namespace vm::apic_reg;

constexpr u64 reg(u32 offset) { return lib::bit(offset >> 4); }
constexpr u64 trapped_writes = reg(ID) | reg(EOI) | reg(RRD) | reg(LDR) | reg(DFR) | reg(SVR) | reg(ESR) |
                               reg(ICR_LOW) | reg(LVT_TIMER) | reg(LVT_THERMAL) | reg(LVT_PERFORMANCE) |
                               reg(LVT_LINT0) | reg(LVT_LINT1) | reg(LVT_ERROR) | reg(INITIAL_COUNT) | reg(DIVIDE);

template <typename T> std::atomic_ref<T> entry_of(HostPhys table, u32 index) {
    return std::atomic_ref<T>(kernel::phys_to_virt<T>(table)[index]);
}

} // namespace

bool is_trapped_write(u32 offset) { return offset < 0x400 && (trapped_writes & reg(offset)) != 0; }

lib::Result<void> AvicTables::create() {
    physical_ = TRY(kernel::allocate_zeroed_frame());
    logical_ = TRY(kernel::allocate_zeroed_frame());
    return {};
}

AvicTables::~AvicTables() {
    for (HostPhys const table : {physical_, logical_})
        if (table.value != 0) kernel::free_frames(table, 0);
}

// Sequentially consistent: see docs/LOCKING.md, "lost wake-ups".
void AvicTables::set_physical(u32 id, PhysicalIdEntry entry) {
    entry_of<u64>(physical_, id).store(entry.raw, std::memory_order_seq_cst);
}

PhysicalIdEntry AvicTables::physical(u32 id) const {
    return {{entry_of<u64>(physical_, id).load(std::memory_order_seq_cst)}};
}

LogicalIdEntry AvicTables::logical(u32 index) const {
    return {{entry_of<u32>(logical_, index).load(std::memory_order_relaxed)}};
}

// The model is that of the sender, so even one that has no logical id must have the others'.
AvicTables::Logical AvicTables::logical_of(vm::Vm& vm) const {
    using Mode = vm::LocalApic::Mode;
    constexpr u32 ambiguous = 1; // not zero, and not valid
    constexpr u32 reserved_cluster = 15;
    Logical entries{};
    int flat = -1;
    for (u32 i = 0; i < vm.vcpu_count(); i++) {
        vm::LocalApic const& apic = vm.vcpu(i).apic();
        if (!physical(i).get<PhysicalIdEntry::Valid>()) continue;
        bool const is_flat = apic.is_flat();
        u32 const id = apic.logical_id();
        if (apic.mode() == Mode::X2Apic || (flat >= 0 && (flat == 1) != is_flat)) return {};
        flat = is_flat ? 1 : 0;
        u32 const cluster = id >> 4;
        if (!is_flat && cluster == reserved_cluster) continue;
        u32 const first = is_flat ? 0 : cluster * 4, count = is_flat ? 8 : 4;
        LogicalIdEntry entry{};
        entry.set<LogicalIdEntry::PhysicalId>(static_cast<u8>(i));
        entry.set<LogicalIdEntry::Valid>(true);
        for (u32 number = 0; number < count; number++)
            if ((id >> number & 1) != 0) {
                u32& slot = entries[first + number];
                slot = slot == 0 ? entry.raw : ambiguous;
            }
    }
    for (u32& slot : entries)
        if (slot == ambiguous) slot = 0;
    return entries;
}

void AvicTables::update_logical(vm::Vm& vm) {
    logical_writer_.with([&](Empty&) {
        // Computed under the lock: the last who comes sees what all have written.
        Logical const entries = logical_of(vm);
        for (u32 i = 0; i < logical_entries; i++)
            entry_of<u32>(logical_, i).store(entries[i], std::memory_order_relaxed);
    });
}

} // namespace svm
