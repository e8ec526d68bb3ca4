// SPDX-License-Identifier: MIT
#pragma once
// What CPUs may see of a translation table while it changes. Every store to table memory is kept and looked at: after
// each one, the table is walked as a CPU walks it, by the bits of the manual and not by the product's own types.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <gtest/gtest.h>
#include <kernel/translation_table.hpp>
#include <optional>
#include <random>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace support {

using kernel::HostPhys;
using kernel::MemoryType;
using kernel::Rights;
using lib::page_size;
using lib::u64;

struct RawEntry {
    bool is_present, is_leaf, can_write, can_execute, is_dirty;
    u64 address;
    MemoryType type;
};
inline constexpr u64 address_mask = 0x000f'ffff'ffff'f000;

// [intel/vol3] 4.5.4; [amd/vol2] 5.3.3
template <bool IsUser> struct LongModeWalk {
    static constexpr u64 dirty = 1 << 6;
    static RawEntry read(u64 raw, unsigned level) {
        if ((raw & 1) == 0) return {};
        if ((raw >> 2 & 1) != IsUser) ADD_FAILURE() << "user pages are for services and guests";
        bool const is_leaf = level == 1 || (raw >> 7 & 1) != 0;
        unsigned const pat = raw >> 3 & 3;
        return {true,
                is_leaf,
                (raw >> 1 & 1) != 0,
                raw >> 63 == 0,
                (raw & dirty) != 0,
                raw & address_mask,
                pat == 0   ? MemoryType::WriteBack
                : pat == 1 ? MemoryType::WriteCombining
                           : MemoryType::Uncached};
    }
};
// [intel/vol3] tables 29-1 to 29-6
struct EptWalk {
    static constexpr u64 dirty = 1 << 9;
    static RawEntry read(u64 raw, unsigned level) {
        if ((raw & 7) == 0) return {};
        if ((raw & 1) == 0) ADD_FAILURE() << "not readable: misconfigured";
        bool const is_leaf = level == 1 || (raw >> 7 & 1) != 0;
        unsigned const type = raw >> 3 & 7;
        if (!is_leaf && (raw & 0xf8) != 0) ADD_FAILURE() << "reserved bits of a table's entry";
        return {true,
                is_leaf,
                (raw >> 1 & 1) != 0,
                (raw >> 2 & 1) != 0,
                (raw & dirty) != 0,
                raw & address_mask,
                type == 6   ? MemoryType::WriteBack
                : type == 1 ? MemoryType::WriteCombining
                            : MemoryType::Uncached};
    }
};

// What one page translates to.
struct Seen {
    u64 to = 0;
    Rights rights = Rights::Read;
    MemoryType type = MemoryType::WriteBack;
    bool is_mapped = false;
    friend bool operator==(Seen const&, Seen const&) = default;
};

// Memory for tables, and what CPUs may know of it.
class TableHistory {
public:
    static constexpr u64 frames = 700;
    static inline TableHistory* now = nullptr;

    TableHistory()
        : memory_(static_cast<u64*>(std::aligned_alloc(page_size, frames * page_size))), shadow_(frames * 512) {
        now = this;
        for (u64 i = 0; i < frames; i++)
            free_.push_back(address_of(memory_) + i * page_size);
        is_free_.insert(free_.begin(), free_.end());
        poison_everything();
    }
    ~TableHistory() {
        now = nullptr;
        std::free(memory_);
    }
    TableHistory(TableHistory const&) = delete;
    TableHistory& operator=(TableHistory const&) = delete;

    u64 free_frames() const { return free_.size(); }
    u64 promised() const { return promised_; }
    u64 stores() const { return stores_; }
    u64 last_flush() const { return last_flush_; }
    // How many allocations succeed from now on.
    void limit(u64 allocations) { allocations_left_ = allocations; }
    // Called before each comparison of a split, with the entry: what a CPU does at that moment.
    void set_cpu(void (*interfere)(u64& entry)) { interfere_ = interfere; }
    template <typename Check> void watch(u64 root, RawEntry (*read)(u64, unsigned), Check check) {
        read_ = read;
        check_ = check;
        add(root, 4, 0);
    }
    // The table is about to go as a whole.
    void unwatch() {
        flush();
        reachable_.clear();
        cached_.clear();
    }

