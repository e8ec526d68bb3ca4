// SPDX-License-Identifier: MIT
#pragma once
// Extended page tables. [intel/vol3] 29.3
#include <kernel/translation_table.hpp>
#include <lib/bits.hpp>

namespace vmx {

struct EptEntry : lib::Reg<EptEntry, lib::u64> {
    using Address = lib::GuestPhys;
    using Readable = lib::Bits<lib::u64, 0>;
    using Writable = lib::Bits<lib::u64, 1>;
    using Executable = lib::Bits<lib::u64, 2>;
    using Type = lib::Bits<lib::u64, 5, 3, lib::u8>;
    using Large = lib::Bits<lib::u64, 7>;
    using Accessed = lib::Bits<lib::u64, 8>; // both are ignored unless the EPT pointer says that the CPU sets them
    using Dirty = lib::Bits<lib::u64, 9>;
    using ExecutionWithheld = lib::Bits<lib::u64, 52>; // ours: the CPU ignores it
    static constexpr lib::u64 rights_mask = 7;
    static constexpr lib::u64 frame_mask = 0x000f'ffff'ffff'f000;
    static constexpr lib::u64 accessed_and_dirty = Accessed::mask | Dirty::mask;
    static constexpr lib::u64 dirty = Dirty::mask;
    static constexpr lib::u64 root_entries = 512;
    static constexpr lib::u8 uncached = 0, write_combining = 1, write_back = 6;

    static constexpr bool covers(lib::GuestPhys at, lib::u64 size) {
        constexpr lib::u64 end = lib::u64{1} << 48;
        return at.value < end && size <= end - at.value;
    }
    static constexpr bool allows(kernel::Rights) { return true; }
    // Accessed and dirty are set beforehand, so that the CPU need not write to the tables.
    static constexpr EptEntry table(lib::HostPhys at) { return {{at.value | rights_mask | Accessed::mask}}; }
    // The guest's own PAT decides the rest of the memory type.
    static constexpr EptEntry leaf(lib::HostPhys to, unsigned level, kernel::Rights rights,
                                   kernel::MemoryType type = kernel::MemoryType::WriteBack) {
        EptEntry entry{{to.value | accessed_and_dirty}};
        entry.set<Readable>(true);
        entry.set<Writable>(kernel::is_writable(rights));
        entry.set<Executable>(kernel::is_executable(rights));
        entry.set<Type>(type == kernel::MemoryType::Uncached         ? uncached
                        : type == kernel::MemoryType::WriteCombining ? write_combining
                                                                     : write_back);
        entry.set<Large>(level > 1);
        return entry;
    }
    void withhold_execution() {
        set<Executable>(false);
        set<ExecutionWithheld>(true);
    }
    bool is_execution_withheld() const { return get<ExecutionWithheld>(); }
    bool is_present() const { return (raw & rights_mask) != 0; }
    bool is_dirty() const { return get<Dirty>(); }
    kernel::Rights rights() const { return kernel::make_rights(get<Writable>(), get<Executable>()); }
    kernel::MemoryType type() const {
        lib::u8 const type = get<Type>();
        return type == uncached          ? kernel::MemoryType::Uncached
               : type == write_combining ? kernel::MemoryType::WriteCombining
                                         : kernel::MemoryType::WriteBack;
    }
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

using EptTable = kernel::TranslationTable<EptEntry>;

} // namespace vmx
