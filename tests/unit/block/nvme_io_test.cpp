// SPDX-License-Identifier: MIT
// Reads and writes through an NVMe controller against a model of its disks.
#include <cstring>

#include "nvme_world.hpp"

namespace {

using namespace block_test;

struct Transfer {
    Operation operation;
    u32 disk;
    u64 sector, bytes;
    std::vector<Piece> pieces;
};

// Random commands, no two of which touch the same sectors or the same memory at one time.
class Player {
public:
    explicit Player(NvmeWorld& to, u32 seed) : world_(to), random_(seed) {
        for (u32 const id : world_.ids) {
            NvmeNamespace const* const one = find(id);
            u8 const* const bytes = world_.fake.medium(id);
            models_.emplace_back(bytes, bytes + (one->sectors << one->exponent));
        }
        for (u8& byte : world_.fake.ram)
            byte = static_cast<u8>(random_());
    }

    void play(u32 count) {
        for (u32 i = 0; i < count; i++) {
            while (under_way_.size() < 1 + random_() % 80 && submit())
                if (random_() % 4 == 0) break;
            world_.driver.ring();
            world_.turn();
            world_.fake.now += random_() % 50;
            take_ends();
        }
        world_.driver.ring();
        EXPECT_TRUE(world_.drain());
        take_ends();
        EXPECT_TRUE(under_way_.empty());
        for (std::size_t i = 0; i < models_.size(); i++)
            EXPECT_EQ(std::memcmp(world_.fake.medium(world_.ids[i]), models_[i].data(), models_[i].size()), 0);
    }
    u32 transfers = 0;

private:
    NvmeNamespace const* find(u32 id) const {
        for (NvmeNamespace const& one : world_.fake.setup.namespaces)
            if (one.id == id) return &one;
        return nullptr;
    }
    u32 below(u64 limit) { return static_cast<u32>(random_() % limit); }

