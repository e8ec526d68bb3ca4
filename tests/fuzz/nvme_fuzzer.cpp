// SPDX-License-Identifier: MIT
// An NVMe controller whose registers, answers and writes to the shared memory are the input. It often answers well, so
// that its driver gets far. Each command ends exactly once, each call does a bounded amount of work, and what the
// driver says of disks and limits is possible and stays.
#include "input.hpp"
#include "require.hpp"

#include <bit>
#include <block/nvme.hpp>
#include <memory>
#include <set>
#include <vector>

namespace {

using block::Controller;
using fuzz::Input;
using fuzz::require;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;
using State = Controller::State;

constexpr u64 ticks = 1000, shared_begin = 0x5000'0000, shared_size = block::Nvme::shared_pages * lib::page_size;
constexpr u32 most_accesses = 150, most_lines = 12; // of one poll

struct Queue {
    u64 submissions = 0, completions = 0;
    u32 size = 0, tail = 0, done = 0; // tail: the driver's doorbell; done: commands that have been answered
    u32 end = 0;
    u8 phase = 1;
};

class Device final : public block::Function {
public:
    explicit Device(Input& input) : input_(input), bytes_(std::make_unique<Page[]>(block::Nvme::shared_pages)) {
        u8 const kind = input_.take<u8>();
        capabilities_ = 63 | u64{1} << 37 | u64{4} << 24;
        if ((kind & 1) != 0) capabilities_ = input_.take<u64>() | u64{1} << 37;
        if ((kind & 6) == 6) bar_size_ = input_.take<u16>() & ~3U;
    }

    u32 read(u32 bar, u32 offset, u32 width) override {
        check_access(bar, offset, width);
        if (is_gone) return ~0U;
        u8 const kind = input_.take<u8>(); // 0 at the input's end
        if (kind >= 0xf8) return kind == 0xff ? ~0U : input_.take<u32>();
        switch (offset) {
        case 0x00: return static_cast<u32>(capabilities_);
        case 0x04: return static_cast<u32>(capabilities_ >> 32);
        case 0x14: return control_;
        case 0x1c: return (control_ & 1) | (kind == 0xf7 ? 2 : 0);
        default: return 0;
        }
    }
    void write(u32 bar, u32 offset, u32 width, u32 value) override {
        check_access(bar, offset, width);
        if (offset == 0x14) {
            control_ = value;
            if ((value & 1) != 0) queues_[1] = {};
        } else if (offset == 0x28) {
            queues_[0] = {.submissions = value, .size = 16};
        } else if (offset == 0x30) {
            queues_[0].completions = value;
        } else if (offset >= 0x1000) {
            u32 const index = (offset - 0x1000) / (4U << (capabilities_ >> 32 & 15));
            if (index % 2 == 0 && index < 4) queues_[index / 2].tail = value;
        }
    }
    u64 bar_size(u32 bar) const override { return bar == 0 ? bar_size_ : 0; }
    u32 configuration(u32) override { return ~0U; }
    void set_bus_master(bool on) override { is_bus_master = on; }
    void log(std::string_view line) override {
        require(line.size() <= 120);
        lines++;
    }
    Shared shared() override { return {{bytes_[0].bytes, shared_size}, shared_begin}; }
    u64 ticks_per_millisecond() const override { return ticks; }

    // Answers the next command of a queue; as it wants to if `is_good`.
    void answer(u32 number, bool is_good) {
        Queue& queue = queues_[number];
        if (queue.size == 0 || queue.done == queue.tail) return;
        u8* const entry = place(queue.submissions + queue.done * 64, 64);
        if (entry == nullptr) return;
        queue.done = (queue.done + 1) % queue.size;
        u32 words[16];
        std::memcpy(words, entry, 64);
        if (number == 0) play_admin(words);
        put_end(queue, static_cast<u16>(words[0] >> 16), is_good ? u16{0} : input_.take<u16>());
    }
    void forge(u32 number) { put_end(queues_[number], input_.take<u8>(), input_.take<u16>()); }
    void scribble() {
        u32 const at = input_.take<u32>() % (shared_size - 8);
        u64 const value = input_.take<u64>();
        std::memcpy(bytes_[0].bytes + at, &value, 8);
    }

