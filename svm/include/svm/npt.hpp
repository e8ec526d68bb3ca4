// SPDX-License-Identifier: MIT
#pragma once
// Nested page tables: ordinary long-mode entries, walked as user accesses. [amd/vol2] 15.25.5, 5.3
#include <lib/bits.hpp>
#include <vm/stage_two.hpp>

namespace svm {

struct NptEntry : lib::Reg<NptEntry, lib::u64> {
    using Present = lib::Bits<lib::u64, 0>;
    using Writable = lib::Bits<lib::u64, 1>;
    using User = lib::Bits<lib::u64, 2>;
    using Accessed = lib::Bits<lib::u64, 5>;
    using Dirty = lib::Bits<lib::u64, 6>;
    using Large = lib::Bits<lib::u64, 7>;
    using NoExecute = lib::Bits<lib::u64, 63>;
    static constexpr lib::u64 frame_mask = 0x000f'ffff'ffff'f000;

    static NptEntry table(lib::HostPhys at) {
        return {{at.value | Present::mask | Writable::mask | User::mask | Accessed::mask}};
    }
    // PWT, PCD and PAT stay 0: entry 0 of the host's PAT, write-back; the guest's own PAT decides the rest.
    static NptEntry leaf(lib::HostPhys to, unsigned level, vm::MemoryRights rights) {
        NptEntry entry{{to.value | Present::mask | User::mask | Accessed::mask | Dirty::mask}};
        entry.set<Writable>(rights != vm::MemoryRights::Read);
        entry.set<NoExecute>(rights != vm::MemoryRights::All);
        entry.set<Large>(level > 1);
        return entry;
    }
    bool is_present() const { return get<Present>(); }
    bool is_leaf(unsigned level) const { return level == 1 || get<Large>(); }
    lib::HostPhys address() const { return lib::HostPhys{raw & frame_mask}; }
    // Entry number `index` of the table one level below `level` that stands for this large page.
    NptEntry piece(lib::u64 index, unsigned level) const {
        NptEntry entry = *this;
        entry.raw += index << (12 + 9 * (level - 2));
        entry.set<Large>(level - 1 > 1);
        return entry;
    }
};

} // namespace svm
