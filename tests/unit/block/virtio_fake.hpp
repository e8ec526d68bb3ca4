// SPDX-License-Identifier: MIT
#pragma once
// A virtio block device on PCI as virtio 1.2 describes it. What the driver does against the standard becomes a
// complaint; what a broken device does against it is a member to be set. It needs no GoogleTest: the fuzzer uses it
// too.
#include <algorithm>
#include <block/virtio.hpp>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace virtio_test {

using block::Ended;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

inline constexpr u64 VERSION_1 = u64{1} << 32, INDIRECT = u64{1} << 28, FLUSH = 1 << 9, BLK_SIZE = 1 << 6, RO = 1 << 5,
                     SEG_MAX = 1 << 2, SIZE_MAX_FEATURE = 1 << 1, CONFIG_WCE = 1 << 11, EVENT_INDEX = u64{1} << 29;

// Zeroed memory, of which only what is touched costs time.
class Memory {
public:
    explicit Memory(std::size_t size) : bytes_(static_cast<u8*>(std::calloc(size, 1))), size_(size) {}
    u8* data() { return bytes_.get(); }
    u8* begin() { return data(); }
    u8* end() { return data() + size_; }
    u8& operator[](std::size_t i) { return std::span(data(), size_)[i]; }
    operator std::span<u8>() { return {data(), size_}; }

private:
    struct Free {
        void operator()(u8* bytes) const { std::free(bytes); }
    };
    std::unique_ptr<u8, Free> bytes_;
    std::size_t size_;
};

class VirtioFake : public block::Function {
public:
    static constexpr u64 shared_size = 512 * 1024, reserve = 128 * 1024, shared_address = 0x4000'0000;
    static constexpr u64 ram_size = 2 * 1024 * 1024, ram_address = 0x12'3400'0000;
    static constexpr u64 disk_sectors = 2048;
    static constexpr u32 common_at = 0x100, isr_at = 0x200, notify_at = 0x400, config_at = 0x300;

    // What it is like; to be set before the driver starts.
    u64 features = VERSION_1 | INDIRECT | FLUSH | BLK_SIZE | SEG_MAX;
    u32 size_max = 0, seg_max = 126, blk_size = 512;
    u64 capacity = disk_sectors; // of 512 bytes
    u16 most_queue = 256, notify_off = 3;
    u32 notify_multiplier = 4;
    std::string serial = "SN-0123456789";
    std::vector<u8> space = std::vector<u8>(256); // PCI configuration space
    u64 bar_sizes[6] = {0x1000, 0, 0, 0, 0x4000, 0};

    // Faults.
    bool is_gone = false, refuses_features = false, has_no_vector = false, holds = false, suppresses_doorbells = false;
    bool answers_id = true;
    u32 reset_reads = 0;                  // how many reads of the status do not find the reset ended
    bool never_resets = false;            //
    u32 changing_generations = 0;         // how many reads find another one
    std::map<u64, u8> bad_sectors;        // 512-byte sector: status
    std::function<void(u32&)> on_used_id; // may change the id before it is stored

    // What was seen.
    std::vector<std::string> complaints;
    Memory disk{disk_sectors * 512}, ram{ram_size}, shared_memory{shared_size};
    std::vector<std::string> lines;
    u32 doorbells = 0, flushes = 0, resets = 0, interrupts = 0;
    bool is_bus_master = false;
    u8 status = 0;

    VirtioFake() {
        describe();
        std::fill(shared_memory.end() - reserve, shared_memory.end(), u8{0xee});
    }

    virtual ~VirtioFake() = default;