    bool is_gone = false, is_bus_master = false;
    u32 accesses = 0, lines = 0;

private:
    struct Page {
        alignas(lib::page_size) u8 bytes[lib::page_size];
    };

    void check_access(u32 bar, u32 offset, u32 width) {
        require(bar == 0 && width == 4 && offset % 4 == 0 && u64{offset} + 4 <= bar_size_);
        accesses++;
    }
    u8* place(u64 address, u64 size) {
        if (address < shared_begin || address - shared_begin + size > shared_size) return nullptr;
        return bytes_[0].bytes + (address - shared_begin);
    }
    void put_end(Queue& queue, u16 id, u16 status) {
        if (queue.size == 0) return;
        u8* const at = place(queue.completions + queue.end * 16, 16);
        if (at == nullptr) return;
        u16 const words[2] = {id, static_cast<u16>(status << 1 | queue.phase)};
        std::memcpy(at + 12, words, 4);
        queue.end++;
        if (queue.end == queue.size) {
            queue.end = 0;
            queue.phase ^= 1;
        }
    }
    void play_admin(u32 const* words) {
        u64 const where = words[6] | u64{words[7]} << 32;
        if ((words[0] & 0xff) == 5) {
            queues_[1].completions = where;
        } else if ((words[0] & 0xff) == 1) {
            queues_[1].submissions = where;
            queues_[1].size = (words[10] >> 16) + 1;
        } else if ((words[0] & 0xff) == 6) {
            u8* const page = place(where, lib::page_size);
            if (page != nullptr) identify(words[10], page);
        }
    }
    template <typename T> static void put(u8* at, T value) { std::memcpy(at, &value, sizeof(T)); }
    void identify(u32 kind, u8* page) {
        if (kind == 0) {
            put(page, u64{0x1000});
            put(page + 128, u32{9} << 16);
        } else if (kind == 1) {
            put(page + 516, 2U);
            page[525] = 1;
        } else {
            put(page, 1U);
            put(page + 4, 2U);
        }
        // Single bytes, of those that mean something.
        constexpr u16 meaning[] = {0, 4, 7, 8, 23, 24, 26, 63, 77, 99, 128, 130, 131, 134, 516, 519, 525};
        for (u8 count = input_.take<u8>() % 16; count < 4 && count != 0; count--)
            page[meaning[input_.take<u8>() % std::size(meaning)]] = input_.take<u8>();
    }

    Input& input_;
    std::unique_ptr<Page[]> bytes_;
    u64 capabilities_ = 0, bar_size_ = lib::MiB;
    u32 control_ = 0;
    Queue queues_[2];
};

struct World {
    Input& input;
    Device device{input};
    block::Nvme driver{device};
    std::set<u32> live;
    std::vector<block::DiskFacts> known;
    bool was_ready = false;
    u64 now = 0;
    u32 tag = 0;

    explicit World(Input& from) : input(from) {}

