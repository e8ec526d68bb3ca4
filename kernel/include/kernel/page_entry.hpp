// SPDX-License-Identifier: MIT
#pragma once
// Entries of long-mode page tables: Mullion's own, those of services, and AMD's nested ones. [intel/vol3] 4.5.4
#include <kernel/translation_table.hpp>
#include <lib/bits.hpp>

namespace kernel {

enum class PageUse : u8 { Kernel, User, Nested };

template <PageUse Use, typename At> struct LongModeEntry : lib::Reg<LongModeEntry<Use, At>, u64> {
    using Address = At;
    using Present = lib::Bits<u64, 0>;
    using Writable = lib::Bits<u64, 1>;
    using User = lib::Bits<u64, 2>;
    using WriteThrough = lib::Bits<u64, 3>;
    using CacheDisable = lib::Bits<u64, 4>;
    using Accessed = lib::Bits<u64, 5>;
    using Dirty = lib::Bits<u64, 6>;
    using Large = lib::Bits<u64, 7>;
    using Global = lib::Bits<u64, 8>;
    using NoExecute = lib::Bits<u64, 63>;
    static constexpr u64 frame_mask = 0x000f'ffff'ffff'f000;
    static constexpr u64 accessed_and_dirty = Accessed::mask | Dirty::mask;
    static constexpr u64 dirty = Dirty::mask;
    // The upper half of a service's table is Mullion's own.
    static constexpr u64 root_entries = Use == PageUse::User ? 256 : 512;

    static constexpr bool covers(At at, u64 size) {
        constexpr u64 half = u64{1} << 47;
        u64 const last = at.value + size - 1;
        if constexpr (Use == PageUse::Nested) return at.value < 2 * half && size <= 2 * half - at.value;
        if constexpr (Use == PageUse::User) return at.value < half && size <= half - at.value;
        // Canonical, and from one half into the other there is no way.
        return size <= half && (at.value < half ? last < half : at.value >= ~u64{0} - half + 1 && last >= at.value);
    }
    static constexpr bool allows(Rights rights) { return Use == PageUse::Nested || rights != Rights::All; }
    // Accessed and dirty are set beforehand, so that the CPU need not write to the tables.
    static constexpr LongModeEntry table(HostPhys at) {
        constexpr u64 user = Use == PageUse::Kernel ? 0 : User::mask;
        return {{at.value | Present::mask | Writable::mask | user | Accessed::mask}};
    }
    // The caching bits choose entries 0, 3 and 1 of the PAT as enable_cpu_protections() sets it; nested pages too are
    // looked up in the host's, and combined with the guest's own. [amd/vol2] 15.25.8
    static constexpr LongModeEntry leaf(HostPhys to, unsigned level, Rights rights,
                                        MemoryType type = MemoryType::WriteBack) {
        LongModeEntry entry{{to.value | Present::mask | accessed_and_dirty}};
        entry.template set<Writable>(is_writable(rights));
        entry.template set<User>(Use != PageUse::Kernel);
        entry.template set<WriteThrough>(type != MemoryType::WriteBack);
        entry.template set<CacheDisable>(type == MemoryType::Uncached);
        entry.template set<Large>(level > 1);
        entry.template set<Global>(Use == PageUse::Kernel);
        entry.template set<NoExecute>(!is_executable(rights));
        return entry;
    }
    constexpr bool is_present() const { return this->template get<Present>(); }
    constexpr bool is_leaf(unsigned level) const { return level == 1 || this->template get<Large>(); }
    constexpr bool is_dirty() const { return this->template get<Dirty>(); }
    constexpr HostPhys address() const { return HostPhys{this->raw & frame_mask}; }
    constexpr Rights rights() const {
        return make_rights(this->template get<Writable>(), !this->template get<NoExecute>());
    }
    constexpr MemoryType type() const {
        if (this->template get<CacheDisable>()) return MemoryType::Uncached;
        return this->template get<WriteThrough>() ? MemoryType::WriteCombining : MemoryType::WriteBack;
    }
    // Entry number `index` of the table one level below `level` that stands for this large page.
    constexpr LongModeEntry piece(u64 index, unsigned level) const {
        LongModeEntry entry = *this;
        entry.raw += index << (12 + 9 * (level - 2));
        entry.template set<Large>(level - 1 > 1);
        return entry;
    }
};

using PageEntry = LongModeEntry<PageUse::Kernel, lib::HostVirt>;
// Of a service: user pages of the lower half, of which none is writable and executable.
using UserEntry = LongModeEntry<PageUse::User, lib::HostVirt>;

} // namespace kernel