    // Fills configuration space.
    void describe() {
        std::ranges::fill(space, u8{0});
        put<u32>(0, 0x1042'1af4);
        put<u32>(4, 1U << 20);
        put<u32>(0x34, 0x40);
        put<u32>(0x10, 0xc001); // ports, as those of a transitional device
        put<u32>(0x20, 0xfebf'000c);
        put<u32>(0x40, 0x0000'5011); // MSI-X
        add_capability(0x50, 0x60, 5, 0, 0, 0);
        add_capability(0x60, 0x70, 1, 4, common_at, 0x38);
        add_capability(0x70, 0x80, 3, 4, isr_at, 1);
        add_capability(0x80, 0xa0, 2, 4, notify_at, 0x1000, 20);
        put<u32>(0x90, notify_multiplier);
        add_capability(0xa0, 0, 4, 4, config_at, 0x3c);
    }
    void add_capability(u32 at, u32 next, u32 type, u32 bar, u32 offset, u32 size, u32 length = 16) {
        put<u32>(at, 0x09 | next << 8 | length << 16 | type << 24);
        put<u32>(at + 4, bar);
        put<u32>(at + 8, offset);
        put<u32>(at + 12, size);
    }
    template <typename T> void put(u32 at, T value) { std::memcpy(space.data() + at, &value, sizeof(T)); }

    void complain(std::string const& text) { complaints.push_back(text); }
    void expect(bool condition, char const* text) {
        if (!condition) complain(text);
    }
    bool is_reserve_untouched() {
        return std::all_of(shared_memory.end() - reserve, shared_memory.end(), [](u8 byte) { return byte == 0xee; });
    }

    // --- block::Function
    u32 read(u32 bar, u32 offset, u32 width) override {
        u32 const mask = width == 4 ? ~u32{0} : (u32{1} << 8 * width) - 1;
        check_access(bar, offset, width);
        if (is_gone) return mask;
        if (offset >= config_at && offset < config_at + 0x3c) return read_config(offset - config_at, width) & mask;
        if (offset < common_at || offset >= common_at + 0x38) {
            complain("reads no register");
            return 0;
        }
        return read_common(offset - common_at, width) & mask;
    }
    void write(u32 bar, u32 offset, u32 width, u32 value) override {
        check_access(bar, offset, width);
        if (is_gone) return;
        if (offset >= notify_at && offset < notify_at + 0x1000) return doorbell(offset, width, value);
        if (offset >= common_at && offset < common_at + 0x38) return write_common(offset - common_at, width, value);
        complain("writes no register");
    }
    u64 bar_size(u32 bar) const override { return bar < 6 ? bar_sizes[bar] : 0; }
    u32 configuration(u32 offset) override {
        expect(offset % 4 == 0 && offset < 256, "reads beyond configuration space");
        u32 value = ~u32{0};
        if (offset + 4 <= space.size() && !is_gone) std::memcpy(&value, space.data() + offset, 4);
        return value;
    }
    void set_bus_master(bool on) override {
        expect(!on || (!is_resetting_ && !is_enabled_ && resets != 0), "masters the bus before the reset has ended");
        is_bus_master = on;
    }
    void log(std::string_view line) override { lines.emplace_back(line); }
    Shared shared() override { return {shared_memory, shared_address}; }
    u64 ticks_per_millisecond() const override { return 1000; }

    // --- The device's work
    struct Descriptor {
        u64 address;
        u32 size;
        u16 flags, next;
        bool operator==(Descriptor const&) const = default;
    };
    struct Chain {
        u16 head;
        std::vector<Descriptor> parts;     // with those of the table
        std::vector<Descriptor> in_memory; // as they were taken, at `places`
        std::vector<u64> places;
    };
    std::vector<Chain> pending;

    void take() {
        if (is_gone || (status & 4) == 0 || size_ == 0) return;
        u16 const index = load<u16>(driver_ + 2);
        expect(static_cast<u16>(index - taken_) <= size_, "makes more available than the queue holds");
        for (; taken_ != index && complaints.empty(); taken_++)
            take_chain(load<u16>(driver_ + 4 + taken_ % size_ * u64{2}));
    }
    // Ends the request at `at` of the pending ones.
    void complete(std::size_t at = 0) {
        Chain const chain = pending.at(at);
        pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(at));
        for (std::size_t i = 0; i < chain.places.size(); i++)
            expect(load<Descriptor>(chain.places[i]) == chain.in_memory[i], "changes a chain that is under way");
        u32 const written = serve(chain);
        u32 id = chain.head;
        if (on_used_id) on_used_id(id);
        push_used(id, written);
    }
    void push_used(u32 id, u32 written) {
        if (size_ == 0) return;
        store<u32>(device_ + 4 + used_ % size_ * u64{8}, id);
        store<u32>(device_ + 8 + used_ % size_ * u64{8}, written);
        store<u16>(device_ + 2, ++used_);
        interrupts++;
    }
    void set_used_index(u16 index) { store<u16>(device_ + 2, index); }
    void complete_all() {
        while (!pending.empty() && (status & 4) != 0)
            complete();
    }
    u64 used_address() const { return device_; }

    u8* reach(u64 address, u64 size) {
        if (!is_bus_master) complain("lets the device work without the bus");
        if (address >= shared_address && size <= shared_size && address - shared_address <= shared_size - size)
            return shared_memory.data() + (address - shared_address);
        if (address >= ram_address && size <= ram_size && address - ram_address <= ram_size - size)
            return ram.data() + (address - ram_address);
        complain("gives an address that is not memory");
        return nullptr;
    }

private:
    template <typename T> T load(u64 address) {
        T value{};
        if (u8 const* at = reach(address, sizeof(T))) std::memcpy(&value, at, sizeof(T));
        return value;
    }
    template <typename T> void store(u64 address, T value) {
        if (u8* at = reach(address, sizeof(T))) std::memcpy(at, &value, sizeof(T));
    }
    bool has(u64 feature) const { return (accepted_ & feature) != 0; }

    void check_access(u32 bar, u32 offset, u32 width) {
        expect(width == 1 || width == 2 || width == 4, "uses a width that there is not");
        expect(bar < 6 && offset % width == 0 && u64{offset} + width <= bar_size(bar), "leaves the BAR");
        expect(bar == 4, "uses a BAR without registers");
    }
    // [virtio/1.2] 2.5.1, 5.2.4
    u32 read_config(u32 offset, u32 width) {
        expect((status & 2) != 0, "reads the configuration before it is the driver");
        expect(width == 4, "reads a field of 32 bits by another width");
        switch (offset) {
        case 0: return static_cast<u32>(capacity);
        case 4: return static_cast<u32>(capacity >> 32);
        case 8: expect((features & SIZE_MAX_FEATURE) != 0, "reads size_max"); return size_max;
        case 12: expect((features & SEG_MAX) != 0, "reads seg_max"); return seg_max;
        case 20: expect((features & BLK_SIZE) != 0, "reads blk_size"); return blk_size;
        default: complain("reads a field of the configuration that is not offered"); return 0;
        }
    }
    static u32 width_of(u32 offset) {
        switch (offset) {
        case 20:
        case 21: return 1;
        case 16:
        case 18:
        case 22:
        case 24:
        case 26:
        case 28:
        case 30: return 2;
        default: return 4;
        }
    }
    u32 read_common(u32 offset, u32 width) {
        expect(width == width_of(offset), "reads a register by another width than its own");
        expect(!is_resetting_ || offset == 20, "reads before the reset has ended");
        switch (offset) {
        case 4: return feature_select_ < 2 ? static_cast<u32>(features >> 32 * feature_select_) : 0;
        case 20: return read_status();
        case 21: return changing_generations != 0 ? changing_generations-- : 0;
        case 24: return size_ != 0 ? size_ : most_queue;
        case 26: return vector_;
        case 28: return is_enabled_;
        case 30: return notify_off;
        default: complain("reads register " + std::to_string(offset)); return 0;
        }
    }
    u32 read_status() {
        if (!is_resetting_) return status;
        if (never_resets) return status | 1;
        if (reset_reads != 0) {
            reset_reads--;
            return status | 1;
        }
        is_resetting_ = false;
        return status = 0;
    }
    void write_common(u32 offset, u32 width, u32 value) {
        expect(width == width_of(offset), "writes a register by another width than its own");
        expect(!is_resetting_ || (offset == 20 && value == 0), "writes before the reset has ended");
        bool const is_early = (status & 3) == 3 && (status & 8) == 0;
        bool const is_setup = (status & 8) != 0 && (status & 4) == 0;
        switch (offset) {
        case 0: feature_select_ = value; break;
        case 8: driver_select_ = value; break;
        case 12:
            expect(is_early, "accepts features at another time");
            set_accepted(value);
            break;
        case 16: expect(value == 0xffff, "asks for an interrupt at changes"); break;
        case 20: write_status(static_cast<u8>(value)); break;
        case 22: expect(value == 0, "selects another queue"); break;
        case 24:
            expect(is_setup && !is_enabled_, "sets a queue's size at another time");
            expect(value != 0 && (value & (value - 1)) == 0 && value <= most_queue, "sets a size that is not allowed");
            size_ = static_cast<u16>(value);
            break;
        case 26: vector_ = has_no_vector ? 0xffff : static_cast<u16>(value); break;
        case 28: enable(value); break;
        default: write_address(offset, value); break;
        }
    }
    void write_address(u32 offset, u32 value) {
        expect((status & 8) != 0 && (status & 4) == 0 && !is_enabled_, "moves a queue at another time");
        u64* const fields[] = {&descriptors_, &driver_, &device_};
        if (offset < 32 || offset >= 56) return complain("writes register " + std::to_string(offset));
        u64& field = *fields[(offset - 32) / 8];
        field = offset % 8 == 0 ? (field & ~u64{0xffff'ffff}) | value : (field & 0xffff'ffff) | u64{value} << 32;
    }
    void set_accepted(u32 value) {
        expect(driver_select_ < 2, "accepts features that there are not");
        u32 const shift = 32 * driver_select_;
        expect((value & ~static_cast<u32>(features >> shift)) == 0, "accepts features that are not offered");
        accepted_ = (accepted_ & ~(u64{0xffff'ffff} << shift)) | u64{value} << shift;
    }
    void enable(u32 value) {
        expect(value == 1 && !is_enabled_ && (status & 8) != 0, "enables a queue at another time");
        expect(size_ != 0 && vector_ == 0, "enables a queue without size or vector");
        expect(descriptors_ % 16 == 0 && driver_ % 2 == 0 && device_ % 4 == 0, "enables a queue that is not aligned");
        expect(is_bus_master, "enables a queue before it masters the bus");
        is_enabled_ = true;
    }
    // [virtio/1.2] 3.1.1
    void write_status(u8 value) {
        if (value == 0) {
            resets++;
            is_resetting_ = true;
            is_enabled_ = false;
            pending.clear();
            taken_ = used_ = size_ = vector_ = 0;
            accepted_ = descriptors_ = driver_ = device_ = 0;
            return;
        }
        expect((value & status & 0x3f) == (status & 0x3f), "takes a bit of the status back");
        u8 const added = value & ~status;
        expect(added == 1 || (added == 2 && status == 1) || (added == 8 && status == 3) || (added == 4 && status == 11),
               "goes through the status in another order");
        if (added == 8) {
            expect(has(VERSION_1), "does not accept VERSION_1");
            if (refuses_features) value &= ~8;
        }
        if (added == 4) expect(is_enabled_, "starts without a queue");
        status = value;
        if (added == 4 && suppresses_doorbells) store<u16>(device_, 1);
    }
    void doorbell(u32 offset, u32 width, u32 value) {
        expect((status & 4) != 0, "notifies before DRIVER_OK");
        expect(offset == notify_at + notify_off * notify_multiplier && width == 2 && value == 0, "notifies wrongly");
        doorbells++;
        take();
        if (!holds) complete_all();
    }

    void take_chain(u16 head) {
        Chain chain{head, {}, {}, {}};
        expect(head < size_, "makes a head available that is none");
        for (Chain const& other : pending)
            expect(other.head != head, "makes a head available that is under way");
        u64 place = descriptors_ + head * u64{16}, base = descriptors_;
        u32 count = size_;
        bool is_table = false;
        for (;;) {
            auto const part = load<Descriptor>(place);
            for (Chain const& other : pending)
                expect(std::ranges::find(other.places, place) == other.places.end(), "uses a descriptor twice");
            chain.places.push_back(place);
            chain.in_memory.push_back(part);
            expect((part.flags & ~7) == 0, "sets flags that there are not");
            if ((part.flags & 4) != 0) {
                expect(has(INDIRECT) && !is_table && part.flags == 4, "uses a table where it may not");
                expect(part.size != 0 && part.size % 16 == 0, "uses a table of a size that is not allowed");
                base = place = part.address;
                count = part.size / 16;
                is_table = true;
                if (!complaints.empty()) return;
                continue;
            }
            chain.parts.push_back(part);
            if ((part.flags & 1) == 0) break;
            expect(part.next < count, "links to no descriptor");
            place = base + part.next * u64{16};
            if (chain.parts.size() > size_ || !complaints.empty()) break;
        }
        check_chain(chain);
        if (complaints.empty()) pending.push_back(chain);
    }
    void check_chain(Chain const& chain) {
        expect(chain.parts.size() <= size_, "makes a chain that is longer than the queue");
        expect(chain.parts.size() >= 2, "makes a chain without header or status");
        if (!complaints.empty()) return;
        bool is_writable = false;
        for (Descriptor const& part : chain.parts) {
            expect(part.size != 0, "has an empty part");
            expect(!is_writable || (part.flags & 2) != 0, "has a readable part after a writable one");
            is_writable = (part.flags & 2) != 0;
            (void)reach(part.address, part.size);
        }
        expect(chain.parts.front().size == 16 && (chain.parts.front().flags & 2) == 0, "has no header");
        expect(chain.parts.back().size == 1 && is_writable, "has no status");
        std::size_t const data = chain.parts.size() - 2;
        expect(data <= std::max(seg_max, 1U) || (features & SEG_MAX) == 0, "has more segments than seg_max");
        for (std::size_t i = 1; i <= data; i++)
            expect(chain.parts[i].size <= size_max || (features & SIZE_MAX_FEATURE) == 0, "is larger than size_max");
    }
    // Returns how many bytes were written.
    u32 serve(Chain const& chain) {
        if (!complaints.empty()) return 0;
        u32 const type = load<u32>(chain.parts[0].address);
        u64 const sector = load<u64>(chain.parts[0].address + 8);
        expect(load<u32>(chain.parts[0].address + 4) == 0, "has a header with reserved bits");
        std::vector<Descriptor> const data(chain.parts.begin() + 1, chain.parts.end() - 1);
        u8 result = 0;
        u32 written = 0;
        if (type == 0 || type == 1) {
            result = move(type == 1, sector, data);
            if (type == 0)
                for (Descriptor const& part : data)
                    written += part.size;
        } else if (type == 4) {
            expect(has(FLUSH) && sector == 0 && data.empty(), "flushes wrongly");
            flushes++;
        } else if (type == 8) {
            expect(data.size() == 1 && data[0].size == 20 && (data[0].flags & 2) != 0, "asks for the serial wrongly");
            if (!complaints.empty()) return 0;
            if (!answers_id) result = 2;
            char text[20] = {};
            std::memcpy(text, serial.data(), std::min<std::size_t>(serial.size(), 20));
            if (answers_id) std::memcpy(reach(data[0].address, 20), text, 20);
        } else {
            complain("asks for a request that there is not");
        }
        store<u8>(chain.parts.back().address, result);
        return written + 1;
    }
    u8 move(bool is_write, u64 sector, std::vector<Descriptor> const& data) {
        expect(!is_write || (features & RO) == 0, "writes to a read-only disk");
        u64 size = 0, at = sector * 512;
        for (Descriptor const& part : data) {
            expect(((part.flags & 2) != 0) != is_write, "moves data in the other direction");
            size += part.size;
        }
        expect(size != 0 && size % 512 == 0, "moves a part of a sector");
        u64 const sectors = std::min(capacity, disk_sectors);
        expect(sector <= sectors && size / 512 <= sectors - sector, "moves beyond the disk");
        if (!complaints.empty()) return 1;
        for (u64 i = sector; i < sector + size / 512; i++)
            if (bad_sectors.contains(i)) return bad_sectors[i];
        for (Descriptor const& part : data) {
            u8* const memory = reach(part.address, part.size);
            if (is_write)
                std::memcpy(disk.data() + at, memory, part.size);
            else
                std::memcpy(memory, disk.data() + at, part.size);
            at += part.size;
        }
        return 0;
    }

    bool is_resetting_ = false, is_enabled_ = false;
    u32 feature_select_ = 0, driver_select_ = 0;
    u64 accepted_ = 0, descriptors_ = 0, driver_ = 0, device_ = 0;
    u16 size_ = 0, vector_ = 0, taken_ = 0, used_ = 0;
};

} // namespace virtio_test