    // No CPU knows anything any more but what it would find now.
    void flush() {
        last_flush_ = ++stores_;
        cached_.clear();
        for (auto const& [frame, place] : reachable_)
            cached_.insert(frame);
    }

    lib::Result<HostPhys> allocate() {
        if (free_.size() <= promised_ || allocations_left_ == 0) return lib::fail(lib::Errc::NoMemory);
        allocations_left_--;
        HostPhys const frame = take();
        std::memset(reinterpret_cast<void*>(frame.value), 0, page_size);
        remember(frame.value);
        return frame;
    }
    lib::Result<void> promise(u64 count) {
        if (free_.size() < promised_ + count || allocations_left_ == 0) return lib::fail(lib::Errc::NoMemory);
        promised_ += count;
        return {};
    }
    void take_promise_back(u64 count) {
        ASSERT_LE(count, promised_);
        promised_ -= count;
    }
    HostPhys allocate_promised() {
        EXPECT_GT(promised_, 0U);
        promised_--;
        return take(); // full of garbage
    }
    void free(HostPhys frame) {
        ASSERT_FALSE(reachable_.contains(frame.value)) << "freed while an entry points to it";
        ASSERT_FALSE(cached_.contains(frame.value)) << "freed before the flush: a CPU may still walk it";
        poison(frame.value);
        free_.push_front(frame.value); // used again as late as possible
        ASSERT_TRUE(is_free_.insert(frame.value).second) << "freed twice";
    }
    void store(u64& entry, u64 value) {
        if (entry != shadow_[index_of(entry)]) ADD_FAILURE() << "a store that was not seen";
        u64 const frame = frame_of(entry);
        u64 const old = entry;
        entry = value;
        shadow_[index_of(entry)] = value;
        stores_++;
        auto const found = reachable_.find(frame);
        if (found == reachable_.end()) { // no CPU can see it yet
            if (cached_.contains(frame)) ADD_FAILURE() << "an unlinked table is written";
            return;
        }
        Place const place = found->second;
        u64 const span = u64{1} << (12 + 9 * (place.level - 1));
        u64 const base = place.base + (address_of(&entry) - frame) / 8 * span;
        if (is_table(old, place.level)) remove(read_(old, place.level).address, place.level - 1);
        if (is_table(value, place.level)) add(read_(value, place.level).address, place.level - 1, base);
        check_(base, span, is_table(old, place.level) && read_(value, place.level).is_leaf);
    }
    bool replace(u64& entry, u64 expected, u64 value) {
        if (interfere_ != nullptr) {
            interfere_(entry);
            shadow_[index_of(entry)] = entry;
        }
        if (entry != expected) return false;
        store(entry, value);
        return true;
    }
    // By a CPU.
    void set_bits(u64& entry, u64 bits) {
        entry |= bits;
        shadow_[index_of(entry)] = entry;
    }
    // Only what went through store() may have changed.
    void check_nothing_unseen() const {
        ASSERT_EQ(std::memcmp(memory_, shadow_.data(), frames * page_size), 0) << "a store that was not seen";
    }

private:
    struct Place {
        unsigned level;
        u64 base;
    };
    static u64 address_of(void const* pointer) { return reinterpret_cast<u64>(pointer); }
    static u64 frame_of(u64 const& entry) { return address_of(&entry) & ~(page_size - 1); }
    u64 index_of(u64 const& entry) const { return static_cast<u64>(&entry - memory_); }
    bool is_table(u64 raw, unsigned level) const {
        RawEntry const entry = read_(raw, level);
        return entry.is_present && !entry.is_leaf;
    }
    HostPhys take() {
        HostPhys const frame{free_.back()};
        free_.pop_back();
        is_free_.erase(frame.value);
        return frame;
    }
    void remember(u64 frame) {
        std::memcpy(&shadow_[index_of(*reinterpret_cast<u64*>(frame))], reinterpret_cast<void*>(frame), page_size);
    }
    // Present everywhere, and pointing nowhere sensible.
    void poison(u64 frame) {
        std::memset(reinterpret_cast<void*>(frame), 0x67, page_size);
        remember(frame);
    }
    void poison_everything() {
        for (u64 const frame : free_)
            poison(frame);
    }
    void add(u64 frame, unsigned level, u64 base) {
        ASSERT_FALSE(is_free_.contains(frame)) << "an entry points to a freed table";
        ASSERT_TRUE(reachable_.emplace(frame, Place{level, base}).second) << "two entries point to one table";
        cached_.insert(frame);
        if (level == 1) return;
        for (u64 i = 0; i < 512; i++) {
            RawEntry const entry = read_(reinterpret_cast<u64*>(frame)[i], level);
            if (entry.is_present && !entry.is_leaf) add(entry.address, level - 1, base + (i << (12 + 9 * (level - 1))));
        }
    }

