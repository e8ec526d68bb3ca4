// SPDX-License-Identifier: MIT
#pragma once
// Fills the catalogue of the machine's disks: waits for the controllers and reads the tables of their disks, one read
// of each controller at a time.
#include <storage/controllers.hpp>
#include <storage/gpt.hpp>

namespace storage {

class CatalogueWriter final : public Controllers::Client {
public:
    // Both outlive this object, which is too large for the stack. `catalogue` is zeroed.
    CatalogueWriter(Controllers& controllers, lib::service::Catalogue& catalogue)
        : controllers_(controllers), catalogue_(catalogue) {}
    CatalogueWriter(CatalogueWriter const&) = delete;
    CatalogueWriter& operator=(CatalogueWriter const&) = delete;

    // A controller that `controllers` has, and memory for what is read of its disks: 16 KiB, from a page's begin on.
    void add(u32 number, block::Function::Shared buffer);
    // Goes on with every controller; the caller polls before it and rings after it. True once for each time that the
    // catalogue has changed and is complete: when everything has been read, and when a controller fails later.
    bool turn(u64 now);

    void ended(u32 token, block::Status status) override;

private:
    enum class Reading : u8 { None, UnderWay, Good, Failed };
    struct Unit {
        bool is_added = false;
        bool is_done = false; // all of its disks, or it has failed
        bool has_failed = false;
        bool has_table = false; // `table` is about `disk`
        Reading reading = Reading::None;
        block::Function::Shared buffer{};
        u32 disk = 0;
        u32 read_bytes = 0, asked_bytes = 0; // of the table's range
        PartitionTable table{};
    };
    void advance(u32 number, block::Controller const& controller, u64 now);
    void take_read(Unit& unit, block::DiskFacts const& disk);
    bool read(u32 number, block::DiskFacts const& disk, block::Limits const& limits, u64 now);
    void fail(u32 number, block::Controller const& controller);
    void append(u32 number, block::DiskFacts const& disk);
    void append_partitions(lib::service::DiskEntry& entry, PartitionTable const& table);
    lib::service::DiskEntry* new_entry(u32 number, u32 unit);
    void change();
    void complete();

    Controllers& controllers_;
    lib::service::Catalogue& catalogue_;
    bool has_changed_ = true, is_too_much_ = false;
    std::array<Unit, lib::service::max_controllers> units_{};
};

} // namespace storage