    // One area of memory per place; pieces are shuffled pages of it.
    bool submit() {
        constexpr u32 places = 6;
        constexpr u64 area = ram_size / places & ~(lib::page_size - 1);
        u32 const place = below(places);
        if (used_[place]) return true;
        auto const limits = world_.driver.limits();
        Transfer out{static_cast<Operation>(below(8) == 0 ? 2 : below(2)), below(models_.size()), 0, 0, {}};
        auto const& disk = world_.driver.disks()[out.disk];
        if (out.operation != Operation::Flush) {
            u64 const most = std::min<u64>({limits.most_bytes, models_[out.disk].size(), area / 2});
            u64 count = 1 + below(below(2) == 0 ? std::min<u64>(16, most / disk.sector_size) : most / disk.sector_size);
            out.bytes = count * disk.sector_size;
            out.sector = below(disk.sectors - count + 1);
            if (is_taken(out)) return true;
            out.pieces = pieces(ram_begin + place * area, area, out.bytes);
            EXPECT_LE(out.pieces.size(), limits.most_pieces);
        }
        u32 const tag = world_.next_tag();
        if (out.operation == Operation::Write) remember(out);
        if (!world_.submit(out.operation, out.disk, out.sector, out.pieces)) {
            if (out.operation == Operation::Write) before_.erase(tag);
            return false;
        }
        if (out.operation == Operation::Write) put(out);
        used_[place] = true;
        places_[tag] = place;
        under_way_[tag] = out;
        transfers++;
        return true;
    }
    bool is_taken(Transfer const& wanted) const {
        u64 const size = world_.driver.disks()[wanted.disk].sector_size;
        for (auto const& [tag, other] : under_way_)
            if (other.disk == wanted.disk && other.sector < wanted.sector + wanted.bytes / size &&
                wanted.sector < other.sector + other.bytes / size)
                return true;
        return false;
    }
    // The first piece may begin anywhere, the last one may end anywhere; pages in between are whole.
    std::vector<Piece> pieces(u64 begin, u64 area, u64 bytes) {
        std::vector<u64> pages;
        for (u64 i = 0; i < area / lib::page_size; i++)
            pages.push_back(begin + i * lib::page_size);
        if (below(2) == 0) std::shuffle(pages.begin(), pages.end(), random_);
        std::vector<Piece> result;
        u64 offset = below(2) == 0 ? 0 : below(1024) * 4;
        for (u32 i = 0; bytes != 0; i++) {
            u64 const size = std::min(bytes, lib::page_size - offset);
            u64 const at = pages[i] + offset;
            if (!result.empty() && result.back().address + result.back().size == at && below(4) != 0)
                result.back().size += static_cast<u32>(size);
            else
                result.push_back({at, static_cast<u32>(size)});
            bytes -= size;
            offset = 0;
        }
        return result;
    }
    u8* ram(Piece const& piece) { return world_.fake.ram.data() + (piece.address - ram_begin); }
    u8* model(Transfer const& of) {
        return models_[of.disk].data() + of.sector * world_.driver.disks()[of.disk].sector_size;
    }
    void remember(Transfer const& of) { before_[world_.next_tag()].assign(model(of), model(of) + of.bytes); }
    void put(Transfer const& of) {
        u8* to = model(of);
        for (Piece const& piece : of.pieces) {
            std::memcpy(to, ram(piece), piece.size);
            to += piece.size;
        }
    }
    void take_ends() {
        for (; taken_ < world_.ends.size(); taken_++) {
            auto const& end = world_.ends[taken_];
            auto const at = under_way_.find(end.tag);
            ASSERT_NE(at, under_way_.end());
            Transfer const& of = at->second;
            u8* bytes = of.operation == Operation::Flush ? nullptr : model(of);
            bool const is_read_only = world_.driver.disks()[of.disk].is_read_only;
            if (of.operation == Operation::Write && is_read_only) {
                EXPECT_EQ(end.status, Status::Failed);
                std::memcpy(bytes, before_[end.tag].data(), of.bytes);
            } else {
                EXPECT_EQ(end.status, Status::Good);
            }
            for (Piece const& piece : of.pieces) {
                if (of.operation == Operation::Read) {
                    EXPECT_EQ(std::memcmp(ram(piece), bytes, piece.size), 0);
                }
                bytes += piece.size;
                for (u32 i = 0; i < piece.size; i += 64)
                    ram(piece)[i] = static_cast<u8>(random_()); // the memory is ours again
            }
            used_[places_[end.tag]] = false;
            before_.erase(end.tag);
            under_way_.erase(at);
        }
    }

    NvmeWorld& world_;
    std::minstd_rand random_;
    std::vector<std::vector<u8>> models_;
    std::map<u32, Transfer> under_way_;
    std::map<u32, u32> places_;
    std::map<u32, std::vector<u8>> before_;
    std::array<bool, 6> used_{};
    std::size_t taken_ = 0;
};

void play(NvmeSetup const& setup, u32 seed, u32 room = 64) {
    NvmeWorld world(setup);
    world.room = room;
    ASSERT_TRUE(world.run_until(State::Ready));
    Player player(world, seed);
    player.play(2000);
    EXPECT_GT(player.transfers, 500U);
    EXPECT_EQ(world.driver.state(), State::Ready);
    EXPECT_EQ(world.driver.deadline(), Controller::never);
    EXPECT_EQ(world.fake.starts, 1U);
}

TEST(NvmeIo, RandomTransfersMatchTheModel) {
    play({.namespaces = {{.sectors = 8192}}}, 1);
    play({.namespaces = {{.sectors = 1000, .exponent = 12}}}, 2);
    play({.namespaces = {{.id = 1, .sectors = 4000},
                         {.id = 3, .sectors = 500, .exponent = 12},
                         {.id = 4, .sectors = 900, .is_read_only = true}}},
         3);
}
TEST(NvmeIo, RandomTransfersMatchTheModelOnTinyQueues) {
    play({.queue_entries = 2}, 4);
    play({.queue_entries = 5, .mdts = 1}, 5);
}
TEST(NvmeIo, RandomTransfersMatchTheModelWithLittleRoomForEnds) { play({}, 6, 1); }

TEST(NvmeIo, LargestTransferFillsTheList) {
    NvmeWorld world({.namespaces = {{.sectors = 4096}}});
    ASSERT_TRUE(world.run_until(State::Ready));
    auto const limits = world.driver.limits();
    // As many pieces as are allowed, in descending pages.
    std::vector<Piece> pieces;
    for (u32 i = 0; i < limits.most_pieces; i++) {
        u64 const at = ram_begin + (limits.most_pieces - i) * 2 * lib::page_size;
        pieces.push_back({at, lib::page_size});
    }
    pieces.front() = {pieces.front().address + 4092, 4};
    pieces.back().size = 4092;
    ASSERT_TRUE(world.submit(Operation::Read, 0, 5, pieces));
    ASSERT_TRUE(world.submit(Operation::Write, 0, 2000, {{ram_begin + 2 * lib::MiB, limits.most_bytes}}));
    world.driver.ring();
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.good(), 2U);
}

