// SPDX-License-Identifier: MIT
#pragma once
// Extended page tables. [intel/vol3] 29.3
#include <lib/bits.hpp>
#include <vm/stage_two.hpp>

namespace vmx {

struct EptEntry : lib::Reg<EptEntry, lib::u64> {
    using Readable = lib::Bits<lib::u64, 0>;
    using Writable = lib::Bits<lib::u64, 1>;
    using Executable = lib::Bits<lib::u64, 2>;
    using MemoryType = lib::Bits<lib::u64, 5, 3, lib::u8>;
    using Large = lib::Bits<lib::u64, 7>;
    using ExecutionWithheld = lib::Bits<lib::u64, 52>; // ours: the CPU ignores it
    static constexpr lib::u64 rights_mask = 7;
    static constexpr lib::u64 frame_mask = 0x000f'ffff'ffff'f000;
    static constexpr lib::u8 write_back = 6;

    static EptEntry table(lib::HostPhys at) { return {{at.value | rights_mask}}; }
    static EptEntry leaf(lib::HostPhys to, unsigned level, vm::MemoryRights rights) {
        EptEntry entry{{to.value}};
        entry.set<Readable>(true);
        entry.set<Writable>(rights != vm::MemoryRights::Read);
        entry.set<Executable>(rights == vm::MemoryRights::All);
        entry.set<MemoryType>(write_back); // the guest's own PAT decides the rest
        entry.set<Large>(level > 1);
        return entry;
    }
    void withhold_execution() {
        set<Executable>(false);
        set<ExecutionWithheld>(true);
    }
    bool is_execution_withheld() const { return get<ExecutionWithheld>(); }
    bool is_executable() const { return get<Executable>(); }
    bool is_present() const { return (raw & rights_mask) != 0; }
    bool is_leaf(unsigned level) const { return level == 1 || get<Large>(); }
    lib::HostPhys address() const { return lib::HostPhys{raw & frame_mask}; }
    // Entry number `index` of the table one level below `level` that stands for this large page.
    EptEntry piece(lib::u64 index, unsigned level) const {
        EptEntry entry = *this;
        entry.raw += index << (12 + 9 * (level - 2));
        entry.set<Large>(level - 1 > 1);
        if (level - 1 == 1 && is_execution_withheld()) {
            entry.set<ExecutionWithheld>(false);
            entry.set<Executable>(true);
        }
        return entry;
    }
};

} // namespace vmx
