// SPDX-License-Identifier: MIT
// Reset, features and the queue, at the start and when the device has gone wrong. [virtio/1.2] 3.1.1
#include "printable.hpp"
#include "virtio_requests.hpp"

#include <algorithm>
#include <bit>
#include <optional>

namespace block {

using namespace virtio;

namespace {

// Header, one piece and status are what the shortest queue must have room for, and such a size is a power of two.
constexpr u16 smallest_queue = 4;
// Of a device without indirect tables. 14 pieces in 8 commands, with 128 descriptors.
constexpr u32 direct_stride = 16;
constexpr u32 most_tries = 8;       // to read a configuration that changes
constexpr u64 reserve = 128 * 1024; // at the end of the shared memory: not the driver's

constexpr u64 wanted =
    SIZE_MAX_ | SEG_MAX | RO | BLK_SIZE | FLUSH_FEATURE | INDIRECT_DESC | VERSION_1 | ACCESS_PLATFORM | ORDER_PLATFORM;

// [virtio/1.2] 5.2.4
constexpr u32 capacity = 0, size_max = 8, seg_max = 12, blk_size = 20;

} // namespace

struct Virtio::Config {
    u64 capacity; // in 512 bytes
    u32 size_max, seg_max, blk_size;
};

void Virtio::start(u64 now) {
    if (shared_.bytes.size() < memory_needed + reserve) return fail("has too little memory for its driver");
    if (std::string_view const reason = transport_.find(); !reason.empty()) return fail(reason);
    reset(now);
}

void Virtio::reset(u64 now) {
    phase_ = Phase::Reset;
    reset_limit_ = now + milliseconds(reset_milliseconds);
    transport_.set_status(0);
    wait_for_reset(now);
}

// Only when the status reads 0, the device has let go of the memory of its commands.
void Virtio::wait_for_reset(u64 now) {
    if (u8 const status = transport_.status(); status != 0) {
        if (status == VirtioTransport::gone) return fail("does not answer");
        if (now >= reset_limit_) return fail("does not end its reset");
        next_look_ = now + milliseconds(1);
        return;
    }
    end_all();
    if (std::string_view const reason = configure(); !reason.empty()) return fail(reason);
    if (has_disk_)
        phase_ = Phase::Running;
    else
        identify(now);
}

void Virtio::recover(std::string_view reason, u64 now) {
    if (resets_ == most_resets) return fail(reason);
    resets_++;
    function_.log(reason);
    reset(now);
}

void Virtio::fail(std::string_view reason) {
    bool const has_registers = phase_ != Phase::New;
    failure_ = reason;
    phase_ = Phase::Failed;
    if (has_registers) transport_.set_status(0);
    function_.set_bus_master(false);
    function_.log(reason);
    end_all();
}

// From a device that has just been reset to one that works. Returns why that cannot be, or nothing.
std::string_view Virtio::configure() {
    constexpr u8 known = VirtioTransport::ACKNOWLEDGE | VirtioTransport::DRIVER;
    transport_.set_status(VirtioTransport::ACKNOWLEDGE);
    transport_.set_status(known);
    u64 const features = transport_.offered_features() & wanted;
    if ((features & VERSION_1) == 0) return "is older than virtio 1.0";
    transport_.accept_features(features);
    transport_.set_status(known | VirtioTransport::FEATURES_OK);
    if ((transport_.status() & VirtioTransport::FEATURES_OK) == 0) return "refuses a part of its own features";

    Config config{};
    if (std::string_view const reason = read_config(features, config); !reason.empty()) return reason;
    u16 const most = transport_.queue_size();
    if (most < smallest_queue) return "has no queue that is long enough";
    u16 const size = std::bit_floor(std::min(most, VirtioRing::most_descriptors));
    if (has_disk_ && size != queue_size_) return "is another one after a reset";
    queue_size_ = size;
    if (std::string_view const reason = learn(features, config); !reason.empty()) return reason;

    ring_.start(shared_.bytes.first<VirtioRing::memory_size>(), size);
    function_.set_bus_master(true);
    std::string_view const reason =
        transport_.start_queue({size, shared_.address + VirtioRing::descriptors_at,
                                shared_.address + VirtioRing::available_at, shared_.address + VirtioRing::used_at});
    if (!reason.empty()) return reason;
    transport_.set_status(known | VirtioTransport::FEATURES_OK | VirtioTransport::DRIVER_OK);
    return {};
}

// [virtio/1.2] 2.5.1: a field is only there if its feature is offered, and several belong together only if the
// generation is the same before and after.
std::string_view Virtio::read_config(u64 features, Config& config) {
    auto const field = [&](u64 feature, u32 offset, u32 otherwise) -> std::optional<u32> {
        if ((features & feature) == 0) return otherwise;
        if (transport_.configuration_size() < offset + 4) return std::nullopt;
        return transport_.configuration(offset);
    };
    for (u32 i = 0; i < most_tries; i++) {
        u8 const generation = transport_.generation();
        config.capacity = transport_.configuration(capacity) | u64{transport_.configuration(capacity + 4)} << 32;
        auto const most_size = field(SIZE_MAX_, size_max, ~u32{0});
        auto const most_segments = field(SEG_MAX, seg_max, 1);
        auto const sector_size = field(BLK_SIZE, blk_size, capacity_unit);
        if (!most_size || !most_segments || !sector_size) return "has a configuration that is too short";
        config = {config.capacity, *most_size, *most_segments, *sector_size};
        if (transport_.generation() == generation) return {};
    }
    return "changes its configuration all the time";
}

std::string_view Virtio::set_limits(u64 features, Config const& config) {
    has_indirect_ = (features & INDIRECT_DESC) != 0;
    stride_ = has_indirect_ ? 1 : std::min<u32>(queue_size_, direct_stride);
    // [virtio/1.2] 2.7.5.3.1: with a table, too, a chain is not longer than the queue.
    u32 const chain = has_indirect_ ? queue_size_ : stride_;
    u32 pieces = std::clamp<u32>(config.seg_max, 1, chain - 2);
    u64 bytes = most_bytes;
    size_max_ = most_bytes;
    if (config.size_max < most_bytes) {
        // A piece of any size is cut into as many as it needs. Half of them are for these cuts.
        size_max_ = config.size_max;
        if (pieces == 1) {
            bytes = size_max_;
        } else {
            bytes = std::min<u64>(u64{pieces / 2} * size_max_, most_bytes);
            pieces -= pieces / 2;
        }
    }
    bytes = lib::align_down(bytes, lib::page_size);
    if (bytes == 0) return "takes too little at once";
    Limits const limits = {static_cast<u32>(bytes), pieces, 1, 1, ~u64{0}, queue_size_ / stride_};
    bool const is_same = limits.most_bytes == limits_.most_bytes && limits.most_pieces == limits_.most_pieces &&
                         limits.depth == limits_.depth;
    if (has_disk_ && !is_same) return "is another one after a reset";
    limits_ = limits;
    return {};
}

// Makes limits and facts of what the device says. After a reset they must be what they were.
std::string_view Virtio::learn(u64 features, Config const& config) {
    if (!std::has_single_bit(config.blk_size) || config.blk_size < 512 || config.blk_size > 4096)
        return "has sectors of a size that is not supported";
    if (std::string_view const reason = set_limits(features, config); !reason.empty()) return reason;
    DiskFacts facts = disk_;
    facts.sectors = config.capacity / (config.blk_size / capacity_unit);
    facts.sector_size = config.blk_size;
    facts.is_read_only = (features & RO) != 0;
    facts.has_write_cache = (features & FLUSH_FEATURE) != 0;
    if (has_disk_) {
        bool const is_same = facts.sectors == disk_.sectors && facts.sector_size == disk_.sector_size &&
                             facts.is_read_only == disk_.is_read_only && facts.has_write_cache == disk_.has_write_cache;
        return is_same ? std::string_view{} : "is another one after a reset";
    }
    disk_ = facts;
    return {};
}

// Asks for the serial number. It is the driver's own request, in slot 0, while there is no other.
void Virtio::identify(u64 now) {
    phase_ = Phase::Identify;
    Piece const piece{shared_.address + id_at, id_size};
    begin(0, 0, now, identify_milliseconds);
    if (build(0, GET_ID, 0, {&piece, 1})) ring_.add(0);
    ring();
}

void Virtio::end_identify(Slot& slot) {
    slot.use = Use::Free;
    under_way_ = 0;
    if (slot.status == Status::Good) copy_printable(disk_.serial, shared_.bytes.subspan(id_at, id_size));
    constexpr std::string_view model = "virtio";
    std::ranges::copy(model, disk_.model.begin());
    for (u32 i = limits_.depth; i-- != 0;)
        free_[free_count_++] = static_cast<u8>(i);
    has_disk_ = true;
    phase_ = Phase::Running;
}

} // namespace block