    void remove(u64 frame, unsigned level) {
        ASSERT_EQ(reachable_.erase(frame), 1U);
        if (level == 1) return;
        for (u64 i = 0; i < 512; i++) {
            RawEntry const entry = read_(reinterpret_cast<u64*>(frame)[i], level);
            if (entry.is_present && !entry.is_leaf) remove(entry.address, level - 1);
        }
    }

    u64* memory_;
    std::vector<u64> shadow_;
    std::deque<u64> free_; // taken from the back
    std::unordered_set<u64> is_free_;
    u64 promised_ = 0;
    u64 allocations_left_ = ~u64{0};
    u64 stores_ = 0, last_flush_ = 0;
    RawEntry (*read_)(u64, unsigned) = nullptr;
    std::function<void(u64, u64, bool)> check_;
    void (*interfere_)(u64&) = nullptr;
    std::unordered_map<u64, Place> reachable_;
    std::unordered_set<u64> cached_; // what was reachable at any time since the last flush
};

struct HistoryMemory {
    static lib::Result<HostPhys> allocate() { return TableHistory::now->allocate(); }
    static void free(HostPhys table) { TableHistory::now->free(table); }
    static lib::Result<void> promise(u64 tables) { return TableHistory::now->promise(tables); }
    static void take_promise_back(u64 tables) { TableHistory::now->take_promise_back(tables); }
    static HostPhys allocate_promised() { return TableHistory::now->allocate_promised(); }
    static u64 load(u64& entry) { return entry; }
    static void store(u64& entry, u64 value) { TableHistory::now->store(entry, value); }
    static bool replace(u64& entry, u64 expected, u64 value) {
        return TableHistory::now->replace(entry, expected, value);
    }
    static void clear_bits(u64& entry, u64 bits) { TableHistory::now->store(entry, entry & ~bits); }
};