    void poll(u32 room) {
        std::vector<block::Ended> ended(room); // ASan sees its end
        device.accesses = device.lines = 0;
        u32 const count = driver.poll(now, ended);
        require(count <= room && device.accesses <= most_accesses && device.lines <= most_lines);
        for (u32 i = 0; i < count; i++)
            require(live.erase(ended[i].tag) == 1);
        check();
    }
    void check() {
        u64 const deadline = driver.deadline();
        State const state = driver.state();
        require(state == State::Failed || (state == State::Ready && live.empty()) || deadline != Controller::never);
        require(live.empty() || deadline <= now + u64{block::Nvme::io_seconds} * 1000 * ticks);
        require(!live.empty() || state == State::Starting || deadline == Controller::never);
        require(state != State::Failed || (!device.is_bus_master && !driver.failure().empty()));
        auto const disks = driver.disks();
        if (was_ready) {
            require(disks.size() == known.size());
            for (std::size_t i = 0; i < known.size(); i++)
                require(std::memcmp(&disks[i], &known[i], sizeof(known[i])) == 0);
        } else if (state == State::Ready) {
            was_ready = true;
            known.assign(disks.begin(), disks.end());
        }
        if (state == State::Ready) check_facts();
    }
    void check_facts() const {
        auto const limits = driver.limits();
        require(limits.depth >= 1 && limits.depth < block::Nvme::entries && limits.most_pieces >= 2);
        require(limits.most_bytes >= lib::page_size && limits.most_bytes % lib::page_size == 0);
        for (block::DiskFacts const& disk : driver.disks()) {
            require(disk.sector_size >= 512 && disk.sector_size <= 4096 && std::has_single_bit(disk.sector_size));
            require(disk.sectors != 0 && disk.sectors <= ~u64{0} / disk.sector_size);
            require(disk.serial.back() == 0 && disk.model.back() == 0);
            for (char const c : disk.model)
                require(c == 0 || (c >= ' ' && c <= '~'));
        }
    }
    void submit() {
        u8 const shape = input.take<u8>();
        u32 const disk = driver.disks().empty() ? 0 : shape % static_cast<u32>(driver.disks().size());
        block::Command command{block::Operation::Flush, disk, tag, 0, {}};
        std::vector<block::Piece> pieces;
        if (disk < driver.disks().size() && shape % 8 != 0) {
            auto const& facts = driver.disks()[disk];
            u64 const most = std::min(driver.limits().most_bytes / u64{facts.sector_size}, facts.sectors);
            u64 const sectors = 1 + input.take<u16>() % most;
            u64 const bytes = sectors * facts.sector_size;
            command.operation = (shape & 1) != 0 ? block::Operation::Read : block::Operation::Write;
            command.sector = input.take<u64>() % (facts.sectors - sectors + 1);
            u64 offset = input.take<u16>() % 1024 * u64{4}, at = 0x1000'0000;
            for (u64 left = bytes; left != 0; at += 3 * lib::page_size, offset = 0) {
                u64 const size = std::min(left, (shape & 32) != 0 ? lib::page_size - offset : left);
                pieces.push_back({at + offset, static_cast<u32>(size)});
                left -= size;
            }
            command.pieces = pieces;
        }
        bool const is_taken = driver.submit(command, now);
        require(!is_taken || (driver.state() == State::Ready && live.size() < driver.limits().depth));
        if (is_taken) live.insert(tag++);
        check();
    }
    void act() {
        u8 const what = input.take<u8>();
        switch (what & 15) {
        case 0:
        case 1:
        case 2: device.answer(0, true); return poll(64);
        case 3:
        case 4: device.answer(1, true); return;
        case 5: device.answer(what >> 4 & 1, false); return;
        case 6: device.forge(what >> 4 & 1); return;
        case 7: device.scribble(); return;
        case 8:
        case 9:
        case 10: return submit();
        case 11: driver.ring(); return;
        case 12: return poll(what >> 4);
        case 13: now += input.take<u16>() * u64{16}; return poll(64);
        default:
            if (driver.deadline() != Controller::never) now = std::max(now, driver.deadline());
            return poll(64);
        }
    }
    // Nothing answers any more. What is under way ends within its time, and so does each start.
    void finish(bool is_gone) {
        device.is_gone = is_gone;
        for (u32 polls = 0; driver.deadline() != Controller::never; polls++) {
            require(polls < 4000);
            now = std::max(now + 500 * ticks, driver.deadline());
            poll(64);
        }
        require(live.empty() && driver.state() != State::Starting);
        require(driver.state() == State::Ready || !driver.submit({block::Operation::Flush, 0, tag, 0, {}}, now));
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    Input input({data, size});
    World world(input);
    while (!input.is_empty())
        world.act();
    world.finish((size & 1) != 0);
    return 0;
}
