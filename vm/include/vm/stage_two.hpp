// SPDX-License-Identifier: MIT
#pragma once
// Second-level page tables (EPT, NPT): 4 levels, 4 KiB, 2 MiB and 1 GiB pages, over an entry type of the vendor's.
#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstring>
#include <kernel/direct_map.hpp>
#include <kernel/heap.hpp>
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace vm {

using lib::GuestPhys;
using lib::HostPhys;
using lib::u64;
using lib::u8;

enum class MemoryRights : u8 { Read, ReadWrite, All };

// What the backend of a VM offers to map guest-physical space.
class AddressSpace {
public:
    virtual ~AddressSpace() = default;
    // Ranges are page-aligned. Larger pages are used where both addresses allow.
    virtual lib::Result<void> map(GuestPhys at, HostPhys to, u64 size, MemoryRights rights) = 0;
    // Takes effect on every CPU before it returns.
    virtual lib::Result<void> unmap(GuestPhys at, u64 size) = 0;
    virtual u64 table_bytes() const = 0;
};

// Entry: static table(HostPhys), static leaf(HostPhys, level, rights), is_present(), is_leaf(level), address(); for
// `splits_for_code` also withhold_execution(), is_execution_withheld() and is_executable().
template <typename Entry> class StageTwoTable {
public:
    // `largest_level`: 1 for 4 KiB pages only, 2 for 2 MiB, 3 for 1 GiB.
    // `splits_for_code`: large pages are not executable; split_for_code() makes small ones of them. map() has the
    // frames of those tables promised, so that it cannot fail.
    explicit StageTwoTable(unsigned largest_level, bool splits_for_code = false)
        : largest_level_(largest_level), splits_for_code_(splits_for_code) {}
    ~StageTwoTable() {
        if (root_.value != 0) release(root_, 4);
        kernel::take_promise_back(promised_);
    }
    StageTwoTable(StageTwoTable const&) = delete;
    StageTwoTable& operator=(StageTwoTable const&) = delete;

    lib::Result<void> create_root() {
        root_ = TRY(new_table());
        return {};
    }
    HostPhys root() const { return root_; }
    u64 table_bytes() const { return tables_ * lib::page_size; }

    lib::Result<void> map(GuestPhys at, HostPhys to, u64 size, MemoryRights rights) {
        if (!at.is_aligned(lib::page_size) || !to.is_aligned(lib::page_size) || size % lib::page_size != 0)
            return lib::fail(lib::Errc::OutOfRange);
        while (size > 0) {
            unsigned level = largest_level_;
            while (level > 1 && (((at.value | to.value) & (bytes_at(level) - 1)) != 0 || size < bytes_at(level)))
                level--;
            Entry* const entry = TRY(entry_for(at, level));
            if (entry->is_present() && !entry->is_leaf(level)) {
                release(entry->address(), level - 1);
            }
            Entry leaf = Entry::leaf(to, level, rights);
            if constexpr (requires { leaf.withhold_execution(); })
                if (splits_for_code_ && level > 1 && rights == MemoryRights::All) {
                    *entry = Entry{};
                    u64 const tables = level == 3 ? 1 + entries : 1;
                    TRY(kernel::promise_frames(tables));
                    promised_ += tables;
                    leaf.withhold_execution();
                }
            *entry = leaf;
            at += bytes_at(level);
            to += bytes_at(level);
            size -= bytes_at(level);
        }
        return {};
    }
    // What is not mapped is skipped; a large page that lies wholly inside goes without being split.
    lib::Result<void> unmap(GuestPhys at, u64 size) {
        if (!at.is_aligned(lib::page_size) || size % lib::page_size != 0) return lib::fail(lib::Errc::OutOfRange);
        while (size > 0) {
            u64 step = 0;
            for (unsigned level = 4; step == 0; level--) {
                Entry* const entry = TRY(entry_for(at, level));
                u64 const span = bytes_at(level) - at.value % bytes_at(level);
                bool const is_whole = entry->is_leaf(level) && span == bytes_at(level) && span <= size;
                if (entry->is_present() && !is_whole) continue;
                *entry = Entry{};
                step = std::min(span, size);
            }
            at += step;
            size -= step;
        }
        return {};
    }

    // A guest executes at `at`: true when it may now. False: there is nothing to execute. Other CPUs may use the table
    // meanwhile; the callers take turns.
    bool split_for_code(GuestPhys at)
        requires requires(Entry entry) { entry.withhold_execution(); }
    {
        if (at.value >= u64{1} << 48) return false;
        Entry* table = table_at(root_);
        for (unsigned level = 4;; level--) {
            Entry& entry = table[(at.value / bytes_at(level)) % entries];
            if (!entry.is_present()) return false;
            if (entry.is_leaf(level)) {
                if (level == 1 || !entry.is_execution_withheld()) return entry.is_executable();
                split(entry, level, promised_table());
            }
            table = table_at(entry.address());
        }
    }

private:
    static constexpr u64 entries = 512;
    static constexpr u64 bytes_at(unsigned level) { return u64{1} << (12 + 9 * (level - 1)); }
    static Entry* table_at(HostPhys frame) { return kernel::phys_to_virt<Entry>(frame); }

    lib::Result<HostPhys> new_table() {
        auto const frame = TRY(kernel::allocate_zeroed_frame());
        tables_++;
        return frame;
    }
    lib::Result<Entry*> entry_for(GuestPhys at, unsigned level) {
        if (at.value >= u64{1} << 48) return lib::fail(lib::Errc::OutOfRange);
        Entry* table = table_at(root_);
        for (unsigned up = 4; up > level; up--) {
            Entry& entry = table[(at.value / bytes_at(up)) % entries];
            if (!entry.is_present()) {
                entry = Entry::table(TRY(new_table()));
            } else if (entry.is_leaf(up)) {
                split(entry, up, TRY(new_table()));
            }
            table = table_at(entry.address());
        }
        return &table[(at.value / bytes_at(level)) % entries];
    }
    // The new table is complete before a CPU that walks at this moment can find it.
    void split(Entry& entry, unsigned level, HostPhys frame) {
        for (u64 i = 0; i < entries; i++)
            table_at(frame)[i] = entry.piece(i, level);
        std::atomic_ref<u64>(entry.raw).store(Entry::table(frame).raw, std::memory_order_release);
    }
    HostPhys promised_table() {
        promised_--;
        tables_++;
        return kernel::allocate_promised_frame();
    }
    void release(HostPhys frame, unsigned level) {
        if (level > 1)
            for (u64 i = 0; i < entries; i++) {
                Entry const entry = table_at(frame)[i];
                if (entry.is_present() && !entry.is_leaf(level)) release(entry.address(), level - 1);
            }
        kernel::free_frames(frame, 0);
        tables_--;
    }

    HostPhys root_{};
    u64 tables_ = 0;
    unsigned largest_level_;
    bool splits_for_code_;
    u64 promised_ = 0; // frames
};

} // namespace vm