// Format: Entry, Walk, base (the first address of the test's window; its low 39 bits are 0), splits_for_code.
template <typename Format> class TableHistoryTest : public ::testing::Test {
protected:
    using Entry = typename Format::Entry;
    using Walk = typename Format::Walk;
    using Address = typename Entry::Address;
    using Table = kernel::TranslationTable<Entry, HistoryMemory>;
    static constexpr u64 window = 3 * 512 * 512; // pages: 3 GiB
    static constexpr u64 low_48 = (u64{1} << 48) - 1;

    ~TableHistoryTest() override { destroy(); }
    TableHistoryTest()
        : table(std::in_place, kernel::TableFormat{.largest_level = 3, .splits_for_code = Format::splits_for_code}) {
        EXPECT_TRUE(table->create_root());
        history.watch(table->root().value, Walk::read,
                      [this](u64 base, u64 span, bool is_merged) { look_at(base, span, is_merged); });
        history.flush();
    }

    static Address at(u64 page) { return Address{Format::base + page * page_size}; }
    struct Leaf {
        Seen seen;
        unsigned level;
        u64* entry;
    };
    Leaf walk(u64 page) {
        u64 frame = table->root().value;
        u64 const address = at(page).value;
        bool can_write = true, can_execute = true;
        for (unsigned level = 4; level > 0; level--) {
            unsigned const shift = 12 + 9 * (level - 1);
            u64* const place = reinterpret_cast<u64*>(frame) + (address >> shift & 511);
            RawEntry const entry = Walk::read(*place, level);
            if (!entry.is_present) return {};
            can_write = can_write && entry.can_write;
            can_execute = can_execute && entry.can_execute;
            frame = entry.address;
            if (!entry.is_leaf) continue;
            u64 const offset = (u64{1} << shift) - 1;
            if (level == 4 || (entry.address & offset) != 0) break;
            // Where large pages are not executable, small ones stand for what was asked for.
            if (Format::splits_for_code && level > 1) {
                EXPECT_FALSE(entry.can_execute) << "an executable large page";
                can_execute = (*place >> 52 & 1) != 0;
            }
            return {{entry.address | (address & offset), kernel::make_rights(can_write, can_execute), entry.type, true},
                    level,
                    place};
        }
        ADD_FAILURE() << "a walk that ends nowhere, for page " << page;
        return {};
    }

    // The change that is under way.
    struct Change {
        u64 begin = 0, end = 0;
        bool is_mapping = false;
        Seen first{};
        Seen of(u64 page) const {
            if (!is_mapping) return {};
            Seen seen = first;
            seen.to += (page - begin) * page_size;
            return seen;
        }
    };
    // Called after each store that a CPU could see. `is_merged`: a large page took a table's place.
    void look_at(u64 base, u64 span, bool is_merged) {
        u64 const begin = ((base - Format::base) & low_48) / page_size;
        u64 const pages = span / page_size;
        // A TLB that has a small page and a large one that do not agree is undefined. [intel/vol3] 4.10.2.3
        for (u64 page = begin; is_merged && page < begin + pages; page++)
            if (model[page].is_mapped && when_new[page] > history.last_flush()) {
                ADD_FAILURE() << "no flush before a large page took the place of small ones that had changed";
                break;
            }
        if (pages <= 512) {
            for (u64 page = begin; page < begin + pages; page++)
                check(page);
        } else {
            check(begin);
            check(begin + pages - 1);
            for (int i = 0; i < 60; i++)
                check(begin + random() % pages);
        }
        for (u64 const page : {change.begin - 1, change.begin, change.end - 1, change.end, random() % window})
            check(page);
    }
    void check(u64 page) {
        if (page >= window || has_failed || !has_model) return;
        Seen const seen = walk(page).seen;
        Seen const& old = model[page];
        bool const concerned = page >= change.begin && page < change.end;
        Seen const wanted = concerned ? change.of(page) : old;
        if (seen == old && old == wanted) return;
        if (seen == wanted) {
            if (when_new[page] != 0) return;
            when_new[page] = history.stores();
            became_new.push_back(page);
        } else if (seen != old || when_new[page] != 0) {
            has_failed = true;
            ADD_FAILURE() << "page " << std::hex << page << " translates to " << seen.to << ", which is "
                          << (seen == old ? "old again" : "neither old nor new");
        }
    }

    // Carries out `body` and checks what came of it.
    template <typename Body> void carry_out(Change const& next, Body body) {
        change = next;
        bool const is_done = body();
        history.check_nothing_unseen();
        for (u64 const page : became_new) {
            if (model[page].is_mapped && when_new[page] >= history.last_flush())
                ADD_FAILURE() << "no flush after page " << page << " changed";
            when_new[page] = 0;
        }
        became_new.clear();
        for (u64 page = change.begin; page < change.end; page++) {
            Seen const seen = is_done && page % 37 != 0 ? change.of(page) : walk(page).seen;
            if (seen != change.of(page) && (is_done || seen != model[page])) FAIL() << page;
            model[page] = seen;
        }
        change = {};
    }
    auto flush() {
        return [this] { history.flush(); };
    }

    u64 random_size() {
        if (random() % 30 == 0) return 512 * 512;
        switch (random() % 8) {
        case 1:
        case 2: return 512;
        case 3: return 512 * (1 + random() % 5);
        default: return 1 + random() % 40;
        }
    }
    // Anywhere, and as often where large pages fit.
    u64 random_page(u64 pages, u64 limit) {
        u64 const alignment = random() % 4 == 0 ? 1 : pages >= 512 * 512 ? 512 * 512 : pages >= 512 ? 512 : 1;
        // Little to choose from, so that changes meet.
        u64 page = random() % 3 == 0 ? random() % limit : random() % 3 * 512 * 512 + random() % 1536;
        return page / alignment * alignment;
    }
    Rights random_rights() {
        auto const rights = static_cast<Rights>(random() % 4);
        return Entry::allows(rights) ? rights : Rights::ReadExecute;
    }
    void random_map() {
        u64 pages = random_size();
        u64 const page = random_page(pages, window);
        pages = std::min(pages, window - page);
        u64 to = random() % 2 == 0 ? page + 512 * 512 * (random() % 3) : random_page(pages, 1U << 24);
        if (pages > 2600 && ((to ^ page) & 511) != 0) to = page; // else hundreds of tables
        auto const type = random() % 4 == 0 ? static_cast<MemoryType>(random() % 3) : MemoryType::WriteBack;
        Rights const rights = random_rights();
        carry_out({page, page + pages, true, {to * page_size, rights, type, true}}, [&] {
            return table->map({at(page), HostPhys{to * page_size}, pages * page_size, rights, type}, flush())
                .has_value();
        });
    }
    void random_unmap() {
        u64 pages = random_size();
        u64 const page = random_page(pages, window);
        pages = std::min(pages, window - page);
        bool const keeps_tables = random() % 4 == 0;
        carry_out({page, page + pages},
                  [&] { return table->unmap({at(page), pages * page_size, keeps_tables}, flush()).has_value(); });
    }
    void random_split() {
        if constexpr (Format::splits_for_code) {
            u64 const page = random_page(1, window);
            carry_out({}, [&] {
                EXPECT_EQ(table->split_for_code(at(page)), model[page].is_mapped && is_executable(model[page].rights));
                return true;
            });
        }
    }
    void random_change() {
        switch (random() % 8) {
        case 0:
        case 1:
        case 2: return random_unmap();
        case 3: return random_split();
        default: return random_map();
        }
    }
    void destroy() {
        history.unwatch();
        table.reset();
    }

    TableHistory history;
    std::optional<Table> table;
    std::vector<Seen> model = std::vector<Seen>(window);
    Change change;
    bool has_failed = false;
    bool has_model = true;                                // false: a test changes the table without saying so
    std::vector<u64> became_new;                          // the pages of the change that a CPU saw change
    std::vector<u64> when_new = std::vector<u64>(window); // after how many stores; 0: not in this change
    std::mt19937_64 random{20261128};
};
TYPED_TEST_SUITE_P(TableHistoryTest);

