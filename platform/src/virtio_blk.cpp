// SPDX-License-Identifier: MIT
#include <algorithm>
#include <platform/virtio_blk.hpp>

namespace platform {
namespace {

constexpr u16 BLOCK_DEVICE = 2;
constexpr u32 MASS_STORAGE_CLASS = 0x01'8000; // of no common kind

// [virtio/1.2] 5.2.3; the first is VIRTIO_BLK_F_SIZE_MAX, which is a macro of C already
constexpr u64 SEG_SIZE_MAX = 1 << 1, SEG_MAX = 1 << 2, RO = 1 << 5, BLK_SIZE = 1 << 6, FLUSH = 1 << 9,
              TOPOLOGY = 1 << 10, MQ = 1 << 12, DISCARD = 1 << 13, WRITE_ZEROES = 1 << 14;

// [virtio/1.2] 5.2.4. A field that belongs to a feature which is not offered is 0.
enum Field : u32 {
    capacity = 0, // 8 bytes
    size_max = 8,
    seg_max = 12,
    blk_size = 20,
    physical_block_exp = 24,
    min_io_size = 26, // 2 bytes
    num_queues = 34,  // 2 bytes
    max_discard_sectors = 36,
    max_discard_seg = 40,
    discard_sector_alignment = 44,
    max_write_zeroes_sectors = 48,
    max_write_zeroes_seg = 52,
};
constexpr u32 sector_size = 512, sectors_of_page_exp = 3, sectors_of_page = 1 << sectors_of_page_exp;
// A driver makes no request larger than its segments allow together. Two descriptors are for the header and the status.
constexpr u32 segments = VirtioBlk::queue_size - 2, bytes_of_segment = 256 * lib::KiB;
static_assert(segments * bytes_of_segment <= lib::max_disk_transfer);

u16 queue_count(DiskFacts const& facts) {
    return static_cast<u16>(std::clamp<u32>(facts.queue_count, 1, lib::max_disk_queues));
}

u64 features(DiskFacts const& facts) {
    u64 result = SEG_SIZE_MAX | SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY;
    if (queue_count(facts) > 1) result |= MQ;
    if (facts.is_read_only) return result | RO;
    return result | WRITE_ZEROES | (facts.can_discard ? DISCARD : 0);
}

} // namespace

VirtioBlk::VirtioBlk(Plug const& plug, u32 number)
    : ServedVirtio(plug,
                   {BLOCK_DEVICE, MASS_STORAGE_CLASS, features(plug.facts.disks[number]),
                    platform::queue_count(plug.facts.disks[number]), queue_size, configuration_size},
                   number, plug.facts.disks[number].is_there),
      facts_(plug.facts.disks[number]) {
    u16 const count = platform::queue_count(facts_);
    auto const put = [this](Field at, u8 size, u64 value) { lib::store_sized(&configuration_[at], size, value); };
    put(capacity, 8, facts_.sectors);
    put(size_max, 4, bytes_of_segment);
    put(seg_max, 4, segments);
    put(blk_size, 4, sector_size);
    put(physical_block_exp, 1, sectors_of_page_exp);
    put(min_io_size, 2, sectors_of_page);
    if (count > 1) put(num_queues, 2, count);
    if (!facts_.is_read_only && facts_.can_discard) {
        put(max_discard_sectors, 4, lib::max_cleared_sectors);
        put(max_discard_seg, 4, 1);
        put(discard_sector_alignment, 4, sectors_of_page);
    }
    if (!facts_.is_read_only) {
        put(max_write_zeroes_sectors, 4, lib::max_cleared_sectors);
        put(max_write_zeroes_seg, 4, 1);
    }
    begin(std::span(queues_).first(count), configuration_);
}

VirtioBlk::State VirtioBlk::save() const {
    return {save_transport(), queues_, facts_.sectors, facts_.queue_count, facts_.is_there, facts_.is_read_only, {}};
}

lib::Result<void> VirtioBlk::restore(State const& state) {
    bool const is_same_disk = state.sectors == facts_.sectors && state.queue_count == facts_.queue_count &&
                              state.is_there == facts_.is_there && state.is_read_only == facts_.is_read_only;
    if (!is_same_disk) return lib::fail(lib::Errc::BadFormat);
    return restore_served(state.transport, std::span(state.queues).first(platform::queue_count(facts_)));
}

} // namespace platform
