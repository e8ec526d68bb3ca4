// SPDX-License-Identifier: MIT
#pragma once
// What the driver of virtio block devices keeps in its shared memory besides the ring, and the requests' format.
#include <block/virtio.hpp>
#include <lib/bits.hpp>

namespace block::virtio {

// Types and states of a request, [virtio/1.2] 5.2.6.
inline constexpr u32 IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8;
inline constexpr u8 OK = 0, unanswered = 0xff;
inline constexpr u32 id_size = 20;
inline constexpr u32 capacity_unit = 512; // of every sector number of a request

// Features, [virtio/1.2] 5.2.3 and 6.
inline constexpr u64 SIZE_MAX_ = lib::bit(1), SEG_MAX = lib::bit(2), RO = lib::bit(5), BLK_SIZE = lib::bit(6),
                     FLUSH_FEATURE = lib::bit(9), INDIRECT_DESC = lib::bit(28), VERSION_1 = lib::bit(32),
                     ACCESS_PLATFORM = lib::bit(33), ORDER_PLATFORM = lib::bit(36);

struct Request {
    u32 type, reserved;
    u64 sector;
    u8 status; // written by the device
    u8 padding[15];
};
static_assert(sizeof(Request) == 32);
inline constexpr u32 header_size = 16;

inline constexpr u32 requests_at = VirtioRing::memory_size;
inline constexpr u32 id_at = requests_at + sizeof(Request) * VirtioRing::most_descriptors;
inline constexpr u32 tables_at = 0x4000;
inline constexpr u32 table_size = sizeof(VirtioDescriptor) * VirtioRing::most_descriptors;
static_assert(id_at + id_size <= tables_at);
static_assert(tables_at + table_size * VirtioRing::most_descriptors == Virtio::memory_needed);

} // namespace block::virtio