TYPED_TEST_P(TableHistoryTest, EveryStateInBetweenIsOldOrNew) {
    u64 const all = this->history.free_frames() + 1;
    for (int i = 0; i < 1200; i++) {
        SCOPED_TRACE(i);
        this->random_change();
        if (this->HasFailure()) return;
        ASSERT_EQ(this->table->table_bytes(), (all - this->history.free_frames()) * page_size);
        ASSERT_EQ(this->table->promised_bytes(), this->history.promised() * page_size);
    }
    EXPECT_GT(this->history.stores(), 50'000U);
    this->destroy();
    EXPECT_EQ(this->history.free_frames(), all);
    EXPECT_EQ(this->history.promised(), 0U);
}

TYPED_TEST_P(TableHistoryTest, WantOfMemoryLeavesEachPageOldOrNew) {
    u64 const all = this->history.free_frames() + 1;
    unsigned failures = 0;
    for (int i = 0; i < 500; i++) {
        SCOPED_TRACE(i);
        u64 const free = this->history.free_frames();
        this->history.limit(this->random() % 3);
        this->random_change();
        if (this->HasFailure()) return;
        failures += free == this->history.free_frames() ? 1 : 0;
        ASSERT_EQ(this->table->table_bytes(), (all - this->history.free_frames()) * page_size);
    }
    EXPECT_GT(failures, 20U);
    this->destroy();
    EXPECT_EQ(this->history.free_frames(), all);
    EXPECT_EQ(this->history.promised(), 0U);
}

TYPED_TEST_P(TableHistoryTest, TranslateAgreesWithTheWalkOfTheCpu) {
    for (int i = 0; i < 200; i++)
        this->random_change();
    for (u64 page = 0; page < this->window; page += 1 + this->random() % 7) {
        auto const found = this->table->translate(this->at(page) + 5);
        auto const walked = this->walk(page);
        ASSERT_EQ(found.has_value(), walked.seen.is_mapped) << page;
        if (!found) continue;
        ASSERT_EQ(found->to.value, walked.seen.to + 5);
        ASSERT_EQ(found->level, walked.level);
        ASSERT_EQ(found->type, walked.seen.type);
        if (!TypeParam::splits_for_code || walked.level == 1) ASSERT_EQ(found->rights, walked.seen.rights);
    }
    EXPECT_FALSE(this->table->translate(typename TypeParam::Entry::Address{u64{1} << 50}));
}

TYPED_TEST_P(TableHistoryTest, ALargePageTakesTheTablesPlaceAfterAFlush) {
    u64 const free = this->history.free_frames();
    auto const map = [&](u64 page, u64 pages, u64 to) {
        this->carry_out({page, page + pages, true, {to * page_size, Rights::ReadWrite, MemoryType::WriteBack, true}},
                        [&] {
                            return this->table
                                ->map({this->at(page), HostPhys{to * page_size}, pages * page_size, Rights::ReadWrite},
                                      this->flush())
                                .has_value();
                        });
    };
    map(1, 511, 7); // by a table of level 1
    EXPECT_EQ(free - this->history.free_frames(), 3U);
    u64 const flush_before = this->history.last_flush();
    map(0, 512, 1024);
    EXPECT_GT(this->history.last_flush(), flush_before);
    EXPECT_EQ(this->walk(3).level, 2U);
    EXPECT_EQ(free - this->history.free_frames(), 2U) << "the table is given back";
    map(512, 512 * 511, 4096 + 512);
    map(0, 512 * 512, 0); // 1 GiB over 512 large pages of two different places
    EXPECT_EQ(this->walk(99'999).level, 3U);
    EXPECT_EQ(free - this->history.free_frames(), 1U);
}

TYPED_TEST_P(TableHistoryTest, UnmappingGivesEmptyTablesBack) {
    this->has_model = false;
    u64 const free = this->history.free_frames();
    for (u64 page = 0; page < 512 * 40; page += 512)
        ASSERT_TRUE(this->table->map({this->at(page), HostPhys{page_size}, page_size, Rights::Read}, this->flush()));
    EXPECT_EQ(free - this->history.free_frames(), 42U);
    ASSERT_TRUE(this->table->unmap({this->at(0), 512 * 40 * page_size, true}, this->flush()));
    EXPECT_EQ(free - this->history.free_frames(), 42U) << "kept";
    u64 const stores = this->history.stores();
    ASSERT_TRUE(this->table->unmap({this->at(1), (512 * 40 - 1) * page_size}, this->flush()));
    EXPECT_LE(this->history.stores() - stores, 44U) << "a store for each table, and a flush for many";
    EXPECT_EQ(free - this->history.free_frames(), 0U);
    ASSERT_TRUE(this->table->unmap({this->at(0), 512 * 512 * page_size}, this->flush()));
    EXPECT_EQ(free - this->history.free_frames(), 0U) << "nothing to unmap costs nothing";
}

TYPED_TEST_P(TableHistoryTest, NothingIsFlushedWithoutNeed) {
    this->has_model = false;
    u64 const flush = this->history.last_flush();
    ASSERT_TRUE(this->table->map({this->at(0), HostPhys{0}, 700 * page_size, Rights::ReadWrite}, this->flush()));
    ASSERT_TRUE(this->table->map({this->at(3), HostPhys{3 * page_size}, page_size, Rights::ReadWrite}, this->flush()));
    ASSERT_TRUE(this->table->unmap({this->at(4096), page_size}, this->flush()));
    EXPECT_EQ(this->history.last_flush(), flush);
    ASSERT_TRUE(this->table->map({this->at(3), HostPhys{3 * page_size}, page_size, Rights::Read}, this->flush()));
    EXPECT_GT(this->history.last_flush(), flush) << "a right was taken away";
}

TYPED_TEST_P(TableHistoryTest, NoDirtyBitIsLostInASplit) {
    this->has_model = false;
    using Walk = typename TypeParam::Walk;
    ASSERT_TRUE(this->table->map({this->at(0), HostPhys{0}, 512 * 512 * page_size, Rights::ReadWrite}, this->flush()));
    std::vector<u64> pages;
    auto const note = [&](auto at, u64 size) {
        for (u64 offset = 0; offset < size; offset += page_size)
            pages.push_back((at.value + offset - TypeParam::base) / page_size);
    };
    EXPECT_TRUE(this->table->take_dirty(this->at(0), 512 * 512 * page_size, note)) << "new pages are dirty";
    EXPECT_EQ(pages.size(), 512U * 512U);
    EXPECT_FALSE(this->table->take_dirty(this->at(0), 512 * 512 * page_size, note)) << "once";
    // A CPU writes to the page while it is split.
    this->history.set_cpu([](u64& entry) { entry |= Walk::dirty; });
    ASSERT_TRUE(this->table->unmap({this->at(5), page_size}, this->flush()));
    this->history.set_cpu(nullptr);
    pages.clear();
    EXPECT_TRUE(this->table->take_dirty(this->at(512), 512 * page_size, note));
    EXPECT_EQ(pages.size(), 512U);
    EXPECT_EQ(pages.front(), 512U);
    pages.clear();
    EXPECT_TRUE(this->table->take_dirty(this->at(0), 512 * page_size, note));
    EXPECT_EQ(pages.size(), 511U);
    pages.clear();
    EXPECT_FALSE(this->table->take_dirty(this->at(0), 1024 * page_size, note));
    this->history.set_bits(*this->walk(77).entry, Walk::dirty);
    EXPECT_TRUE(this->table->take_dirty(this->at(70), 20 * page_size, note));
    EXPECT_EQ(pages, std::vector<u64>{77});
    EXPECT_FALSE(this->table->take_dirty(this->at(0), page_size / 2, note)) << "not whole pages";
}

TYPED_TEST_P(TableHistoryTest, RefusesWhatItCannotMap) {
    this->has_model = false;
    using Address = typename TypeParam::Entry::Address;
    auto const refuses = [&](kernel::Mapping<Address> const& mapping) {
        return !this->table->map(mapping, this->flush()).has_value();
    };
    EXPECT_TRUE(refuses({this->at(0) + 1, HostPhys{0}, page_size, Rights::Read}));
    EXPECT_TRUE(refuses({this->at(0), HostPhys{1}, page_size, Rights::Read}));
    EXPECT_TRUE(refuses({this->at(0), HostPhys{0}, 100, Rights::Read}));
    EXPECT_TRUE(refuses({Address{u64{1} << 48}, HostPhys{0}, page_size, Rights::Read}));
    EXPECT_TRUE(refuses({Address{(u64{1} << 48) - page_size}, HostPhys{0}, 2 * page_size, Rights::Read}));
    EXPECT_TRUE(refuses({Address{u64{1} << 46}, HostPhys{0}, u64{1} << 48, Rights::Read}));
    EXPECT_EQ(refuses({this->at(0), HostPhys{0}, page_size, Rights::All}), !TypeParam::Entry::allows(Rights::All));
    EXPECT_FALSE(this->table->unmap({this->at(0), 100}, this->flush()));
    EXPECT_FALSE(this->table->unmap({Address{~u64{0} - 4095}, 2 * page_size}, this->flush()));
    EXPECT_TRUE(this->table->map({this->at(0), HostPhys{0}, 0, Rights::Read}, this->flush())) << "nothing is easy";
}

REGISTER_TYPED_TEST_SUITE_P(TableHistoryTest, EveryStateInBetweenIsOldOrNew, WantOfMemoryLeavesEachPageOldOrNew,
                            TranslateAgreesWithTheWalkOfTheCpu, ALargePageTakesTheTablesPlaceAfterAFlush,
                            UnmappingGivesEmptyTablesBack, NothingIsFlushedWithoutNeed, NoDirtyBitIsLostInASplit,
                            RefusesWhatItCannotMap);

} // namespace support
