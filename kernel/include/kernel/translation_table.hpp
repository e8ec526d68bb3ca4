// SPDX-License-Identifier: MIT
#pragma once
// Translation tables of 4 levels with pages of 4 KiB, 2 MiB and 1 GiB: the one algorithm for every table that a CPU
// walks. What an entry looks like is the business of its Entry type (kernel/page_entry.hpp, vmx/ept.hpp, svm/npt.hpp).
//
// CPUs may walk a table while it changes. After each single store, every address has its old translation or its new
// one; it has none only if it had none before or is being unmapped:
// - each change of an entry is one 64-bit store, and a table is complete before an entry points to it;
// - a large page that changes in part is first replaced by a table that says the same;
// - a large page never replaces a table that says something else: the small pages are changed one by one, the caller
//   flushes, and then the large page, which says the same, takes the table's place. [intel/vol3] 4.10.2.3
// A table that no entry points to any more is neither written nor freed before the caller has flushed.
#include <algorithm>
#include <array>
#include <atomic>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>
#include <utility>

namespace kernel {

using lib::HostPhys;
using lib::u64;
using lib::u8;

// Only guests have All: nothing of ours is both writable and executable.
enum class Rights : u8 { Read, ReadWrite, ReadExecute, All };
constexpr bool is_writable(Rights rights) { return rights == Rights::ReadWrite || rights == Rights::All; }
constexpr bool is_executable(Rights rights) { return rights == Rights::ReadExecute || rights == Rights::All; }
constexpr Rights make_rights(bool is_writable, bool is_executable) {
    if (is_executable) return is_writable ? Rights::All : Rights::ReadExecute;
    return is_writable ? Rights::ReadWrite : Rights::Read;
}

enum class MemoryType : u8 { WriteBack, Uncached, WriteCombining };

template <typename Address> struct Mapping {
    Address at;
    HostPhys to;
    u64 size;
    Rights rights;
    MemoryType type = MemoryType::WriteBack;
};
template <typename Address> struct Unmapping {
    Address at;
    u64 size;
    bool keeps_tables = false; // empty tables stay, so that nothing waits for a flush
};
struct Translation {
    HostPhys to;
    unsigned level; // 1: 4 KiB, 2: 2 MiB, 3: 1 GiB
    Rights rights;
    MemoryType type;
};

struct TableFormat {
    unsigned largest_level;       // 1 for 4 KiB pages only, 2 for 2 MiB, 3 for 1 GiB
    bool splits_for_code = false; // large pages are not executable; split_for_code() makes small ones of them
    u64 absent_bits = 0;          // of a leaf: those that this CPU does not have
};

template <typename Table, typename With, typename Flush, typename Request>
lib::Result<void> change_table(With&& with, Flush&& flush, Request request);

// Where tables live, and the only way in which they are read and written.
struct TableMemory {
    static lib::Result<HostPhys> allocate() { return allocate_zeroed_frame(); }
    static void free(HostPhys table) { free_frames(table, 0); }
    static lib::Result<void> promise(u64 tables) { return promise_frames(tables); }
    static void take_promise_back(u64 tables) { kernel::take_promise_back(tables); }
    static HostPhys allocate_promised() { return allocate_promised_frame(); } // contents undefined
    static u64 load(u64& entry) { return std::atomic_ref<u64>(entry).load(std::memory_order_acquire); }
    static void store(u64& entry, u64 value) { std::atomic_ref<u64>(entry).store(value, std::memory_order_release); }
    static bool replace(u64& entry, u64 expected, u64 value) {
        return std::atomic_ref<u64>(entry).compare_exchange_strong(expected, value, std::memory_order_acq_rel);
    }
    static void clear_bits(u64& entry, u64 bits) {
        std::atomic_ref<u64>(entry).fetch_and(~bits, std::memory_order_acq_rel);
    }
};

// An Entry has a 64-bit `raw`, the address type `Address`, and
//   static covers(at, size)     whether the table stands for these addresses (size is not 0)
//   static root_entries         how many entries of the root are the table's own: the first so many
//   static allows(rights)
//   static table(HostPhys), static leaf(HostPhys, level, rights, memory type)
//   is_present(), is_leaf(level), address(), rights(), type()
//   piece(index, level)         the entry of the next table below that stands for a part of this large page
//   is_dirty(), accessed_and_dirty, dirty: masks
// and, for `splits_for_code`, withhold_execution() and is_execution_withheld().
template <typename Entry, typename Memory = TableMemory> class TranslationTable {
public:
    using Address = typename Entry::Address;

    // Tables that are unlinked, but that a CPU may still walk. Freed by free(), after a flush.
    class Retired {
    public:
        Retired() = default;
        Retired(Retired const&) = delete;
        Retired& operator=(Retired const&) = delete;
        // Whether translations were taken away or changed: what a flush is for.
        bool needs_flush() const { return needs_flush_; }
        void free() {
            for (unsigned i = 0; i < count_; i++)
                release(roots_[i], levels_[i]);
            count_ = 0;
            needs_flush_ = false;
        }

    private:
        friend TranslationTable;
        static constexpr unsigned capacity = 32;
        unsigned room() const { return capacity - count_; }
        void add(HostPhys table, unsigned level) {
            roots_[count_] = table;
            levels_[count_++] = static_cast<u8>(level);
            needs_flush_ = true;
        }
        std::array<HostPhys, capacity> roots_; // of whole subtrees
        std::array<u8, capacity> levels_;
        unsigned count_ = 0;
        bool needs_flush_ = false;
    };

    constexpr TranslationTable() = default; // has no root: for what is assigned later
    explicit TranslationTable(TableFormat format) : format_(format) {}
    // No CPU may use the table any more, nor have translations of it in a TLB.
    ~TranslationTable() { release_all(); }
    TranslationTable(TranslationTable const&) = delete;
    TranslationTable& operator=(TranslationTable const&) = delete;
    TranslationTable(TranslationTable&& other) noexcept
        : root_(std::exchange(other.root_, {})), tables_(std::exchange(other.tables_, 0)), format_(other.format_),
          promised_(std::exchange(other.promised_, 0)) {}
    TranslationTable& operator=(TranslationTable&& other) noexcept {
        if (this == &other) return *this;
        release_all();
        root_ = std::exchange(other.root_, {});
        tables_ = std::exchange(other.tables_, 0);
        format_ = other.format_;
        promised_ = std::exchange(other.promised_, 0);
        return *this;
    }

    lib::Result<void> create_root() {
        root_ = TRY(new_table());
        return {};
    }
    // Makes the entries behind root_entries those of another root, for good: what both share is the other's.
    void share_rest_of(HostPhys other_root) {
        for (u64 i = Entry::root_entries; i < entries; i++)
            Memory::store(table_at(root_)[i].raw, Memory::load(table_at(other_root)[i].raw));
    }
    HostPhys root() const { return root_; }
    u64 table_bytes() const { return tables_ * lib::page_size; }
    u64 promised_bytes() const { return promised_ * lib::page_size; }

    // For a table without a lock around it: see change_table() below.
    template <typename Flush> lib::Result<void> map(Mapping<Address> const& mapping, Flush&& flush) {
        return change_table<TranslationTable>([this](auto step) { return step(*this); }, flush, mapping);
    }
    template <typename Flush> lib::Result<void> unmap(Unmapping<Address> const& unmapping, Flush&& flush) {
        return change_table<TranslationTable>([this](auto step) { return step(*this); }, flush, unmapping);
    }

    // Maps as much as can be mapped before a flush, with the largest pages that fit; the request becomes what is left.
    // True when nothing is. An error leaves a part mapped.
    lib::Result<bool> advance(Mapping<Address>& mapping, Retired& retired) {
        if (!mapping.at.is_aligned(lib::page_size) || !mapping.to.is_aligned(lib::page_size) ||
            !is_usable(mapping.at, mapping.size) || !Entry::allows(mapping.rights))
            return lib::fail(lib::Errc::OutOfRange);
        while (mapping.size > 0) {
            unsigned level = format_.largest_level;
            while (level > 1 && (((mapping.at.value | mapping.to.value) & (bytes_at(level) - 1)) != 0 ||
                                 mapping.size < bytes_at(level)))
                level--;
            Entry* const entry = TRY(entry_for(mapping.at, level));
            if (!TRY(fill(entry, level, mapping, retired))) return false;
        }
        return true;
    }
    // The same for taking mappings away. What is not mapped is skipped; a large page that is only in part in the range
    // is split, which takes memory. An error leaves a part unmapped.
    lib::Result<bool> advance(Unmapping<Address>& unmapping, Retired& retired) {
        if (!unmapping.at.is_aligned(lib::page_size) || !is_usable(unmapping.at, unmapping.size))
            return lib::fail(lib::Errc::OutOfRange);
        return unmap_in(root_, 4, unmapping, retired);
    }

    lib::Result<Translation> translate(Address at) const {
        if (!Entry::covers(at, 1)) return lib::fail(lib::Errc::NotFound);
        HostPhys table = root_;
        bool can_write = true, can_execute = true;
        for (unsigned level = 4;; level--) {
            Entry const entry = load(table_at(table)[index_of(at, level)]);
            if (!entry.is_present()) return lib::fail(lib::Errc::NotFound);
            can_write = can_write && is_writable(entry.rights());
            can_execute = can_execute && is_executable(entry.rights());
            if (entry.is_leaf(level))
                return Translation{entry.address() + at.value % bytes_at(level), level,
                                   make_rights(can_write, can_execute), entry.type()};
            table = entry.address();
        }
    }

    // Clears the dirty bits of the pages that touch [at, at + size) and tells `visit(address, size)` which pages had
    // one. True when there were any: a CPU may write to them without setting the bit again until the caller has
    // flushed, and only then may it read what they contain. New pages are dirty.
    template <typename Visit> bool take_dirty(Address at, u64 size, Visit&& visit) {
        if (!is_usable(at, size)) return false;
        bool found = false;
        while (size > 0) {
            unsigned level = 4;
            Entry* table = table_at(root_);
            Entry entry{};
            for (;; level--) {
                entry = load(table[index_of(at, level)]);
                if (!entry.is_present() || entry.is_leaf(level)) break;
                table = table_at(entry.address());
            }
            u64 const offset = at.value % bytes_at(level);
            if (entry.is_present() && entry.is_dirty()) {
                Memory::clear_bits(table[index_of(at, level)].raw, Entry::dirty);
                visit(at - offset, bytes_at(level));
                found = true;
            }
            u64 const step = std::min(bytes_at(level) - offset, size);
            at += step;
            size -= step;
        }
        return found;
    }

    // A guest executes at `at`: true when it may now. False: there is nothing to execute. It cannot fail for want of
    // memory: mapping the page has had the tables' frames promised.
    bool split_for_code(Address at)
        requires requires(Entry entry) { entry.withhold_execution(); }
    {
        if (!Entry::covers(at, 1)) return false;
        HostPhys table = root_;
        for (unsigned level = 4;; level--) {
            Entry& place = table_at(table)[index_of(at, level)];
            Entry entry = load(place);
            if (!entry.is_present()) return false;
            if (entry.is_leaf(level)) {
                if (!entry.is_execution_withheld()) return is_executable(entry.rights());
                split(place, level, promised_table());
                entry = load(place);
            }
            table = entry.address();
        }
    }

private:
    static constexpr u64 entries = 512;
    // How far one visit to an entry came. Incomplete: to be repeated after a flush.
    enum class Pass : u8 { Same, Changed, Incomplete };

    static constexpr u64 bytes_at(unsigned level) { return u64{1} << (12 + 9 * (level - 1)); }
    static constexpr u64 index_of(Address at, unsigned level) { return (at.value / bytes_at(level)) % entries; }
    static Entry* table_at(HostPhys frame) { return phys_to_virt<Entry>(frame); }
    static Entry load(Entry& entry) { return Entry{{Memory::load(entry.raw)}}; }
    static bool is_usable(Address at, u64 size) {
        return size % lib::page_size == 0 && (size == 0 || Entry::covers(at, size));
    }
    static bool is_same(Entry a, Entry b) { return ((a.raw ^ b.raw) & ~Entry::accessed_and_dirty) == 0; }
    // Tables whose frames are promised for this leaf.
    static u64 promises_of(Entry entry, unsigned level) {
        if constexpr (requires { entry.is_execution_withheld(); })
            if (level > 1 && entry.is_present() && entry.is_leaf(level) && entry.is_execution_withheld())
                return level == 3 ? 1 + entries : 1;
        return 0;
    }

    Entry leaf_for(Mapping<Address> const& mapping, unsigned level) const {
        Entry leaf = Entry::leaf(mapping.to, level, mapping.rights, mapping.type);
        leaf.raw &= ~format_.absent_bits;
        if constexpr (requires { leaf.withhold_execution(); })
            if (format_.splits_for_code && level > 1 && is_executable(mapping.rights)) leaf.withhold_execution();
        return leaf;
    }
    lib::Result<HostPhys> new_table() {
        HostPhys const frame = TRY(Memory::allocate());
        tables_++;
        return frame;
    }
    HostPhys promised_table() {
        promised_--;
        tables_++;
        return Memory::allocate_promised();
    }
    // The entry of that level, with tables and split pages on the way to it.
    lib::Result<Entry*> entry_for(Address at, unsigned level) {
        HostPhys table = root_;
        for (unsigned up = 4; up > level; up--) {
            Entry& place = table_at(table)[index_of(at, up)];
            if (!load(place).is_present()) {
                Memory::store(place.raw, Entry::table(TRY(new_table())).raw);
            } else if (load(place).is_leaf(up)) {
                TRY(split(place, up));
            }
            table = load(place).address();
        }
        return &table_at(table)[index_of(at, level)];
    }
    lib::Result<void> split(Entry& place, unsigned level) {
        HostPhys const frame = promises_of(load(place), level) > 0 ? promised_table() : TRY(new_table());
        split(place, level, frame);
        return {};
    }
    void split(Entry& place, unsigned level, HostPhys frame) {
        Entry entry{};
        do { // again when the CPU has set a bit meanwhile, which must not be lost
            entry = load(place);
            for (u64 i = 0; i < entries; i++)
                Memory::store(table_at(frame)[i].raw, entry.piece(i, level).raw);
        } while (!Memory::replace(place.raw, entry.raw, Entry::table(frame).raw));
    }

    // Pages of one size, side by side in one table from `entry` on: what begins in the next one may be larger.
    lib::Result<bool> fill(Entry* entry, unsigned level, Mapping<Address>& mapping, Retired& retired) {
        u64 const bytes = bytes_at(level);
        u64 count = std::min(mapping.size / bytes, entries - index_of(mapping.at, level));
        for (; count > 0; count--, entry++) {
            Entry const leaf = leaf_for(mapping, level);
            if (!load(*entry).is_present() && promises_of(leaf, level) == 0) [[likely]]
                Memory::store(entry->raw, leaf.raw);
            else if (TRY(place(*entry, level, leaf, retired)) == Pass::Incomplete)
                return false;
            mapping.at += bytes;
            mapping.to += bytes;
            mapping.size -= bytes;
        }
        return true;
    }

    // Lets `place` and all below it translate as `leaf` does.
    lib::Result<Pass> place(Entry& place, unsigned level, Entry leaf, Retired& retired) {
        Entry const old = load(place);
        bool const was_table = old.is_present() && !old.is_leaf(level);
        u64 const promises = promises_of(leaf, level);
        if (was_table) {
            bool has_changed = false;
            for (u64 i = 0; i < entries; i++) {
                Pass const below =
                    TRY(this->place(table_at(old.address())[i], level - 1, leaf.piece(i, level), retired));
                if (below == Pass::Incomplete) return below;
                has_changed = has_changed || below == Pass::Changed;
            }
            // Where large pages are not executable, the small ones differ from the large one and stay.
            if (promises > 0) return has_changed ? Pass::Changed : Pass::Same;
            if (has_changed) {
                retired.needs_flush_ = true;
                return Pass::Incomplete;
            }
            if (retired.room() == 0) return Pass::Incomplete;
        } else if (is_same(old, leaf)) {
            return Pass::Same;
        }
        u64 const old_promises = promises_of(old, level);
        if (promises > old_promises) {
            TRY(Memory::promise(promises - old_promises));
            promised_ += promises - old_promises;
        }
        Memory::store(place.raw, leaf.raw);
        if (was_table) retire(old.address(), level - 1, retired);
        if (old.is_present()) retired.needs_flush_ = true;
        if (promises < old_promises) take_promise_back(old_promises - promises);
        return Pass::Changed;
    }

    // Within the table at `frame`, whose entries are of `level`; true when the range is done or leaves this table.
    lib::Result<bool> unmap_in(HostPhys frame, unsigned level, Unmapping<Address>& range, Retired& retired) {
        u64 left = bytes_at(level) * entries - range.at.value % (bytes_at(level) * entries);
        while (range.size > 0 && left > 0) {
            if (retired.room() < 3) return false; // this entry's table, and empty ones of two levels above
            Entry& place = table_at(frame)[index_of(range.at, level)];
            u64 const span = std::min(bytes_at(level) - range.at.value % bytes_at(level), range.size);
            bool const is_whole = span == bytes_at(level);
            Entry entry = load(place);
            if (entry.is_present() && entry.is_leaf(level) && !is_whole) {
                TRY(split(place, level));
                entry = load(place);
            }
            if (!entry.is_present() || entry.is_leaf(level) || (is_whole && !range.keeps_tables)) {
                if (entry.is_present()) take_out(place, level, retired);
                range.at += span;
                range.size -= span;
            } else {
                HostPhys const below = entry.address();
                if (!TRY(unmap_in(below, level - 1, range, retired))) return false;
                if (!range.keeps_tables && is_empty(below)) take_out(place, level, retired);
            }
            left -= span;
        }
        return true;
    }
    void take_out(Entry& place, unsigned level, Retired& retired) {
        Entry const old = load(place);
        Memory::store(place.raw, 0);
        retired.needs_flush_ = true;
        if (!old.is_leaf(level))
            retire(old.address(), level - 1, retired);
        else
            take_promise_back(promises_of(old, level));
    }
    static bool is_empty(HostPhys table) {
        return std::all_of(table_at(table), table_at(table) + entries,
                           [](Entry& entry) { return !load(entry).is_present(); });
    }

    void retire(HostPhys table, unsigned level, Retired& retired) {
        forget(table, level);
        retired.add(table, level);
    }
    // Takes a subtree out of the books.
    void forget(HostPhys table, unsigned level) {
        tables_--;
        if (level == 1) return;
        for (u64 i = 0; i < entries; i++) {
            Entry const entry = load(table_at(table)[i]);
            if (entry.is_present() && !entry.is_leaf(level)) forget(entry.address(), level - 1);
            take_promise_back(promises_of(entry, level));
        }
    }
    void take_promise_back(u64 tables) {
        if (tables == 0) return;
        promised_ -= tables;
        Memory::take_promise_back(tables);
    }
    static void release(HostPhys table, unsigned level) {
        u64 const count = level == 4 ? Entry::root_entries : entries;
        for (u64 i = 0; level > 1 && i < count; i++) {
            Entry const entry = load(table_at(table)[i]);
            if (entry.is_present() && !entry.is_leaf(level)) release(entry.address(), level - 1);
        }
        Memory::free(table);
    }
    void release_all() {
        if (root_.value != 0) release(root_, 4);
        take_promise_back(promised_);
    }

    HostPhys root_{};
    u64 tables_ = 0;
    TableFormat format_{.largest_level = 1};
    u64 promised_ = 0; // frames
};

// Carries out a Mapping or an Unmapping. `with(step)` calls `step(table)` and returns what it returns, with the table's
// lock held if it has one. `flush()` is called without it, only when translations have been taken away or changed; it
// returns when no CPU can use one from before the call. Then the tables that are no longer needed are freed.
template <typename Table, typename With, typename Flush, typename Request>
lib::Result<void> change_table(With&& with, Flush&& flush, Request request) {
    typename Table::Retired retired;
    for (;;) {
        lib::Result<bool> const is_done = with([&](Table& table) { return table.advance(request, retired); });
        if (retired.needs_flush()) {
            flush();
            retired.free();
        }
        if (!is_done) return lib::fail(is_done.error());
        if (*is_done) return {};
    }
}

} // namespace kernel