TEST(NvmeIo, AsManyAsTheDepthAreTaken) {
    NvmeWorld world;
    ASSERT_TRUE(world.run_until(State::Ready));
    world.fake.holds_back = true;
    u32 const depth = world.driver.limits().depth;
    for (u32 i = 0; i < depth; i++)
        ASSERT_TRUE(world.submit_page(Operation::Read, i));
    EXPECT_FALSE(world.submit_page(Operation::Read, depth));
    world.driver.ring();
    world.turn();
    EXPECT_FALSE(world.submit_page(Operation::Read, depth));
    world.fake.holds_back = false;
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.good(), depth);
    EXPECT_TRUE(world.submit_page(Operation::Read, depth));
    world.driver.ring();
    ASSERT_TRUE(world.drain());
}

TEST(NvmeIo, DeviceHearsOfCommandsAtTheRingOnly) {
    NvmeWorld world;
    ASSERT_TRUE(world.run_until(State::Ready));
    ASSERT_TRUE(world.submit_page(Operation::Read, 0));
    for (u32 i = 0; i < 20; i++)
        world.turn();
    EXPECT_EQ(world.fake.commands, 0U);
    world.driver.ring();
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.fake.commands, 1U);
    world.driver.ring(); // without news; the fake objects to a doorbell
}

TEST(NvmeIo, IdleControllerWantsNoCalls) {
    NvmeWorld world;
    ASSERT_TRUE(world.run_until(State::Ready));
    EXPECT_EQ(world.driver.deadline(), Controller::never);
    ASSERT_TRUE(world.submit_page(Operation::Read, 0));
    EXPECT_EQ(world.driver.deadline(), world.fake.now + block::Nvme::look_milliseconds * ticks_per_millisecond);
    world.driver.ring();
    ASSERT_TRUE(world.drain());
    EXPECT_EQ(world.driver.deadline(), Controller::never);
}

TEST(NvmeIo, FailedCommandsSayNothingAboutOthers) {
    NvmeWorld world;
    ASSERT_TRUE(world.run_until(State::Ready));
    for (u16 const status : {u16{0x281}, u16{0x001}, u16{0x7ff}, u16{0x4000}}) { // the last one has only the bit "more"
        world.ends.clear();
        world.fake.status = status;
        ASSERT_TRUE(world.submit_page(Operation::Read, 0));
        world.driver.ring();
        ASSERT_TRUE(world.drain());
        world.fake.status.reset();
        ASSERT_TRUE(world.submit_page(Operation::Read, 1));
        world.driver.ring();
        ASSERT_TRUE(world.drain());
        ASSERT_EQ(world.ends.size(), 2U);
        EXPECT_EQ(world.ends[0].status, (status & 0x7ff) == 0 ? Status::Good : Status::Failed);
        EXPECT_EQ(world.ends[1].status, Status::Good);
    }
    EXPECT_EQ(world.fake.starts, 1U);
}

TEST(NvmeIo, FailedCommandsAreLoggedFewTimes) {
    NvmeWorld world;
    ASSERT_TRUE(world.run_until(State::Ready));
    world.fake.status = 0x281;
    for (u32 i = 0; i < 500; i++) {
        ASSERT_TRUE(world.submit_page(Operation::Read, 0));
        world.driver.ring();
        ASSERT_TRUE(world.drain());
    }
    EXPECT_EQ(world.failed(), 500U);
    EXPECT_LE(world.fake.lines.size(), 8U);
}

} // namespace
